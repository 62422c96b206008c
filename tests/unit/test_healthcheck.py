"""The health check of the image, on processes that look like the job's: health follows what was started."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka_broker import find_free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

HEALTHCHECK = Path(__file__).resolve().parents[2] / "docker" / "healthcheck.py"
LIMIT = 1800.0

# What the health check can see of a job: its command line, and what it serves.
JOB = """\
import http.server, os, sys
if os.environ.get("PORT"):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(os.environ["METRICS"].encode())
        def log_message(self, *_):
            pass
    server = http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler)
print("ready", flush=True)
server.serve_forever() if os.environ.get("PORT") else sys.stdin.read()
"""


@pytest.fixture(scope="module")
def healthcheck() -> ModuleType:
    spec = importlib.util.spec_from_file_location("healthcheck", HEALTHCHECK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    for name in ("unique_users.py", "rollup_users.py", "another.py"):
        (tmp_path / "jobs" / name).write_text(JOB)
    (tmp_path / "entrypoint.sh").write_text("#!/bin/sh\necho ready\nread -r line\n")
    return tmp_path


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `python3 SCRIPT FLAGS…`, which serves `metrics` on `port` when one is given."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str], port: int | None = None, metrics: str = "") -> subprocess.Popen[str]:
        environment = {**os.environ, "PORT": str(port or ""), "METRICS": metrics}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=home
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def job_of(home: Path, *flags: str, job: str = "unique_users") -> list[str]:
    return [sys.executable, f"{home}/jobs/{job}.py", *flags]


def progress(seconds_ago: float, job: str = "unique_users") -> str:
    return (
        f"# TYPE {job}_last_progress_timestamp_seconds gauge\n"
        f"{job}_last_progress_timestamp_seconds {time.time() - seconds_ago:.1f}\n"
    )


def test_a_job_without_metrics_is_healthy_while_its_process_runs(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    start(job_of(home, "--bootstrap-servers", "kafka:9092"))
    assert healthcheck.find_problem(home, LIMIT) is None


@pytest.mark.parametrize("job", ["unique_users", "rollup_users"])
@pytest.mark.parametrize(
    "flags", [["--metrics-port=0.0.0.0:{}"], ["--metrics-port", "127.0.0.1:{}"], ["--metrics-port", "{}"]]
)
def test_the_metrics_are_asked_where_the_flag_says(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]], flags: list[str], job: str
) -> None:
    port = find_free_port()
    start(job_of(home, *[flag.format(port) for flag in flags], job=job), port, progress(1, job))
    assert healthcheck.find_problem(home, LIMIT) is None


def test_a_batch_of_minutes_is_healthy_and_one_beyond_the_limit_is_not(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    port = find_free_port()
    start(job_of(home, f"--metrics-port=127.0.0.1:{port}"), port, progress(600))
    assert healthcheck.find_problem(home, LIMIT) is None
    said = healthcheck.find_problem(home, 300.0)
    assert re.fullmatch(r"no batch ended for 6\d\d s; allowed are 300 s", said)


def test_a_job_whose_metrics_do_not_answer_is_unhealthy(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    port = find_free_port()
    start(job_of(home, f"--metrics-port={port}"))
    assert str(healthcheck.find_problem(home, LIMIT)).startswith(f"http://127.0.0.1:{port}/metrics does not answer: ")


@pytest.mark.parametrize("mode", ["--backfill", "--input=events.jsonl", "--rebuild"])
def test_of_work_without_a_query_only_the_process_is_checked(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]], mode: str
) -> None:
    start(job_of(home, mode, f"--metrics-port={find_free_port()}"))
    assert healthcheck.find_problem(home, LIMIT) is None


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_job_that_was_killed_or_stopped_under_its_launcher_is_unhealthy(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]], how: signal.Signals
) -> None:
    start(["/bin/sh", f"{home}/entrypoint.sh", "unique-users", "--bootstrap-servers=kafka:9092"])
    job = start(job_of(home, "--bootstrap-servers=kafka:9092"))
    assert healthcheck.find_problem(home, LIMIT) is None
    # Not waited for: what was killed stays as a zombie, as under a launcher that hangs.
    job.send_signal(how)
    os.waitid(os.P_PID, job.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    assert healthcheck.find_problem(home, LIMIT) == "no process of the job runs"


def test_a_container_that_runs_no_job_is_healthy(
    healthcheck: ModuleType, home: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    start(["/bin/sh", f"{home}/entrypoint.sh", "executor"])
    start(job_of(home, job="another"))
    assert healthcheck.find_problem(home, LIMIT) is None


def test_a_wrong_limit_gets_one_line() -> None:
    environment = {**os.environ, "HEALTH_MAX_SILENCE_SECONDS": "soon"}
    done = subprocess.run(
        [sys.executable, str(HEALTHCHECK)], capture_output=True, text=True, env=environment, check=False
    )
    said = "unhealthy: HEALTH_MAX_SILENCE_SECONDS='soon' is not allowed: give a number of seconds\n"
    assert (done.returncode, done.stderr) == (1, said)
