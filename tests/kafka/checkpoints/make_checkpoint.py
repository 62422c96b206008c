"""Makes the checkpoint of a release that `test_checkpoint.py` goes on from, once, when it is released.

    git worktree add /tmp/released v0.1.0
    PYTHONPATH=tools:tests python tests/kafka/checkpoints/make_checkpoint.py /tmp/released/jobs/unique_users.py 0.1.0

Runs that release's job on an embedded Kafka over the first events of `test_checkpoint.make_lines` and packs what it
leaves: a closed window, an open one, and offsets in two partitions.
"""

from __future__ import annotations

import argparse
import subprocess
import tarfile
import tempfile
from pathlib import Path

from kafka.test_checkpoint import FLAGS, READ_BEFORE, make_lines, source_of
from kafka_broker import KafkaBroker
from load_events import load_lines
from support import SPARK_SUBMIT


def main() -> None:
    """Writes `VERSION.tar.gz` beside this file."""
    parser = argparse.ArgumentParser(description="Make the checkpoint of a release.")
    parser.add_argument("job", type=Path, help="unique_users.py of that release")
    parser.add_argument("version")
    args = parser.parse_args()
    with KafkaBroker() as broker, tempfile.TemporaryDirectory() as folder:
        source = source_of(args.version)
        broker.create_topic(source, 2)
        broker.create_topic("out")
        load_lines(make_lines()[:READ_BEFORE], broker.bootstrap_servers, source)
        checkpoint = Path(folder) / "checkpoint"
        command = [str(SPARK_SUBMIT), str(args.job), "--bootstrap-servers", broker.bootstrap_servers, *FLAGS]
        command += ["--input-topic", source, "--output-topic", "out", "--idle-timeout", "off"]
        command += ["--checkpoint-location", str(checkpoint)]
        subprocess.run(command, check=True)
        target = Path(__file__).with_name(f"{args.version}.tar.gz")
        with tarfile.open(target, "w:gz") as archive:
            archive.add(checkpoint, "checkpoint")
    print(target, target.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
