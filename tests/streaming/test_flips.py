"""Flipped bits in ts, all 32 of them, on a real Kafka: no good event may lose its place, live and in loaded history.

About one event in a thousand has one bit of its ts flipped. Which of these were rejected, the rejects topic says. The
windows that have good events must hold all of them, and the flipped ones whose time falls there, and no other.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from support import read_messages
from uniques.apps import count
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession

START = 1_468_244_340  # 2016-07-11T13:39:00Z
DISORDER = 4.0  # seconds
WATERMARK = 10  # seconds


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


def expect_windows(events: list[Sent], rejected: set[int]) -> dict[int, int]:
    """Events per window, of the windows that have good events: those, and the flipped ones that fall into them."""
    good = {window_of(event.ts) for event in events if event.ts == event.good}
    windows = Counter(window_of(event.ts) for event in events if event.number not in rejected)
    return {start: windows[start] for start in good}


def check(events: list[Sent], outcome: Outcome, rejected: set[int]) -> None:
    """No good event lost its place, and only flipped ones were rejected or late."""
    assert outcome.rejected == rejected <= flipped(events)
    expected = expect_windows(events, rejected)
    assert {start: outcome.windows.get(start) for start in expected} == expected
    assert outcome.summary["late"] <= len(flipped(events))
    assert outcome.summary["exact"]


@pytest.mark.parametrize("partitions", [1])
def test_live_all_32_bits(job: Job, partitions: int) -> None:
    events = make_stream(rate=100, number=32_000, flips=1, seed=1)
    outcome = job.run(events, 4_000, "--max-future", "5 seconds", partitions=partitions, live=True)
    # A record's time has milliseconds.
    ahead = {event.number for event in events if event.ts > int(event.arrival * 1000) / 1000 + 5}
    assert ahead
    check(events, outcome, ahead)


@pytest.mark.parametrize(("rate", "batch", "flips", "partitions"), [(50, 4_000, 1, 2), (50, 250, 1, 1)])
def test_history_all_32_bits(job: Job, rate: float, batch: int, flips: int, partitions: int) -> None:
    events = make_stream(rate, number=32 * batch // 16, flips=flips, seed=2)
    loaded = time.time()
    outcome = job.run(events, batch, partitions=partitions)
    # Only a time that is still to come is known to be wrong.
    ahead = {event.number for event in events if event.ts > loaded}
    assert len({event.number for event in events if event.ts > event.good + 60} - ahead) > 10
    check(events, outcome, ahead)


def test_one_flip_does_not_silence_loaded_history(job: Job) -> None:
    events = make_stream(rate=100, number=12_000, flips=0, seed=3)
    one = events[1_000]
    events[1_000] = Sent(one.number, one.arrival, one.good, one.good ^ 1 << 27)  # 4 years ahead
    assert events[1_000].ts > one.good
    outcome = job.run(events, 1_000)
    assert outcome.summary["late"] == 0
    check(events, outcome, set())
    assert outcome.windows[window_of(events[1_000].ts)] == 1


def test_sparse_history_with_gaps_loses_no_good_event(job: Job) -> None:
    pauses = (3 * 3600.0, 9 * 3600.0, 86_400.0, 3 * 86_400.0)
    events = make_stream(rate=1 / 60, number=3_000, flips=0, seed=4, pauses=pauses)
    assert events[-1].ts - START > 4 * 86_400
    outcome = job.run(events, 500)
    assert outcome.summary["late"] == 0
    check(events, outcome, set())
