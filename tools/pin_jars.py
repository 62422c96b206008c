"""Writes `conf/jars.lock`: the jars of every Maven package that this project installs, with their SHA-256.

    python tools/pin_jars.py

`make pins` calls it. It downloads the packages again, so what it writes is what the repository serves now. Look at the
change before you commit it: a file whose name stayed the same must keep its SHA-256.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from install_spark import resolve_package
from jar_lock import LOCK, format_lock, hash_jars
from packages import BROKER_PACKAGE, CONF, LOGGER_PACKAGE, S3A_PACKAGE, YARN_PACKAGES, read_packages


def list_packages() -> list[str]:
    """The connectors of every Spark in `conf/spark-versions.txt`, the embedded Kafka, YARN, and Hadoop for S3."""
    lines = (CONF / "spark-versions.txt").read_text().splitlines()
    connectors = [package for line in lines if not line.startswith("#") for package in line.split()[2:]]
    own = [BROKER_PACKAGE, LOGGER_PACKAGE, *YARN_PACKAGES, S3A_PACKAGE]
    return list(dict.fromkeys([*read_packages(), *connectors, *own]))


def main() -> None:
    """Downloads every package into a temporary folder and writes the file."""
    locked = {}
    with tempfile.TemporaryDirectory(prefix="unique-users-pins-") as scratch:
        for number, package in enumerate(list_packages()):
            print("pins: resolving", package, file=sys.stderr, flush=True)
            folder = Path(scratch) / str(number)
            resolve_package(package, folder, ivy_cache=Path(scratch) / "ivy")
            locked[package] = hash_jars(folder)
    LOCK.write_text(format_lock(locked))
    print(f"pins: {sum(map(len, locked.values()))} jars of {len(locked)} packages in conf/{LOCK.name}")


if __name__ == "__main__":
    main()
