"""Partitions that are not in step: nothing is late, and the last record of each window is exact."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from support import DEADLINE_SECONDS, InProcess, read_records, utc, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kafka_broker import KafkaBroker

START = 1_700_000_040  # of a minute
Row = tuple[int, int, str]  # partition, unix seconds, user


def load(broker: KafkaBroker, topic: str, rows: Iterable[Row], arrive_at_their_time: bool = False) -> None:
    """Loads events each into its partition, in this order; they arrive now, or when their own clock says."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20})
    for partition, ts, uid in rows:
        value, arrival = json.dumps({"ts": ts, "uid": uid}).encode(), ts * 1000 if arrive_at_their_time else 0
        while True:
            try:
                producer.produce(topic, value, partition=partition, timestamp=arrival)
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
    def run(rows: list[Row], partitions: int, *flags: str, arrive_at_their_time: bool = False) -> Drained:
        source, sink = new_topic("in", partitions), new_topic("out")
        load(broker, source, rows, arrive_at_their_time)
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


def test_a_partition_that_runs_ten_minutes_behind_loses_nothing(drain: Callable[..., Drained]) -> None:
    # As it comes in live: both partitions in step of arrival, one with the events of ten minutes ago.
    ahead, behind = make_rows(1_800, 5, 0, START + 600), make_rows(1_800, 5, 1, START, seed=2)
    rows = [row for pair in zip(ahead, behind, strict=True) for row in pair]
    drained = drain(rows, 2, "--max-offsets-per-trigger", "2000", "--correction-interval", "0 seconds")
    assert drained.summary["late"] == 0
    assert drained.last == count(rows)


def test_a_producer_whose_clock_is_an_hour_ahead_costs_no_event_of_the_others(drain: Callable[..., Drained]) -> None:
    # Twenty producers for five minutes; in the third one the clock of one of them, ts and arrival, is an hour ahead.
    rows, moved = [], []
    for number, row in enumerate(make_rows(300, 100, 0)):
        partition, ts, uid = number % 2, row[1], row[2]
        if number % 20 == 7 and START + 120 <= ts < START + 180:
            moved.append((partition, ts + 3_600, uid))
            rows.append(moved[-1])
        else:
            rows.append((partition, ts, uid))
    drained = drain(rows, 2, "--max-offsets-per-trigger", "1000", arrive_at_their_time=True)
    assert len(moved) == 300
    assert drained.summary["late"] == 0
    assert drained.last == count(rows)
    assert drained.first_publications() == sorted(drained.last)


def test_events_late_by_up_to_the_allowed_lateness_are_in_the_last_record(drain: Callable[..., Drained]) -> None:
    # One in a hundred, spread over the last hour.
    rows = [
        (n % 2, ts - (n * 7_919 % 3_595 if n % 100 == 3 else 0), uid)
        for n, (_, ts, uid) in enumerate(make_rows(5_400, 5, 0))
    ]
    drained = drain(rows, 2, "--max-offsets-per-trigger", "3000", "--correction-interval", "1 second")
    assert drained.summary["late"] == 0
    assert drained.last == count(rows)
    assert drained.summary["corrections"] > 20
    assert drained.summary["corrected_events"] > 100
    assert len(drained.records) == len(drained.last) + drained.summary["corrections"]
    seen: Counter[str] = Counter()
    for key, value in drained.records:
        assert value["revision"] == seen[key]
        seen[key] += 1


def test_a_partition_that_is_added_is_read_from_its_beginning_and_loses_nothing(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink, summary = new_topic("in"), new_topic("out"), tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now", "--counter", "exact"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--summary", str(summary)]
    flags += ["--max-offsets-per-trigger", "1000"]
    first = make_rows(600, 5, 0)
    load(broker, source, first)
    job.run(*flags)
    add_partitions(broker, source, 2)
    # The new one has a backlog of the last half hour, the old one goes on.
    second = make_rows(1_800, 5, 1, START, seed=2) + make_rows(1_200, 5, 0, START + 600, seed=3)
    load(broker, source, second)
    job.run(*flags)
    assert json.loads(summary.read_text())["late"] == 0
    assert take_last(read_records(broker, sink, "read_committed")) == count(first + second)


def test_runs_of_one_batch_each_forget_the_windows_that_no_event_may_change(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink, checkpoint = new_topic("in"), new_topic("out"), tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now", "--counter", "exact"]
    flags += ["--allowed-lateness", "10 minutes", "--checkpoint-location", str(checkpoint)]
    late, kept = [], []
    for hour in range(4):
        # An event of the beginning comes with each run.
        rows = make_rows(1_800, 1, 0, START + 3_600 * hour, seed=hour)
        load(broker, source, [*rows, (0, START, f"late{hour}")])
        job.run(*flags, "--summary", str(tmp_path / "summary"))
        late.append(json.loads((tmp_path / "summary").read_text())["late"])
        steps = sorted((checkpoint / "steps").glob("[0-9]*"), key=lambda file: int(file.name))
        # The first step of a run holds all windows.
        kept.append(max(len(step.read_text().splitlines()) - 2 for step in steps[-2:]))
    # A run tells Spark how far the one before it came. Spark forgets windows in the next run, and drops late events in
    # the one after that.
    assert late == [0, 0, 0, 1]
    assert kept[-1] <= kept[1] < 70


def add_partitions(broker: KafkaBroker, topic: str, number: int) -> None:
    """Gives a topic more partitions, and waits until every client would find them."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.create_partitions([NewPartitions(topic, number)])[topic].result(DEADLINE_SECONDS)
    wait_until(lambda: len(admin.list_topics(topic, DEADLINE_SECONDS).topics[topic].partitions) == number, lambda: True)


def test_a_producer_that_stalls_in_the_middle_of_a_window_and_goes_on_is_counted_exactly(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    # Live, in windows of 2 s: half of one is sent, and the rest after 7 s of silence.
    source, sink, summary = new_topic("in"), new_topic("out"), tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--counter", "exact", "--window", "2 seconds"]
    flags += ["--watermark", "1 second", "--idle-timeout", "2 seconds", "--correction-interval", "1 second"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--summary", str(summary)]
    now = int(time.time()) // 2 * 2 - 20
    before = [(0, now + n // 10, f"u{n}") for n in range(130)]
    stalled = [(0, now + 12 + n // 10, f"u{n}") for n in range(60)]
    with job.running(*flags, "--trigger", "100 milliseconds") as runs:
        load(broker, source, before)
        # The window in whose middle it stalls is published, because it has ended by the clock.
        last = utc(now + 12)
        wait_until(lambda: last in dict(read_records(broker, sink, "read_committed")), runs)
        load(broker, source, stalled)
        number = len(before) + len(stalled)

        def is_complete() -> bool:
            values = dict(read_records(broker, sink, "read_committed")).values()
            return bool(sum(value["events"] for value in values) == number)

        wait_until(is_complete, runs)
    expected: dict[str, list[str]] = defaultdict(list)
    for _partition, ts, uid in before + stalled:
        expected[utc(ts - ts % 2)].append(uid)
    found = take_last(read_records(broker, sink, "read_committed"))
    assert found == {start: (len(set(users)), len(users)) for start, users in sorted(expected.items())}
    said = json.loads(summary.read_text())
    assert (said["late"], said["in_open_windows"]) == (0, 0)
    assert said["corrections"] >= 1
