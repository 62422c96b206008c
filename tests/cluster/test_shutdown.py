"""How the job ends when it is told to, and when it is killed: in time, with a known status, and with nothing lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka_broker import KafkaBroker
from load_events import load_lines
from support import (
    ROOT,
    SPARK_SUBMIT,
    InProcess,
    assert_close,
    count_exactly,
    find_group,
    make_events,
    plain_environment,
    read_records,
    submit,
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def broker() -> Iterator[KafkaBroker]:
    """A broker of this test's own, which may be paused."""
    with KafkaBroker() as running:
        yield running


def read_until(process: subprocess.Popen[str], sign: str) -> str:
    """The job's lines up to the first one with `sign`."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if sign in line:
            return "".join(said)
    raise AssertionError(f"the job ended without {sign!r}:\n" + "".join(said))


def find_python(group: int) -> int | None:
    """The Python process of a job that was started by `spark-submit`, which is the leader of its group."""
    for process in find_group(group):
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        if b"python" in words[0] and any(word.endswith(b"unique_users.py") for word in words):
            return process
    return None


@pytest.mark.timeout(600)
def test_a_batch_that_cannot_finish_is_abandoned_and_done_again(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=6_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    flags = ["--input-topic", source, "--output-topic", sink, "--rsd", "0.05"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--max-offsets-per-trigger", "500"]
    with submit(broker, tmp_path, *flags) as process:
        read_until(process, "batch=1 ")
        os.kill(broker.pid, signal.SIGSTOP)  # what runs now waits for it
        try:
            process.terminate()
            said = read_until(process, "summary: ")
            assert process.wait(60) == 0
        finally:
            os.kill(broker.pid, signal.SIGCONT)
    assert "Traceback" not in said
    assert json.loads(said.rpartition("summary: ")[2])["read"] < 2_000  # of 6,000: no batch went on without the broker
    job.run(*flags, "--trigger", "available-now")
    exact = count_exactly(events)
    records = dict(read_records(broker, sink))
    assert sorted(records) == list(exact)
    for key, value in records.items():
        assert_close(value, exact[key])


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("victim", "status"),
    # What a shell, systemd and Kubernetes show as 137 is -9 for who started the process itself.
    [("java", -signal.SIGKILL), ("python", 128 + signal.SIGKILL)],
)
def test_a_job_that_is_killed_leaves_nothing_running(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, victim: str, status: int
) -> None:
    flags = ["--input-topic", new_topic("in"), "--output-topic", new_topic("out")]
    with submit(broker, tmp_path, *flags, "--checkpoint-location", str(tmp_path / "checkpoint")) as process:
        read_until(process, "started query")
        python = find_python(process.pid)
        assert python is not None
        os.kill(process.pid if victim == "java" else python, signal.SIGKILL)
        assert process.wait(60) == status
        wait_until(lambda: find_group(process.pid) == [], lambda: True)


@pytest.mark.timeout(600)
def test_a_signal_before_the_job_has_begun_ends_it_with_the_status_of_the_signal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [str(SPARK_SUBMIT), str(ROOT / "jobs" / "unique_users.py"), "--bootstrap-servers", "127.0.0.1:1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
        env=plain_environment(),
        start_new_session=True,
    )
    # spark-submit has become Java, which starts Python.
    wait_until(lambda: find_python(process.pid) is not None, lambda: process.poll() is None)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM
    wait_until(lambda: find_group(process.pid) == [], lambda: True)


@pytest.mark.timeout(600)
def test_out_of_memory_ends_with_a_line_that_says_what_to_give(tmp_path: Path) -> None:
    with (tmp_path / "line.jsonl").open("w") as file:
        file.write('{"ts":1468244384,"uid":"a","x":"')
        for _ in range(400):
            file.write("x" * 1_000_000)
        file.write('"}\n')
    command = [str(SPARK_SUBMIT), "--driver-memory", "512m", "--conf", "spark.ui.enabled=false"]
    command += [str(ROOT / "jobs" / "unique_users.py"), "--input", str(tmp_path / "line.jsonl"), "--output", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_environment())
    assert done.returncode == 52
    assert "OutOfMemoryError" in done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("unique_users: error: ")]
    assert len(said) == 1
    assert "out of memory" in said[0]
    assert "--driver-memory" in said[0]
    assert "--max-offsets-per-trigger" in said[0]
