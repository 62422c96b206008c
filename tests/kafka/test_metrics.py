"""What Prometheus gets from a running job, against an exact count, and against what dashboard and alerts ask for."""

from __future__ import annotations

import socket
import time
from collections import Counter
from typing import TYPE_CHECKING

import pyspark
import pytest
from kafka_broker import find_free_port
from load_events import load_lines
from monitoring import METRIC, read_expressions
from support import DEADLINE_SECONDS, InProcess, count_exactly, make_events, read_records, wait_for_metric
from uniques.apps.backfill import StagedBatches
from uniques.errors import JobError
from uniques.runtime.listener import ProgressListener
from uniques.runtime.metrics import serve_metrics
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker


def test_the_metrics_are_the_exact_counts_and_hold_all_that_dashboard_and_alerts_use(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=6_000, rate=50)
    good = sum(event.ts is not None and event.uid is not None for event in events)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    load_lines([b"", b"[]", b"[]"], broker.bootstrap_servers, source)
    port = find_free_port()
    flags = ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")]
    with job.running(*flags, "--metrics-port", f"127.0.0.1:{port}", "--idle-timeout", "1 second") as runs:
        samples = wait_for_metric(port, "unique_users_events_counted_total", good, runs)
    exact = count_exactly(events)
    rejected = Counter({"not_json": 1, "not_an_object": 2})
    reasons = samples["unique_users_events_rejected_total"]
    assert sum(reasons.values()) == len(events) - good + rejected.total()
    assert all(reasons[reason] >= number for reason, number in rejected.items())
    expected = {
        "unique_users_events_read_total": len(events) + 3,
        "unique_users_events_late_total": 0,
        "unique_users_events_in_open_windows": 0,
        "unique_users_open_windows": 0,
        "unique_users_lag_records": 0,
        "unique_users_rows_written_total": len(exact),
    }
    assert {name: samples[name][""] for name in expected} == expected
    last, value = read_records(broker, sink)[-1]
    assert last == max(exact)
    # Spark 3.5 observes nothing in a batch that only closes windows.
    observed = pyspark.__version__ >= "4"
    if observed:
        assert samples["unique_users_last_window_users"][""] == value["unique_users"]
    last_event = max(event.ts for event in events if event.ts is not None and event.uid is not None)
    end = last_event - last_event % 60 + 60
    if observed:
        assert samples["unique_users_last_window_end_timestamp_seconds"][""] == end
    assert end - 60 <= samples["unique_users_progress_timestamp_seconds"][""] <= last_event
    assert samples["unique_users_batch_duration_seconds_count"][""] >= 2
    assert time.time() - samples["unique_users_last_progress_timestamp_seconds"][""] < DEADLINE_SECONDS

    asked = {name for expression in read_expressions() for name in METRIC.findall(expression)}
    ours = {name for name in asked if name.startswith(("unique_users_", "process_"))}
    assert len(ours) > 15
    assert {name for name in ours if observed or "_last_window_" not in name} <= set(samples)
    # The rest is Prometheus', Spark's and the second job's; tests/platforms and tests/rollups look for these two.
    assert all(name == "up" or name.startswith(("metrics_", "rollup_users_")) for name in asked - ours)


def test_a_port_that_is_taken_gets_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(
                JobError, match=rf"^--metrics-port 127.0.0.1:{port} can't be listened on: Address already in use$"
            ),
            serve_metrics(("127.0.0.1", port), ProgressListener(StagedBatches(Accounting()))),
        ):
            pass
