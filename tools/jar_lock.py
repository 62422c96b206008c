"""The lock file of the jars: which files each Maven package brings, and their SHA-256.

`conf/jars.lock` holds the coordinates of a package on a line of their own, and below them a line for each jar:
its SHA-256 and its file name. `make pins` writes the file; `tools/install_spark.py` reads it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from packages import CONF

if TYPE_CHECKING:
    from pathlib import Path

LOCK = CONF / "jars.lock"
HEADER = """\
# SHA-256 of every jar that the install downloads, below the Maven package that brings it. `make pins` writes this file.
# The install compares each download with it, and installs nothing when one file differs, is missing or is unknown.
"""


class LockError(Exception):
    """A jar is not the one in the lock file; the message is one line."""


def hash_jars(folder: Path) -> dict[str, str]:
    """SHA-256, in hexadecimal, of each jar in `folder`, by its file name; empty where there is no folder."""
    return {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in sorted(folder.glob("*.jar"))}


def format_lock(packages: dict[str, dict[str, str]]) -> str:
    """The text of the lock file, from coordinates -> file name -> SHA-256."""
    blocks = [
        "\n".join([package, *(f"  {digest}  {name}" for name, digest in jars.items())])
        for package, jars in packages.items()
    ]
    return HEADER + "\n".join(blocks) + "\n"


def read_lock() -> dict[str, dict[str, str]]:
    """What `conf/jars.lock` holds: coordinates -> file name -> SHA-256."""
    packages: dict[str, dict[str, str]] = {}
    for line in LOCK.read_text().splitlines():
        fields = line.split()
        if line.startswith("#") or not fields:
            continue
        if len(fields) == 1:
            jars = packages.setdefault(fields[0], {})
        else:
            jars[fields[1]] = fields[0]
    return packages


def find_jars(packages: list[str]) -> dict[str, str]:
    """What the packages bring together: file name -> SHA-256. Raises LockError for a package that is not locked."""
    locked = read_lock()
    for package in packages:
        if package not in locked:
            raise LockError(f"{package} is not in conf/{LOCK.name}: run make pins, and look at what it changes")
    return {name: digest for package in packages for name, digest in locked[package].items()}


def check_jars(folder: Path, wanted: dict[str, str]) -> None:
    """Raises LockError unless `folder` holds exactly the jars of `wanted` (file name -> SHA-256)."""
    found = hash_jars(folder)
    for name, digest in wanted.items():
        if name not in found:
            raise LockError(f"{name} is missing, which conf/{LOCK.name} names")
        if found[name] != digest:
            raise LockError(f"{name} has SHA-256 {found[name]}, but conf/{LOCK.name} says {digest}")
    for name in found:
        if name not in wanted:
            raise LockError(f"{name} was downloaded, but conf/{LOCK.name} does not name it")
