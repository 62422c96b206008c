"""Events that producers write in transactions: what counts is what was committed."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from support import count_exactly, make_events, read_records

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import pytest
    from generate_events import Event
    from kafka_broker import KafkaBroker
    from support import InProcess


class Transactions:
    """A transactional producer to partition 0 of one topic."""

    def __init__(self, broker: KafkaBroker, topic: str) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "transactional.id": f"to-{topic}",
                "transaction.timeout.ms": 600_000,  # on a busy machine too the broker does not end one that is open
                "log_level": 0,
            }
        )
        self._producer.init_transactions(30)

    def begin(self, events: Sequence[Event]) -> None:
        """Has the events in the log, in a transaction that stays open."""
        self._producer.begin_transaction()
        for event in events:
            self._producer.produce(self._topic, event.line, partition=0)
        assert self._producer.flush(30) == 0

    def commit(self, events: Sequence[Event] = ()) -> None:
        if events:
            self.begin(events)
        self._producer.commit_transaction(30)

    def abort(self, events: Sequence[Event]) -> None:
        self.begin(events)
        self._producer.abort_transaction(30)


def count_events(events: Sequence[Event]) -> dict[str, int]:
    return {start: number for start, (_, number) in count_exactly(list(events)).items()}


def read_lags(caplog: pytest.LogCaptureFixture) -> list[int]:
    return [int(lag) for message in caplog.messages for lag in re.findall(r"^batch=.* lag=(\d+) ", message)]


def test_only_committed_events_are_counted_and_markers_are_no_lag_at_the_end(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = make_events(events=1_200, rate=10, malformed=0.0, delayed=0.0)  # two minutes
    committed, aborted, left_open = [*events[:300], *events[600:900]], events[300:600], events[900:]
    source, sink = new_topic("in"), new_topic("out")
    transactions = Transactions(broker, source)
    for start in range(0, 300, 20):  # 15 times: a marker ends each
        transactions.commit(events[start : start + 20])
    transactions.abort(aborted)
    transactions.commit(events[600:900])
    transactions.begin(left_open)

    summary = tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--summary", str(summary), "--trigger", "available-now"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--max-offsets-per-trigger", "400"]
    caplog.set_level(logging.INFO, "uniques")
    job.run(*flags, "--idle-timeout", "off")
    said = json.loads(summary.read_text())
    assert (said["read"], said["rejected"], said["late"], said["exact"]) == (600, 0, 0, True)
    assert said["counted"] + said["in_open_windows"] == 600
    # 900 records and 17 markers; behind the last one the open transaction begins.
    lags = read_lags(caplog)
    assert lags[0] == 900 + 17 - 400
    assert lags == sorted(lags, reverse=True)
    assert lags[-1] == 0

    transactions.commit()
    job.run(*flags)
    assert json.loads(summary.read_text())["read"] == len(left_open)
    expected = Counter(count_events(committed)) + Counter(count_events(left_open))
    assert {key: value["events"] for key, value in read_records(broker, sink)} == expected


def test_a_property_has_events_counted_that_are_not_committed(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=300, rate=10, malformed=0.0, delayed=0.0)
    source, sink = new_topic("in"), new_topic("out")
    transactions = Transactions(broker, source)
    transactions.abort(events[:200])
    transactions.begin(events[200:])
    config = tmp_path / "client.properties"
    config.write_text("isolation.level=read_uncommitted\n")
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now"]
    job.run(*flags, "--checkpoint-location", str(tmp_path / "checkpoint"), "--kafka-config", str(config))
    transactions.commit()
    assert {key: value["events"] for key, value in read_records(broker, sink)} == count_events(events)
