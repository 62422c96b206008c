"""Both jobs on Hadoop's own YARN, by the spark-submit line of the EMR step: killed, restarted, stopped, refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import venv
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import support
from install_spark import SPARK_HOME
from load_events import load_lines
from packages import CACHE, read_packages
from support import (
    ROOT,
    SPARK_SUBMIT,
    assert_close,
    count_exactly,
    make_events,
    plain_environment,
    read_records,
    wait_until,
)
from yarn_cluster import YarnCluster, YarnError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kafka_broker import KafkaBroker

pytestmark = pytest.mark.timeout(3600)

DIST = ROOT / "dist"
CONNECTOR, DELTA = read_packages()[:2]
KILLS = 2


def read_step() -> list[str]:
    """The arguments of the step, from the file that users give to EMR."""
    (step,) = json.loads((ROOT / "conf" / "emr-step.json").read_text())["Steps"]
    arguments: list[str] = step["HadoopJarStep"]["Args"]
    return arguments


class Submitter:
    """Starts the step's line with addresses, paths and the version of the connector of this machine; no word else."""

    def __init__(self, cluster: YarnCluster, broker: KafkaBroker, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._servers = broker.bootstrap_servers
        self.log = folder / "submit.log"
        self._known: set[str] = set()
        (folder / "client.properties").write_text("client.id=of-the-step\n")
        # A cluster's Spark: it has no connector. Jars marked local are where they are on every node.
        jars = folder / "jars"
        jars.mkdir()
        connectors = json.loads((SPARK_HOME / "jars" / "unique-users.json").read_text())["jars"]
        for jar in (SPARK_HOME / "jars").glob("*.jar"):
            if jar.name not in connectors:
                (jars / jar.name).symlink_to(jar)
        # A cluster's Python: it has no package of this project.
        venv.create(folder / "python")
        python = folder / "python" / "bin" / "python3"
        self._machine = {
            "spark.master": "yarn",
            "spark.yarn.jars": f"local:{jars}/*",
            "spark.yarn.stagingDir": str(folder / "staging"),
            "spark.pyspark.python": str(python),
            "spark.yarn.appMasterEnv.SPARK_LOCAL_IP": "127.0.0.1",
            "spark.executorEnv.SPARK_LOCAL_IP": "127.0.0.1",
            "spark.jars.ivySettings": str(ROOT / "conf" / "ivysettings.xml"),
            "spark.jars.ivy": str(CACHE / "yarn-submit"),
        }

    def make_command(self, script: str = "unique_users.py", *more: str) -> list[str]:
        """The step's line: its first word is the program, `more` are added flags of the job."""
        bucket = "s3://example-bucket/unique-users"
        places = {
            f"{bucket}/0.2.0/uniques.zip": str(DIST / "uniques.zip"),
            f"{bucket}/client.properties": str(self._folder / "client.properties"),
            f"{bucket}/0.2.0/unique_users.py": str(ROOT / "jobs" / script),
            f"{bucket}/checkpoint": str(self._folder / f"checkpoint-{script}"),
            "b-1.example.kafka.eu-central-1.amazonaws.com:9098": self._servers,
            "org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.2": CONNECTOR,
        }
        words = []
        for word in read_step():
            flag, equals, value = word.rpartition("=")
            words.append(flag + equals + places.get(value, value))
        assert len([word for word in read_step() if word not in words]) == len(places)
        assert words[0] == "spark-submit"
        machine = [f"--conf={name}={value}" for name, value in self._machine.items()]
        return [str(SPARK_SUBMIT), *machine, *words[1:], *more]

    @contextmanager
    def submitted(self, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
        """The submitter, which waits for the end of the application."""
        self._known = self._list()
        with self.log.open("wb") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**plain_environment(), **self._cluster.environment, "SPARK_LOCAL_IP": "127.0.0.1"},
            )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def find_application(self, process: subprocess.Popen[bytes]) -> str:
        """The id of the application, as soon as YARN has it."""
        wait_until(lambda: bool(self._list() - self._known), lambda: process.poll() is None)
        (new,) = self._list() - self._known
        return new

    def _list(self) -> set[str]:
        found = self._cluster.ask("apps")["apps"]
        return {each["id"] for each in found["app"]} if found else set()


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five JVMs on two cores: a start of the driver takes minutes where others use the machine too."""
    monkeypatch.setattr(support, "DEADLINE_SECONDS", 1200.0)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[YarnCluster]:
    """YARN that lets an application start its driver a hundred times, as the page says to set it."""
    page = (ROOT / "docs" / "deploy" / "emr.md").read_text()
    found = re.search(r'"Classification": "yarn-site", "Properties": (\{.+?\})', page)
    assert found is not None
    with YarnCluster(tmp_path / "yarn", json.loads(found[1])) as cluster:
        yield cluster


def list_attempts(cluster: YarnCluster, application: str) -> int:
    return len(cluster.ask(f"apps/{application}/appattempts")["appAttempts"]["appAttempt"])


def read_logs(cluster: YarnCluster, application: str, line: str) -> str:
    """The logs of an application that has ended, as soon as a line is in them: YARN collects them after the end."""
    logs = [""]

    def has_line() -> bool:
        with suppress(YarnError):
            logs.append(cluster.read_logs(application))
        return line in logs[-1]

    wait_until(has_line, lambda: True)
    return logs[-1]


def test_the_step_counts_exactly_once_though_its_driver_is_killed_and_the_rollups_follow(
    cluster: YarnCluster, own_broker: KafkaBroker, tmp_path: Path
) -> None:
    broker = own_broker
    for topic, partitions in (("in", 2), ("out", 1), ("rollups", 1)):
        broker.create_topic(topic, partitions)
    events = make_events(events=9_000, rate=25)  # six minutes
    exact = count_exactly(events)
    parts = [events[:3_000], events[3_000:6_000], events[6_000:]]
    submitter = Submitter(cluster, broker, tmp_path)

    def has_read(loaded: list[Any]) -> bool:
        last = {key: value["events"] for key, value in read_records(broker, "out", "read_committed")}
        return last == {start: number for start, (_, number) in count_exactly(loaded).items()}

    with submitter.submitted(submitter.make_command("unique_users.py", "--sketch")) as process:
        application = submitter.find_application(process)
        for number, part in enumerate(parts):
            load_lines((event.line for event in part), broker.bootstrap_servers, "in")
            loaded = [event for each in parts[: number + 1] for event in each]
            wait_until(lambda loaded=loaded: has_read(loaded), lambda: process.poll() is None)  # type: ignore[misc]
            if number < KILLS:
                (driver,) = cluster.find_containers("java", "org.apache.spark.deploy.yarn.ApplicationMaster")
                os.kill(driver, signal.SIGKILL)
        assert list_attempts(cluster, application) == KILLS + 1
        assert cluster.ask(f"apps/{application}")["app"]["state"] == "RUNNING"
        # The runbook's way to stop.
        cluster.kill_application(application)
        assert process.wait(300) != 0
    records = read_records(broker, "out", "read_committed")
    revisions = Counter((key, value["revision"]) for key, value in records)
    assert set(revisions.values()) == {1}, "a record was written twice"
    last = dict(records)
    assert set(last) == set(exact)
    for start, value in last.items():
        assert_close(value, exact[start])
    assert cluster.ask(f"apps/{application}")["app"]["finalStatus"] == "KILLED"
    logs = read_logs(cluster, application, "unique_users: started query unique_users")
    assert logs.count("unique_users: started query unique_users") == KILLS + 1
    assert not cluster.find_containers()

    rollups = submitter.make_command("rollup_users.py")
    position = next(index for index, word in enumerate(rollups) if word.endswith("rollup_users.py"))
    flags = [word.replace("=in", "=out") for word in rollups[position + 1 :] if not word.startswith("--output-topic")]
    flags += [f"--minutes-table={tmp_path / 'minutes'}", f"--rollups-table={tmp_path / 'rollups'}"]
    packages = f"--packages={CONNECTOR}"
    command = [f"{packages},{DELTA}" if word == packages else word for word in rollups[: position + 1]]
    with submitter.submitted([*command, *flags, "--trigger=available-now"]) as process:
        application = submitter.find_application(process)
        assert process.wait(900) == 0, submitter.log.read_text()
    assert cluster.ask(f"apps/{application}")["app"]["finalStatus"] == "SUCCEEDED"
    day = [value for _, value in read_records(broker, "rollups") if value["period"] == "day"][-1]
    users = len({event.uid for event in events if event.ts is not None and event.uid is not None})
    assert day["events"] == sum(number for _, number in exact.values())
    assert abs(day["unique_users"] / users - 1) <= 3 * day["relative_error"]


def test_a_wrong_flag_ends_as_failed_after_the_attempts_that_yarn_allows_by_default(
    own_broker: KafkaBroker, tmp_path: Path
) -> None:
    with YarnCluster(tmp_path / "yarn") as cluster:
        submitter = Submitter(cluster, own_broker, tmp_path)
        with submitter.submitted(submitter.make_command("unique_users.py", "--watermark=soon")) as process:
            application = submitter.find_application(process)
            assert process.wait(900) == 1
        app = cluster.ask(f"apps/{application}")["app"]
        assert (app["state"], app["finalStatus"]) == ("FAILED", "FAILED")
        assert "User application exited with status 2" in app["diagnostics"]
        # The step says 100, and YARN's own limit is 2: it does not know that a new start does not help.
        assert "--conf=spark.yarn.maxAppAttempts=100" in read_step()
        assert list_attempts(cluster, application) == 2
        assert "Traceback" not in read_logs(cluster, application, "unique_users: error: argument --watermark: ")
