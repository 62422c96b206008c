"""The job on a Spark standalone cluster that loses a worker in the middle of a batch."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pyspark
import pytest
from kafka_broker import find_free_port
from load_events import load_lines
from support import (
    ROOT,
    SPARK_SUBMIT,
    assert_close,
    count_exactly,
    find_group,
    make_events,
    plain_environment,
    read_records,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kafka_broker import KafkaBroker

SPARK_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
DEPLOY = "org.apache.spark.deploy"
WORKERS = 2
BATCH = 3_000


class Cluster:
    """A master and WORKERS workers of one core each, on 127.0.0.1; each with its executors in a process group."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.master = f"spark://127.0.0.1:{find_free_port()}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        port = self.master.rpartition(":")[2]
        self._start("master", "--host", "127.0.0.1", "--port", port, "--webui-port", "0")
        self._wait_for("master", "New state: ALIVE")
        for number in range(WORKERS):
            name = f"worker-{number}"
            flags = ["--host", "127.0.0.1", "--cores", "1", "--memory", "1g", "--webui-port", "0"]
            self._start(name, *flags, "--work-dir", str(self._folder / name), self.master)
            self._wait_for(name, "Successfully registered with master")

    def kill_worker(self) -> None:
        """SIGKILL to the last worker and to the executor that it runs, as when the machine is gone."""
        worker = self._processes.pop()
        assert len(find_group(worker.pid)) >= 2  # the worker and an executor
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def stop(self) -> None:
        for process in reversed(self._processes):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str, *flags: str) -> None:
        role = name.partition("-")[0]
        log4j = self._folder / "log4j2.properties"
        log4j.write_text(
            "rootLogger.level = info\nrootLogger.appenderRef.console.ref = console\n"
            "appender.console.type = Console\nappender.console.name = console\nappender.console.target = SYSTEM_ERR\n"
            "appender.console.layout.type = PatternLayout\nappender.console.layout.pattern = %m%n\n"
        )
        settings = {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": f"-Dlog4j2.configurationFile={log4j}"}
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(SPARK_CLASS), f"{DEPLOY}.{role}.{role.capitalize()}", *flags],
                stdout=log,
                stderr=log,
                env={**plain_environment(), "SPARK_LOCAL_IP": "127.0.0.1", **settings},
                start_new_session=True,
            )
        self._processes.append(process)

    def _wait_for(self, name: str, sign: str) -> None:
        log = self._folder / f"{name}.log"
        wait_until(lambda: sign in log.read_text(), lambda: self._processes[-1].poll() is None)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.mark.timeout(600)
def test_a_worker_that_is_killed_in_a_batch_changes_no_result(
    broker: KafkaBroker, cluster: Cluster, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=24_000, rate=100)  # four minutes
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    # Nothing of the checkout beside the script: driver and executors get the package as the documentation says.
    script = Path(shutil.copy(ROOT / "jobs" / "unique_users.py", tmp_path))
    package = tmp_path / "uniques.zip"
    with ZipFile(package, "w") as archive:
        for file in (ROOT / "jobs" / "uniques").rglob("*.*"):
            archive.write(file, file.relative_to(ROOT / "jobs"))
    command = [str(SPARK_SUBMIT), "--master", cluster.master, "--deploy-mode", "client", "--py-files", str(package)]
    command += ["--conf", "spark.ui.enabled=false", "--executor-memory", "768m", str(script)]
    command += ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", sink]
    command += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    command += ["--max-offsets-per-trigger", str(BATCH), "--json-parser", "bytes"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=plain_environment(), cwd=tmp_path
    ) as job:
        assert job.stderr is not None
        said = []
        for line in job.stderr:
            said.append(line)
            # With a backlog the next batch has begun when the line of this one is there.
            if "batch=1 " in line:
                cluster.kill_worker()
        assert job.wait() == 0, "".join(said)
    text = "".join(said)
    assert "Lost executor" in text
    batches = [int(number) for number in re.findall(r"unique_users: batch=(\d+) ", text)]
    assert max(batches) >= len(events) / BATCH - 1  # one more where the partitions are not of one length
    summary = json.loads(re.findall(r"unique_users: summary: (.+)", text)[0])
    # Rows of a task that ran twice are observed twice; then the summary must not call itself exact.
    assert summary["read"] == len(events) or (summary["read"] > len(events) and not summary["exact"])
    assert summary["read"] == summary["counted"] + summary["rejected"] + summary["late"] + summary["in_open_windows"]
    exact = count_exactly(events)
    records = read_records(broker, sink)
    values = dict(records)
    # At least once: a task that was lost with its worker may have written its record already.
    assert all(value == values[key] for key, value in records)
    assert sorted(values) == list(exact)
    for key, value in values.items():
        assert_close(value, exact[key])
