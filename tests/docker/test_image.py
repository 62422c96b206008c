"""The image that docker/image.sh has built, and the job in it, against a real broker and an exact count."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka_broker import find_free_port
from load_events import load_lines
from support import ROOT, assert_close, count_exactly, make_events, read_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker

IMAGE = str(ROOT / "docker" / "image.sh")
USER = 10001


pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A folder that the image's user may write to."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    shutil.chown(folder, USER, USER)
    return folder


def start(checkpoint: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [IMAGE, "run", str(checkpoint), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_is_no_root_and_nothing_but_the_checkpoint_and_tmp_can_be_written(checkpoint: Path) -> None:
    places = "/ /opt /opt/unique-users /opt/spark/jars /etc /usr /var /home /root /tmp /var/lib/unique-users"
    write = "(echo x >$place/written) 2>/dev/null && echo $place"
    script = f"id -u; echo $SPARK_LOCAL_IP; for place in {places}; do {write}; done"
    said, errors = start(checkpoint, "sh", "-c", script).communicate(timeout=60)
    assert said.split() == [str(USER), "127.0.0.1", "/tmp", "/var/lib/unique-users"], errors
    assert (checkpoint / "written").exists()


def find_job() -> int:
    """The process id of the Python process that runs the job in the container, seen from this machine."""
    script = "/opt/unique-users/jobs/unique_users.py"
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            if command[1:2] == [script] and "python" in command[0]:
                return int(folder.name)
    raise AssertionError("no job runs in a container")


def check_health() -> tuple[int, str]:
    """What the image's health check says of the job; it sees the container's processes from here."""
    command = ["python3", str(ROOT / "docker" / "healthcheck.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.strip()


@pytest.mark.parametrize("metrics", [True, False], ids=["metrics on another port", "no metrics"])
def test_the_job_in_it_counts_right_shows_its_health_and_stops_cleanly(
    broker: KafkaBroker, new_topic: Callable[..., str], checkpoint: Path, metrics: bool
) -> None:
    events = make_events(events=12_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    port = find_free_port()
    job = start(
        checkpoint,
        *("unique-users", "--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source),
        *("--output-topic", sink, "--idle-timeout", "2 seconds"),
        *(("--metrics-port", str(port)) if metrics else ()),
    )
    exact = count_exactly(events)
    try:
        deadline = time.monotonic() + 400
        while len(read_records(broker, sink)) < len(exact) and time.monotonic() < deadline and job.poll() is None:
            time.sleep(1)
        running = find_job()
        well = check_health()
        os.kill(running, signal.SIGSTOP)
        ill = check_health()
        os.kill(running, signal.SIGCONT)
        os.kill(job.pid, signal.SIGTERM)
        _, said = job.communicate(timeout=60)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    records = read_records(broker, sink)
    # Windows that close in one batch are written by two tasks, in either order.
    assert sorted(key for key, _ in records) == list(exact), said
    for key, value in records:
        assert_close(value, exact[key])
    assert well == (0, "")
    assert ill == (1, "unhealthy: no process of the job runs")
    assert job.returncode == 0, said
    assert "summary: " in said
    assert "Traceback" not in said
    # What a restart needs is where the volume is mounted.
    assert (checkpoint / "checkpoint" / "unique_users" / "query" / "commits").is_dir()


def test_available_now_in_it_ends_with_the_counts(
    broker: KafkaBroker, new_topic: Callable[..., str], checkpoint: Path
) -> None:
    events = make_events(events=6_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    job = start(
        checkpoint,
        *("unique-users", "--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source),
        *("--output-topic", sink, "--trigger", "available-now"),
    )
    _, said = job.communicate(timeout=500)
    assert job.returncode == 0, said
    exact = count_exactly(events)
    assert sorted(key for key, _ in read_records(broker, sink)) == list(exact)


def test_an_executor_of_kubernetes_starts_and_looks_for_its_driver(checkpoint: Path) -> None:
    # No Kubernetes here: what its pods are given, with a driver that is not there.
    environment = {
        "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@127.0.0.1:1",
        "SPARK_EXECUTOR_ID": "1",
        "SPARK_EXECUTOR_CORES": "1",
        "SPARK_EXECUTOR_MEMORY": "512m",
        "SPARK_APPLICATION_ID": "spark-1",
        "SPARK_EXECUTOR_POD_IP": "127.0.0.1",
        "SPARK_EXECUTOR_POD_NAME": "executor-1",
        "SPARK_RESOURCE_PROFILE_ID": "0",
        "SPARK_JAVA_OPT_0": "-Dspark.network.timeout=10s",
        "SPARK_JAVA_OPT_1": "--add-opens=java.base/java.nio=ALL-UNNAMED",
    }
    given = [f"{name}={value}" for name, value in environment.items()]
    job = start(checkpoint, "env", *given, "/opt/unique-users/entrypoint.sh", "executor")
    said, errors = job.communicate(timeout=300)
    assert job.returncode != 0
    assert "Failed to connect to /127.0.0.1:1" in said + errors
