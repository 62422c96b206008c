"""Installs the jars that PySpark lacks, and this project's Spark settings.

`make install` calls it after pip. It needs no network when the jars are there already. It

- downloads the packages of `conf/packages.txt` (Kafka connector, Delta, Avro) and the embedded Kafka with the Ivy that
  ships inside PySpark, and compares every jar with its SHA-256 in `conf/jars.lock` before it installs the first one;
- copies the connector jars to `pyspark/jars`, and Kafka's to the cache folder;
- links `conf/` into the installed Spark, so that a bare `spark-submit` reads it;
- makes `.venv/bin/spark-submit` find its own Spark and Python without an activated environment.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyspark
from jar_lock import LockError, check_jars, find_jars, hash_jars
from packages import BROKER_JARS, BROKER_PACKAGE, CACHE, CONF, LOGGER_PACKAGE, read_packages

SPARK_HOME = Path(pyspark.__file__).resolve().parent
LINKED_CONF = ("spark-defaults.conf", "log4j2.properties", "metrics.properties")


def resolve_package(package: str, target: Path, ivy_cache: Path | None = None) -> list[Path]:
    """Downloads `package` and all it depends on into the folder `target`; returns all jars there, unchecked.

    `ivy_cache` is where Ivy keeps its downloads; the default is the project's cache. Raises SystemExit with one line
    when the package can't be downloaded.
    """
    group, artifact, version = package.split(":")
    ivy = next(SPARK_HOME.glob("jars/ivy-*.jar"))
    target.mkdir(parents=True, exist_ok=True)
    command = ["java", "-jar", str(ivy), "-settings", str(CONF / "ivysettings.xml")]
    command += ["-cache", str(ivy_cache or CACHE / "ivy")]
    command += ["-confs", "default", "-dependency", group, artifact, version]
    command += ["-retrieve", f"{target}/[artifact]-[revision].[ext]", "-types", "jar", "bundle", "-warn"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        log = CACHE / "ivy.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(done.stdout + done.stderr)
        sys.exit(f"install: {package} can't be downloaded (network? proxy?): Ivy's messages are in {log}")
    return sorted(target.glob("*.jar"))


def fetch_jars(packages: list[str], folder: Path) -> list[Path]:
    """Fills `folder` with the jars of `packages`, checked against the lock file; returns the jars.

    Downloads nothing when the folder holds the right jars already. A wrong jar ends with one line, and the folder
    stays as it was.
    """
    try:
        wanted = find_jars(packages)
    except LockError as error:
        sys.exit(f"install: {error}")
    try:
        check_jars(folder, wanted)
    except LockError:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=folder.name, dir=folder.parent) as scratch:
            fresh = Path(scratch) / "jars"
            for package in packages:
                resolve_package(package, fresh)
            try:
                check_jars(fresh, wanted)
            except LockError as error:
                sys.exit(f"install: nothing was installed: {error}; remove {CACHE / 'ivy'} to download it again")
            if folder.exists():
                shutil.rmtree(folder)
            fresh.rename(folder)
    return sorted(folder.glob("*.jar"))


def name_of(jar: Path) -> str:
    """The artifact's name without version and Scala suffix: `commons-pool2` of `commons-pool2-2.12.1.jar`."""
    return re.sub(r"(_2\.1\d)?-\d[^-]*.*\.jar$", "", jar.name)


def is_installed(packages: list[str], installed: dict[str, list[str]]) -> bool:
    """Whether the connectors in `pyspark/jars` are those of `packages`, byte for byte as in the lock file."""
    if installed["packages"] != packages:
        return False
    found = hash_jars(SPARK_HOME / "jars")
    wanted = find_jars(packages)
    return all(found.get(name) == wanted.get(name) for name in installed["jars"])


def install_connectors(packages: list[str]) -> list[str]:
    """Copies the connector jars that Spark does not ship itself to `pyspark/jars`; returns the names of new ones.

    Every jar of every package is checked before the first file is changed.
    """
    jars = SPARK_HOME / "jars"
    marker = jars / "unique-users.json"
    installed = json.loads(marker.read_text()) if marker.exists() else {"packages": [], "jars": []}
    try:
        if is_installed(packages, installed):
            return []
    except LockError as error:
        sys.exit(f"install: {error}")
    fetched = [
        jar for package in packages for jar in fetch_jars([package], CACHE / "connectors" / package.replace(":", "-"))
    ]
    for name in installed["jars"]:
        (jars / name).unlink(missing_ok=True)
    shipped = {name_of(jar) for jar in jars.glob("*.jar")}
    new = [jar for jar in fetched if name_of(jar) not in shipped]
    for jar in new:
        shutil.copy2(jar, jars / jar.name)
    names = [jar.name for jar in new]
    marker.write_text(json.dumps({"packages": packages, "jars": names}))
    return names


def link_conf() -> None:
    """Makes the installed Spark read this checkout's `conf/` and start Python workers with this environment."""
    conf = SPARK_HOME / "conf"
    conf.mkdir(exist_ok=True)
    for name in LINKED_CONF:
        link = conf / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(CONF / name, conf))
    # Without the first line Spark starts its Python workers, which benchmarks and tests use, with the first python3 on
    # PATH, which has no pyspark. Without the second line the driver and its web UI listen on every interface.
    (conf / "spark-env.sh").write_text(
        f'PYSPARK_PYTHON="${{PYSPARK_PYTHON:-{sys.executable}}}"\nSPARK_LOCAL_IP="${{SPARK_LOCAL_IP:-127.0.0.1}}"\n'
    )
    # The copy that pip installs in bin/ asks the first python3 on PATH for pyspark, which may have another one.
    finder = Path(sys.executable).parent / "find_spark_home.py"
    finder.unlink(missing_ok=True)
    finder.write_text(f'print("{SPARK_HOME}")\n')


def main() -> None:
    """Installs connectors, the embedded Kafka and settings, and prints what is new."""
    parser = argparse.ArgumentParser(description="Install the Kafka connector, Delta, Avro and the embedded Kafka.")
    parser.add_argument(
        "--packages",
        nargs="+",
        metavar="GROUP:ARTIFACT:VERSION",
        help="install these connectors instead of those in conf/packages.txt; conf/jars.lock must name them",
    )
    parser.add_argument(
        "--connectors-only", action="store_true", help="install neither the embedded Kafka nor the settings"
    )
    args = parser.parse_args()
    if not args.connectors_only:
        print("install: getting the embedded Kafka", BROKER_PACKAGE, flush=True)
        fetch_jars([BROKER_PACKAGE, LOGGER_PACKAGE], BROKER_JARS)
    print("install: getting the Kafka connector, Delta and Avro for Spark", pyspark.__version__, flush=True)
    for name in install_connectors(args.packages or read_packages()):
        print("install:   +", name)
    if args.connectors_only:
        return
    link_conf()
    print("install: done; try: make demo")


if __name__ == "__main__":
    main()
