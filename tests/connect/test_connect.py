"""The job as a client of a Spark Connect server: no JVM beside it, all it knows comes over the wire."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from load_events import load_lines
from support import ROOT, SPARK_SUBMIT, assert_close, count_exactly, make_events, plain_environment, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kafka_broker import KafkaBroker

START_SECONDS = 120


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a local Connect server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(SPARK_SUBMIT), "--class", "org.apache.spark.sql.connect.service.SparkConnectServer"]
    command += ["--conf", "spark.ui.enabled=false", "--conf", "spark.connect.grpc.binding.address=127.0.0.1"]
    command += ["--conf", f"spark.connect.grpc.binding.port={port}", "spark-internal"]
    folder = tmp_path_factory.mktemp("server")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env={**plain_environment(), "SPARK_LOCAL_IP": "127.0.0.1"}
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.5)
        yield f"sc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def run(server: str, folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The job, in plain Python."""
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / "unique_users.py"), *flags],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**plain_environment(), "SPARK_REMOTE": server},
    )


def test_a_stream_is_counted_and_accounted_for(
    server: str, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=3_000, rate=20, malformed=0.05)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", sink]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    done = run(server, tmp_path, *flags, "--summary", str(tmp_path / "summary.json"))
    assert done.returncode == 0, done.stderr
    exact = count_exactly(events)
    records = read_records(broker, sink)
    # Windows that one batch closes come from two tasks, in any order.
    assert sorted(key for key, _ in records) == list(exact)
    for key, value in records:
        assert_close(value, exact[key])
    # These come from the listener, which the server calls.
    assert " batch=0 events=3000 " in done.stderr
    assert "json parser: spark, because this Spark takes no Java function" in done.stderr
    assert "without a classic driver a window is written 1 hour after its end (--allowed-lateness)" in done.stderr
    said = json.loads((tmp_path / "summary.json").read_text())
    assert (said["read"], said["counted"], said["late"], said["exact"]) == (
        3_000,
        sum(number for _, number in exact.values()),
        0,
        True,
    )


def test_a_file_is_counted(server: str, tmp_path: Path) -> None:
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b'{"ts":1468244384,"uid":"a"}\n{"ts":1468244385,"uid":"b"}\nx\n')
    done = run(server, tmp_path, "--input", str(lines), "--output", "-")
    assert done.returncode == 0, done.stderr
    [result] = [json.loads(line) for line in done.stdout.splitlines()]
    assert (result["unique_users"], result["events"]) == (2, 2)


@pytest.mark.parametrize(
    "flags",
    [
        ["--delivery", "exactly-once"],
        ["--output-mode", "update"],
        ["--consumer-group", "g"],
        ["--json-parser", "bytes"],
    ],
    ids=" ".join,
)
def test_what_needs_the_drivers_jvm_says_so_in_one_line(
    server: str, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, flags: list[str]
) -> None:
    where = ["--bootstrap-servers", broker.bootstrap_servers, "--checkpoint-location", str(tmp_path / "checkpoint")]
    where += ["--input-topic", new_topic("in"), "--output-topic", new_topic("out")]
    done = run(server, tmp_path, *where, *flags)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("unique_users: error: ")]
    assert re.match(
        f"unique_users: error: {flags[0]}( bytes| exactly-once| update)? needs a classic Spark driver: ", line
    )
    assert "Traceback" not in done.stderr
