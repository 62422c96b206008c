"""Puts the jars in place that the installed PySpark lacks, and this project's Spark settings.

`make install` calls it after pip. It needs no network when the jars are there already. What it does:

- resolves `conf/packages.txt` (Kafka connector, Delta) and the Kafka broker of the tools with the Ivy that ships
  inside PySpark, and copies the connector jars to `pyspark/jars`, the broker's to the cache folder;
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
from pathlib import Path

import pyspark
from packages import BROKER_JARS, BROKER_PACKAGE, CACHE, CONF, LOGGER_PACKAGE, read_packages

SPARK_HOME = Path(pyspark.__file__).resolve().parent
LINKED_CONF = ("spark-defaults.conf", "log4j2.properties", "metrics.properties")


def resolve_package(package: str, target: Path) -> list[Path]:
    """Retrieves `package` and all it depends on into the folder `target`; returns the jars.

    Raises SystemExit with one line when the package can't be had.
    """
    group, artifact, version = package.split(":")
    ivy = next(SPARK_HOME.glob("jars/ivy-*.jar"))
    target.mkdir(parents=True, exist_ok=True)
    command = [
        "java",
        "-jar",
        str(ivy),
        "-settings",
        str(CONF / "ivysettings.xml"),
        "-cache",
        str(CACHE / "ivy"),
    ]
    command += ["-confs", "default", "-dependency", group, artifact, version]
    command += ["-retrieve", f"{target}/[artifact]-[revision].[ext]", "-types", "jar", "bundle", "-warn"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        log = target / "ivy.log"
        log.write_text(done.stdout + done.stderr)
        sys.exit(f"install: {package} could not be resolved (network? proxy?); what Ivy said is in {log}")
    return sorted(target.glob("*.jar"))


def name_of(jar: Path) -> str:
    """The artifact's name without version and Scala suffix: `commons-pool2` of `commons-pool2-2.12.1.jar`."""
    return re.sub(r"(_2\.1\d)?-\d[^-]*.*\.jar$", "", jar.name)


def install_connectors(packages: list[str]) -> list[str]:
    """Copies the connector jars that Spark does not ship itself to `pyspark/jars`; returns the names of new ones."""
    jars = SPARK_HOME / "jars"
    marker = jars / "unique-users.json"
    installed = json.loads(marker.read_text()) if marker.exists() else {"packages": [], "jars": []}
    if installed["packages"] == packages:
        return []
    for name in installed["jars"]:
        (jars / name).unlink(missing_ok=True)
    shipped = {name_of(jar) for jar in jars.glob("*.jar")}
    new = [
        jar
        for package in packages
        for jar in resolve_package(package, CACHE / "connectors" / package.replace(":", "-"))
        if name_of(jar) not in shipped
    ]
    for jar in new:
        shutil.copy2(jar, jars / jar.name)
    names = [jar.name for jar in new]
    marker.write_text(json.dumps({"packages": packages, "jars": names}))
    return names


def install_broker() -> None:
    """Retrieves the Kafka broker's jars into the cache folder, once."""
    done = BROKER_JARS / "resolved.txt"
    if not done.exists():
        for package in (BROKER_PACKAGE, LOGGER_PACKAGE):
            resolve_package(package, BROKER_JARS)
        done.write_text(BROKER_PACKAGE + "\n")


def link_conf() -> None:
    """Makes the installed Spark read this checkout's `conf/` and start Python workers with this environment."""
    conf = SPARK_HOME / "conf"
    conf.mkdir(exist_ok=True)
    for name in LINKED_CONF:
        link = conf / name
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(CONF / name, conf))
    # Without these, drivers and workers start the first python3 on PATH, which has no pyspark or pyarrow, and the
    # driver listens on every interface.
    (conf / "spark-env.sh").write_text(
        f'PYSPARK_PYTHON="${{PYSPARK_PYTHON:-{sys.executable}}}"\nSPARK_LOCAL_IP="${{SPARK_LOCAL_IP:-127.0.0.1}}"\n'
    )
    # pip's own copy in bin/ asks the first python3 on PATH where its pyspark is.
    finder = Path(sys.executable).parent / "find_spark_home.py"
    finder.unlink(missing_ok=True)
    finder.write_text(f'print("{SPARK_HOME}")\n')


def main() -> None:
    """Installs connectors, broker and settings, saying what is new."""
    parser = argparse.ArgumentParser(description="Put the Kafka connector, Delta and the embedded Kafka in place.")
    parser.add_argument(
        "--packages", nargs="+", metavar="GROUP:ARTIFACT:VERSION", help="other connectors than conf/packages.txt names"
    )
    parser.add_argument("--connectors-only", action="store_true", help="neither the embedded Kafka nor the settings")
    args = parser.parse_args()
    print("install: resolving the Kafka connector and Delta for Spark", pyspark.__version__, flush=True)
    for name in install_connectors(args.packages or read_packages()):
        print("install:   +", name)
    if args.connectors_only:
        return
    print("install: resolving the embedded Kafka", BROKER_PACKAGE, flush=True)
    install_broker()
    link_conf()
    print("install: done; try: make demo")


if __name__ == "__main__":
    main()
