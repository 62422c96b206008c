"""Writes a CycloneDX list of the image's contents: Python packages with hashes, and the jars of Spark and connectors.

    python tools/make_sbom.py dist/sbom.json

cyclonedx-py reads the Python packages from docker/requirements.txt. The jars are those of the installed PySpark:
`make install` adds the same ones to it as the image build does. A jar that does not hold its Maven coordinates is
listed by its name.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pyspark

ROOT = Path(__file__).resolve().parent.parent
JARS = Path(pyspark.__path__[0]) / "jars"


def read_coordinates(jar: Path) -> tuple[str, str, str]:
    """Group, artifact and version of a jar, as Maven wrote them into it. What is not known is empty."""
    named = re.fullmatch(r"(.+?)-(\d.*)\.jar", jar.name)
    artifact, version = named.groups() if named else (jar.stem, "")
    with zipfile.ZipFile(jar) as archive:
        for name in archive.namelist():
            # A jar that contains other jars has several of these files. Its own one names its artifact.
            if name.startswith("META-INF/maven/") and name.endswith(f"/{artifact}/pom.properties"):
                return name.split("/")[2], artifact, version
    return "", artifact, version


def describe_jar(jar: Path) -> dict[str, Any]:
    """A jar as a CycloneDX component."""
    group, artifact, version = read_coordinates(jar)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"jar:{jar.name}",
        "name": artifact,
        "hashes": [{"alg": "SHA-256", "content": hashlib.sha256(jar.read_bytes()).hexdigest()}],
    }
    if version:
        component["version"] = version
    if group:
        component["group"] = group
        component["purl"] = f"pkg:maven/{group}/{artifact}@{version}"
    return component


def main() -> None:
    """Writes the file and prints how many packages and jars it lists."""
    parser = argparse.ArgumentParser(description="List the image's contents as CycloneDX JSON.")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    args.output.parent.mkdir(parents=True, exist_ok=True)
    tool = Path(sys.executable).parent / "cyclonedx-py"
    command = [str(tool), "requirements", str(ROOT / "docker" / "requirements.txt"), "--output-reproducible"]
    bom = json.loads(subprocess.run([*command, "--of", "JSON"], capture_output=True, text=True, check=True).stdout)
    jars = [describe_jar(jar) for jar in sorted(JARS.glob("*.jar"))]
    packages = len(bom["components"])
    bom["components"] += jars
    args.output.write_text(json.dumps(bom, indent=2) + "\n")
    print(f"sbom: {packages} Python packages and {len(jars)} jars in {args.output}")


if __name__ == "__main__":
    main()
