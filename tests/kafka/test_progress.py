"""Partitions that are not in step: nothing is late, and the last record of each window is exact."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from support import DEADLINE_SECONDS, InProcess, read_records, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kafka_broker import KafkaBroker

START = 1_700_000_040  # of a minute
Row = tuple[int, int, str]  # partition, unix seconds, user


def load(broker: KafkaBroker, topic: str, rows: Iterable[Row]) -> None:
    """Loads events each into its partition, in this order."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20})
    for partition, ts, uid in rows:
        while True:
            try:
                producer.produce(topic, json.dumps({"ts": ts, "uid": uid}).encode(), partition=partition)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(DEADLINE_SECONDS) == 0


def count(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events), by sets."""
    users = defaultdict(list)
    for _partition, ts, uid in rows:
        users[utc(ts - ts % 60)].append(uid)
    return {start: (len(set(users[start])), len(users[start])) for start in sorted(users)}


def take_last(records: list[tuple[str, dict[str, object]]]) -> dict[str, tuple[object, object]]:
    """The last record of each key: window start -> (unique users, events)."""
    return {key: (value["unique_users"], value["events"]) for key, value in sorted(dict(records).items())}


class Drained:
    """What one available-now run over loaded rows gave."""

    def __init__(self, records: list[tuple[str, dict[str, object]]], summary: dict[str, int]) -> None:
        self.records, self.summary = records, summary
        self.last = take_last(records)

    def first_publications(self) -> list[str]:
        """Keys in the order in which they first came."""
        return list(dict(self.records))


@pytest.fixture
def drain(job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> Callable[..., Drained]:
    def run(rows: list[Row], partitions: int, *flags: str) -> Drained:
        source, sink = new_topic("in", partitions), new_topic("out")
        load(broker, source, rows)
        summary = tmp_path / "summary.json"
        flags = (
            "--input-topic",
            source,
            "--output-topic",
            sink,
            "--trigger",
            "available-now",
            "--counter",
            "exact",
            *flags,
        )
        job.run(*flags, "--checkpoint-location", str(tmp_path / source), "--summary", str(summary))
        return Drained(read_records(broker, sink, "read_committed"), json.loads(summary.read_text()))

    return run


def make_rows(seconds: int, per_second: int, partition: int, first: int = START, seed: int = 1) -> list[Row]:
    return [
        (partition, first + n // per_second, f"u{(n * 7_919 + seed * 104_729) % 997}")
        for n in range(seconds * per_second)
    ]


def test_a_backlog_of_partitions_that_are_not_in_step_loses_nothing(drain: Callable[..., Drained]) -> None:
    # Partition 1 has nothing for 50 of 60 minutes.
    rows = make_rows(3_600, 5, 0) + make_rows(600, 5, 1, START + 3_000, seed=2)
    drained = drain(rows, 2, "--max-offsets-per-trigger", "1500")
    assert drained.summary["late"] == 0
    assert drained.last == count(rows)
    assert drained.first_publications() == sorted(drained.last)


def test_partitions_whose_oldest_records_are_hours_apart_lose_nothing(drain: Callable[..., Drained]) -> None:
    hours = 3_600
    rows = make_rows(14 * hours, 1, 0) + make_rows(7 * hours, 1, 1, START + 7 * hours, seed=2)
    drained = drain(rows, 2, "--max-offsets-per-trigger", "6000")
    assert drained.summary["late"] == 0
    assert drained.last == count(rows)
    assert drained.first_publications() == sorted(drained.last)
    assert drained.summary["corrections"] < 60
