"""Makes the checkpoint of a release that `releases.py` goes on from, once, when it is released.

    PYTHONPATH=jobs:tools:tests .venv/bin/python tests/kafka/checkpoints/make_checkpoint.py 0.2.0 0.2.0-groups

The arguments are names in `releases.RELEASES`, which has the flags of each. Runs the job of this checkout on an
embedded Kafka over the first events of `releases.make_lines` and packs what it leaves: a published window, one
that has begun, and offsets in two partitions.
"""

from __future__ import annotations

import argparse
import gzip
import subprocess
import tarfile
import tempfile
from pathlib import Path

from kafka_broker import KafkaBroker
from load_events import load_lines
from releases import CHECKPOINTS, FLAGS, READ_BEFORE, RELEASES, make_lines, source_of
from support import ROOT, SPARK_SUBMIT


def main() -> None:
    """Writes `NAME.tar.gz` beside this file for each name."""
    parser = argparse.ArgumentParser(description="Make the checkpoints of a release.")
    parser.add_argument("names", nargs="+", choices=RELEASES, metavar="NAME")
    for name in parser.parse_args().names:
        target = CHECKPOINTS / f"{name}.tar.gz"
        make_checkpoint(name, target)
        print(target.relative_to(ROOT), target.stat().st_size, "bytes")


def make_checkpoint(name: str, target: Path) -> None:
    """Runs the job and packs its checkpoint."""
    with KafkaBroker() as broker, tempfile.TemporaryDirectory() as folder:
        source = source_of(name)
        broker.create_topic(source, 2)
        broker.create_topic("out")
        load_lines(make_lines()[:READ_BEFORE], broker.bootstrap_servers, source)
        checkpoint = Path(folder) / "checkpoint"
        command = [str(SPARK_SUBMIT), str(ROOT / "jobs" / "unique_users.py"), *FLAGS, *RELEASES[name]]
        command += ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", "out"]
        subprocess.run([*command, "--idle-timeout", "off", "--checkpoint-location", str(checkpoint)], check=True)
        with gzip.GzipFile(target, "wb", mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as archive:
            archive.add(checkpoint, "checkpoint", filter=forget_owner)


def forget_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry that belongs to nobody on the machine that made it."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


if __name__ == "__main__":
    main()
