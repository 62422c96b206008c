"""Flipped bits in ts, all 32 of them, on a real Kafka: no good event may lose its place, live and in loaded history.

About one event in a thousand has one bit of its ts flipped. Which of these were rejected, the rejects topic says; what
becomes of the others, and of all good events, a few lines of Python predict, event by event, and the job's windows must
hold exactly that.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from support import needs_arrow_udf, read_messages
from uniques.apps import count
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession

START = 1_468_244_340  # 2016-07-11T13:39:00Z
DISORDER = 4.0  # seconds
# For strict immunity at least the disorder plus the lead that passes: --max-future, or the guard's 5 seconds.
WATERMARK = 10  # seconds
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sent:
    """An event as sent: its number is its uid and its place; `good` is the ts it should have."""

    number: int
    arrival: float
    good: int
    ts: int


def make_stream(rate: float, number: int, flips: int, seed: int, pauses: tuple[float, ...] = ()) -> list[Sent]:
    """Events at `rate` a second, up to DISORDER seconds out of order, `flips` of them for each of the 32 bits.

    With `pauses` (seconds) one event in 200 comes after one of them, and all are in order.
    """
    random_ = random.Random(seed)
    bits = dict(zip(random_.sample(range(number), 32 * flips), [*range(32)] * flips, strict=True))
    arrival, events = float(START), []
    for index in range(number):
        arrival += random_.expovariate(rate)
        if pauses and random_.random() < 1 / 200:
            arrival += random_.choice(pauses)
        good = int(arrival if pauses else max(START, arrival - random_.random() * DISORDER))
        events.append(Sent(index, arrival, good, good ^ (1 << bits[index]) if index in bits else good))
    return events


def send(broker: KafkaBroker, topic: str, events: list[Sent], partitions: int, live: bool) -> None:
    """Loads the events, in turn into the partitions; live ones with the arrival time they had, others with now."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "queue.buffering.max.messages": 500_000})
    for event in events:
        value = json.dumps({"ts": event.ts, "uid": str(event.number)})
        timestamp = int(event.arrival * 1000) if live else 0  # 0: now
        producer.produce(topic, value, partition=event.number % partitions, timestamp=timestamp)
    assert producer.flush(60) == 0


def read_values(broker: KafkaBroker, topic: str) -> list[dict[str, Any]]:
    """The values of a topic with one partition."""
    return [json.loads(message.value() or b"") for message in read_messages(broker, topic)]


@dataclass(frozen=True)
class Outcome:
    """What the job made of a stream: events per window, by its start; rejected numbers; where every event went."""

    windows: dict[int, int]
    rejected: set[int]
    summary: dict[str, Any]


class Job:
    """Runs the job's pipeline over streams, inside the tests' own session."""

    def __init__(self, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], folder: Path) -> None:
        self._spark = spark
        self._broker = broker
        self._new_topic = new_topic
        self._folder = folder

    def run(self, events: list[Sent], batch: int, *flags: str, partitions: int = 1, live: bool = False) -> Outcome:
        source, sink, rejects = self._new_topic("in", partitions), self._new_topic("out"), self._new_topic("rejects")
        send(self._broker, source, events, partitions, live)
        self.drain(source, sink, "--rejects-topic", rejects, "--max-offsets-per-trigger", str(batch), *flags)
        records = read_values(self._broker, sink)
        windows = {parse_time(record["window_start"]): record["events"] for record in records}
        assert len(windows) == len(records)
        rejected = {int(value["uid"]) for value in read_values(self._broker, rejects)}
        return Outcome(windows, rejected, json.loads((self._folder / "summary.json").read_text()))

    def drain(self, source: str, sink: str, *flags: str) -> None:
        settings = count.parse_settings(
            [
                *("--bootstrap-servers", self._broker.bootstrap_servers, "--input-topic", source),
                *("--output-topic", sink, "--checkpoint-location", str(self._folder / source)),
                *("--summary", str(self._folder / "summary.json"), "--trigger", "available-now"),
                # Few registers compile fast; only `events` is compared here.
                *("--rsd", "0.3", "--watermark", f"{WATERMARK} seconds", *flags),
            ]
        )
        count.run(self._spark, settings, StopSignal())


@pytest.fixture
def job(spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> Job:
    return Job(spark, broker, new_topic, tmp_path)


def parse_time(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def window_of(ts: int) -> int:
    return ts - ts % 60


def flipped(events: list[Sent]) -> set[int]:
    return {event.number for event in events if event.ts != event.good}


def predict_windows(events: list[Sent], batch: int, rejected: set[int]) -> dict[int, int]:
    """Events per window: all the good ones, and the flipped ones that were neither rejected nor late by Spark's rule.

    Spark drops an event of a batch when its window had ended by the largest time seen two batches before, less the
    watermark's delay.
    """
    windows = Counter(window_of(event.ts) for event in events if event.ts == event.good)
    number_of_batches = len(events) // batch + 1
    latest = [-(2**62)] * (number_of_batches + 2)
    for event in events:
        if event.number not in rejected:
            index = event.number // batch + 2
            latest[index] = max(latest[index], event.ts)
    for index in range(1, len(latest)):
        latest[index] = max(latest[index], latest[index - 1])
    for event in events:
        late = window_of(event.ts) + 60 <= latest[event.number // batch] - WATERMARK
        if event.ts != event.good and event.number not in rejected and not late:
            windows[window_of(event.ts)] += 1
    return dict(windows)


@pytest.mark.parametrize("partitions", [1])
def test_live_all_32_bits(job: Job, partitions: int) -> None:
    events = make_stream(rate=100, number=32_000, flips=1, seed=1)
    outcome = job.run(events, 4_000, "--max-future", "5 seconds", partitions=partitions, live=True)
    # A record's time has milliseconds.
    ahead = {event.number for event in events if event.ts > int(event.arrival * 1000) / 1000 + 5}
    assert outcome.rejected == ahead
    assert ahead < flipped(events)
    assert outcome.windows == predict_windows(events, 4_000, ahead)


@needs_arrow_udf
@pytest.mark.parametrize("partitions", [2])
def test_history_all_32_bits(job: Job, partitions: int) -> None:
    events = make_stream(rate=50, number=32_000, flips=1, seed=2)
    outcome = job.run(events, 4_000, "--timestamp-guard", "neighbours", partitions=partitions)
    assert outcome.rejected <= flipped(events)
    far_ahead = {event.number for event in events if event.ts > event.good + 60}
    assert len(far_ahead) > 10
    assert far_ahead <= outcome.rejected
    assert outcome.windows == predict_windows(events, 4_000, outcome.rejected)


@needs_arrow_udf
def test_without_the_guard_one_flip_silences_loaded_history(job: Job) -> None:
    events = make_stream(rate=100, number=24_000, flips=0, seed=3)
    one = events[1_000]
    events[1_000] = Sent(one.number, one.arrival, one.good, one.good ^ 1 << 27)  # 4 years ahead
    assert events[1_000].ts > one.good
    silenced = job.run(events, 4_000, "--timestamp-guard", "arrival")
    assert silenced.summary["late"] > 12_000
    assert silenced.windows != predict_windows(events, 4_000, {1_000})
    guarded = job.run(events, 4_000, "--timestamp-guard", "neighbours")
    assert guarded.rejected == {1_000}
    assert guarded.summary["rejected_by_reason"] == {"ts_implausible": 1}
    assert guarded.summary["late"] == 0
    assert guarded.windows == predict_windows(events, 4_000, {1_000})


@needs_arrow_udf
def test_sparse_history_with_gaps_loses_no_good_event(job: Job) -> None:
    pauses = (3 * 3600.0, 9 * 3600.0, 86_400.0, 3 * 86_400.0)
    events = make_stream(rate=1 / 60, number=3_000, flips=0, seed=4, pauses=pauses)
    assert events[-1].ts - START > 4 * 86_400
    outcome = job.run(events, 500, "--timestamp-guard", "neighbours")
    assert outcome.rejected == set()
    assert outcome.summary["late"] == 0
    assert outcome.windows == predict_windows(events, 500, set())


@needs_arrow_udf
def test_the_guard_may_change_on_a_checkpoint(job: Job, broker: KafkaBroker, new_topic: Callable[..., str]) -> None:
    events = make_stream(rate=10, number=2_000, flips=0, seed=5)
    source, sink = new_topic("in"), new_topic("out")
    for half, guard in ((events[:1_000], "arrival"), (events[1_000:], "neighbours")):
        send(broker, source, half, 1, live=False)
        job.drain(source, sink, "--timestamp-guard", guard, "--idle-timeout", "off")
    windows = {parse_time(record["window_start"]): record["events"] for record in read_values(broker, sink)}
    # The last one is open.
    expected = predict_windows(events, 1_000, set())
    assert windows == {start: expected[start] for start in sorted(expected)[:-1]}


@needs_arrow_udf
@pytest.mark.parametrize("package", ["numpy", "pyarrow"])
def test_a_missing_package_is_named_in_one_line(package: str) -> None:
    flag, value = "--timestamp-guard", "neighbours"
    code = f"import sys; sys.modules['{package}'] = None\nimport unique_users; unique_users.main(['{flag}', '{value}'])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        check=False,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "jobs")},
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr == (
        f"unique_users: error: {flag} {value} needs the Python package {package}: pip install {package} (see --help)\n"
    )
