"""History in an object store: the staged events of a backfill, killed between its steps."""

from __future__ import annotations

import os
import signal
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
from faults import wait_until
from load_events import load_lines
from store_flags import BUCKET, submit_flags
from support import count_exactly, make_events, plain_environment, read_records, submit_command

if TYPE_CHECKING:
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from object_store import ObjectStore

pytestmark = pytest.mark.timeout(1200)


def test_a_backfill_killed_while_it_stages_and_counts(
    broker: KafkaBroker, store: ObjectStore, tmp_path: Path, prefix: str
) -> None:
    events = make_events(events=30_000, rate=20, malformed=0.01)
    source, sink = f"{prefix}-in", f"{prefix}-out"
    broker.create_topic(source, 2)
    broker.create_topic(sink)
    load_lines([event.line for event in events], broker.bootstrap_servers, source)
    folder = f"{prefix}/checkpoint"
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", sink]
    flags += ["--checkpoint-location", f"s3a://{BUCKET}/{folder}", "--backfill", "--counter", "exact"]
    flags += ["--max-offsets-per-trigger", "5000"]
    command = [*submit_command(*submit_flags(store)), *flags]
    log = tmp_path / "job.log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("wb") as file:
            return subprocess.Popen(command, stderr=file, cwd=tmp_path, env=plain_environment(), start_new_session=True)

    def has_said(process: subprocess.Popen[bytes], text: str) -> bool:
        assert process.poll() is None, log.read_text()[-3000:]
        return text in log.read_text()

    for moment in ("batch=1 ", "counting "):
        process = start()
        wait_until(partial(has_said, process, moment), 300)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    staged = [key for key in store.list_keys(BUCKET) if key.startswith(f"{folder}/events/") and "parquet" in key]
    assert staged
    assert start().wait() == 0, log.read_text()[-3000:]

    last = {key: (value["unique_users"], value["events"]) for key, value in read_records(broker, sink)}
    assert last == count_exactly(events)
    # An empty file stays, as docs/guides/history.md says.
    staged = [key for key in store.list_keys(BUCKET) if key.startswith(f"{folder}/events/") and "parquet" in key]
    assert len(staged) == 1
