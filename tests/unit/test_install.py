"""What `make install` downloads is compared with the lock file before anything is installed."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import install_spark
import jar_lock
import packages
import pin_jars
import pyspark
import pytest

KAFKA = "org.example:kafka-connector_2.13:1.0"
DELTA = "org.example:delta-connector_2.13:2.0"
SPARK_JARS = Path(pyspark.__file__).parent / "jars"
IVY_SETTINGS = """\
<ivysettings>
  <settings defaultResolver="local"/>
  <resolvers><ibiblio name="local" m2compatible="true" root="{root}/"/></resolvers>
</ivysettings>
"""


@dataclass(frozen=True)
class Machine:
    """A Maven repository, a cache, a lock file and a Spark of this test's own."""

    folder: Path

    @property
    def spark_jars(self) -> Path:
        return self.folder / "spark" / "jars"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    def publish(self, package: str, content: bytes) -> None:
        group, artifact, version = package.split(":")
        folder = self.folder / "repository" / group.replace(".", "/") / artifact / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{artifact}-{version}.jar").write_bytes(content)
        (folder / f"{artifact}-{version}.pom").write_text(
            "<project><modelVersion>4.0.0</modelVersion>"
            f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version></project>"
        )

    def lock(self, **contents: bytes) -> None:
        names = {"kafka": KAFKA, "delta": DELTA}
        lines = []
        for name, content in contents.items():
            _, artifact, version = names[name].split(":")
            lines += [names[name], f"  {hashlib.sha256(content).hexdigest()}  {artifact}-{version}.jar"]
        (self.folder / "jars.lock").write_text("\n".join(lines) + "\n")

    def installed(self) -> list[str]:
        return sorted(jar.name for jar in self.spark_jars.glob("*-connector*.jar"))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    made.spark_jars.mkdir(parents=True)
    ivy = next(SPARK_JARS.glob("ivy-*.jar"))
    (made.spark_jars / ivy.name).symlink_to(ivy)
    (tmp_path / "ivysettings.xml").write_text(IVY_SETTINGS.format(root=(tmp_path / "repository").as_uri()))
    monkeypatch.setattr(install_spark, "SPARK_HOME", tmp_path / "spark")
    monkeypatch.setattr(install_spark, "CONF", tmp_path)
    monkeypatch.setattr(install_spark, "CACHE", made.cache)
    monkeypatch.setattr(jar_lock, "LOCK", tmp_path / "jars.lock")
    made.publish(KAFKA, b"kafka")
    made.publish(DELTA, b"delta")
    return made


def test_the_locked_jars_are_installed_once(machine: Machine) -> None:
    machine.lock(kafka=b"kafka", delta=b"delta")
    names = ["kafka-connector_2.13-1.0.jar", "delta-connector_2.13-2.0.jar"]
    assert install_spark.install_connectors([KAFKA, DELTA]) == names
    assert machine.installed() == sorted(names)
    assert install_spark.install_connectors([KAFKA, DELTA]) == []


def test_a_tampered_jar_ends_with_one_line_and_nothing_is_installed(machine: Machine) -> None:
    machine.lock(kafka=b"kafka", delta=b"delta")
    machine.publish(DELTA, b"delta, and somebody else's code")
    with pytest.raises(SystemExit) as ended:
        install_spark.install_connectors([KAFKA, DELTA])
    said = str(ended.value)
    wrong, right = (hashlib.sha256(content).hexdigest() for content in (b"delta, and somebody else's code", b"delta"))
    assert said.startswith("install: nothing was installed: delta-connector_2.13-2.0.jar has SHA-256 " + wrong)
    assert right in said
    assert "\n" not in said
    assert machine.installed() == []
    assert not (machine.spark_jars / "unique-users.json").exists()
    # The cache keeps what was checked, and nothing of the other one.
    assert [folder.name for folder in (machine.cache / "connectors").iterdir()] == [KAFKA.replace(":", "-")]


def test_an_upgrade_to_a_tampered_jar_leaves_the_old_one_in_place(machine: Machine) -> None:
    machine.lock(kafka=b"kafka", delta=b"delta")
    install_spark.install_connectors([KAFKA])
    machine.publish(DELTA, b"tampered")
    with pytest.raises(SystemExit):
        install_spark.install_connectors([DELTA])
    assert machine.installed() == ["kafka-connector_2.13-1.0.jar"]
    assert json.loads((machine.spark_jars / "unique-users.json").read_text())["packages"] == [KAFKA]


def test_a_jar_that_was_changed_after_the_install_is_replaced(machine: Machine) -> None:
    machine.lock(kafka=b"kafka", delta=b"delta")
    install_spark.install_connectors([KAFKA])
    for jar in (machine.spark_jars, machine.cache / "connectors" / KAFKA.replace(":", "-")):
        (jar / "kafka-connector_2.13-1.0.jar").write_bytes(b"changed")
    assert install_spark.install_connectors([KAFKA]) == ["kafka-connector_2.13-1.0.jar"]
    assert (machine.spark_jars / "kafka-connector_2.13-1.0.jar").read_bytes() == b"kafka"


def test_the_embedded_kafka_is_checked_in_the_same_way(machine: Machine) -> None:
    machine.lock(kafka=b"kafka")
    machine.publish(KAFKA, b"tampered")
    broker_jars = machine.cache / "kafka"
    with pytest.raises(SystemExit, match=r"^install: nothing was installed: kafka-connector_2.13-1.0.jar has SHA-256"):
        install_spark.fetch_jars([KAFKA], broker_jars)
    assert not broker_jars.exists()


def test_a_package_without_a_lock_is_refused(machine: Machine) -> None:
    machine.lock(kafka=b"kafka")
    with pytest.raises(SystemExit, match=rf"^install: {DELTA} is not in conf/jars.lock: run make pins"):
        install_spark.install_connectors([DELTA])
    assert machine.installed() == []


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"a.jar": b"a"}, "b.jar is missing, which conf/jars.lock names"),
        ({"a.jar": b"a", "b.jar": b"b", "c.jar": b"c"}, "c.jar was downloaded, but conf/jars.lock does not name it"),
    ],
)
def test_a_missing_and_an_unknown_jar_are_refused(tmp_path: Path, files: dict[str, bytes], problem: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    wanted = {name: hashlib.sha256(name[:1].encode()).hexdigest() for name in ("a.jar", "b.jar")}
    with pytest.raises(jar_lock.LockError, match=rf"^{re.escape(problem)}$"):
        jar_lock.check_jars(tmp_path, wanted)


def test_the_lock_file_names_every_package_and_no_address() -> None:
    assert list(jar_lock.read_lock()) == pin_jars.list_packages()
    text = jar_lock.LOCK.read_text()
    assert jar_lock.format_lock(jar_lock.read_lock()) == text
    assert "://" not in text
    assert all(
        re.fullmatch(r"[0-9a-f]{64}", digest) for jars in jar_lock.read_lock().values() for digest in jars.values()
    )


def test_what_is_installed_here_is_what_is_locked() -> None:
    marker = json.loads((SPARK_JARS / "unique-users.json").read_text())
    assert install_spark.is_installed(marker["packages"], marker)
    wanted = jar_lock.find_jars([packages.BROKER_PACKAGE, packages.LOGGER_PACKAGE])
    jar_lock.check_jars(packages.BROKER_JARS, wanted)
