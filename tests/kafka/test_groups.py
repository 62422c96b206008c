"""Groups on a real Kafka: exact after corrections, restarts and in history; bounded whatever the events hold."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter as Tally
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from datasketches import hll_sketch, hll_union, tgt_hll_type
from sketch_registers import registers_of
from support import DEADLINE_SECONDS, InProcess, read_records, utc
from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kafka_broker import KafkaBroker

START = 1_700_000_040  # of a minute
COUNTRIES = ["CH", "DE", 'F"R', "", None, "日本"]
Event = tuple[int, str, "str | None", str]  # unix seconds, user, country, device
BY = ("--by", "geo.country", "--by", "device", "--by", "geo.country,device")


def make_events(number: int, seconds: int, seed: int, first: int = START) -> list[Event]:
    draw = random.Random(seed)
    times = sorted(first + draw.randrange(seconds) for _ in range(number))
    return [(ts, f"u{draw.randrange(300)}", draw.choice(COUNTRIES), draw.choice(("phone", "desk"))) for ts in times]


def load(broker: KafkaBroker, topic: str, events: Iterable[Event]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20})
    for number, (ts, uid, country, device) in enumerate(events):
        geo = {} if country is None else {"country": country}
        value = json.dumps({"ts": ts, "uid": uid, "geo": geo, "device": device}, ensure_ascii=False).encode()
        producer.produce(topic, value, partition=number % 2)
    assert producer.flush(DEADLINE_SECONDS) == 0


def count(events: Iterable[Event]) -> dict[str, tuple[int, int]]:
    """Key -> (unique users, events) of each window and group, by sets."""
    users = defaultdict(list)
    for ts, uid, country, device in events:
        start = utc(ts - ts % 60)
        for group in ({"geo.country": country}, {"device": device}, {"device": device, "geo.country": country}):
            users[f"{start} {json.dumps(group, separators=(',', ':'), ensure_ascii=False)}"].append(uid)
        users[start].append(uid)
    return {key: (len(set(of)), len(of)) for key, of in users.items()}


class Runs:
    """Runs of the job on one pair of topics and one checkpoint."""

    def __init__(self, job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], path: Path) -> None:
        self._job, self.broker, self._path = job, broker, path
        self.source, self.sink = new_topic("in", 2), new_topic("out")

    def run(self, *flags: str, checkpoint: str = "checkpoint") -> dict[str, Any]:
        """Reads what is there; returns the summary."""
        summary = self._path / "summary.json"
        topics = ("--input-topic", self.source, "--output-topic", self.sink, "--summary", str(summary))
        self._job.run(*topics, "--checkpoint-location", str(self._path / checkpoint), *flags)
        found: dict[str, Any] = json.loads(summary.read_text())
        return found

    def read(self) -> dict[str, dict[str, Any]]:
        """The last record of each key; revisions of a key come in order, none twice, none missing."""
        revisions = defaultdict(list)
        last = {}
        for key, value in read_records(self.broker, self.sink, "read_committed"):
            revisions[key].append(value["revision"])
            last[key] = value
        assert all(found == list(range(len(found))) for found in revisions.values())
        return last


@pytest.fixture
def runs(job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> Runs:
    return Runs(job, broker, new_topic, tmp_path)


def numbers(records: dict[str, dict[str, Any]]) -> dict[str, tuple[int, int]]:
    return {key: (value["unique_users"], value["events"]) for key, value in records.items()}


def test_groups_are_exact_over_batches_restarts_and_corrections(runs: Runs) -> None:
    flags = (*BY, "--counter", "exact", "--trigger", "available-now", "--max-offsets-per-trigger", "700")
    on_time, late = make_events(3_000, 300, 1), make_events(300, 200, 2)
    load(runs.broker, runs.source, on_time)
    first = runs.run(*flags)
    assert numbers(runs.read()) == count(on_time)
    load(runs.broker, runs.source, late)
    second = runs.run(*flags, "--correction-interval", "0 seconds")
    found = runs.read()
    assert numbers(found) == count(on_time + late)
    assert (first["late"], second["late"]) == (0, 0)
    # The accounting counts events once, however many groups they are in.
    assert (first["counted"], second["counted"]) == (3_000, 300)
    assert 0 < second["corrections"] <= 5 * 2
    for key, value in found.items():
        assert (" " in key) == ("group" in value)
        assert value["final"]
        if "group" in value:
            text = json.dumps(value["group"], separators=(",", ":"), ensure_ascii=False)
            assert key == f"{value['window_start']} {text}"


def test_running_counts_of_groups_end_with_final_ones(runs: Runs) -> None:
    events = make_events(2_000, 120, 3)
    load(runs.broker, runs.source, events)
    runs.run(
        *BY,
        "--counter",
        "exact",
        "--trigger",
        "available-now",
        "--max-offsets-per-trigger",
        "300",
        "--output-mode",
        "update",
    )
    found = runs.read()
    assert numbers(found) == count(events)
    assert all(value["final"] for value in found.values())
    assert max(value["revision"] for value in found.values()) > 1


def test_history_has_the_same_groups_and_its_records_win(runs: Runs) -> None:
    events = make_events(2_000, 3 * 3_600, 4)
    load(runs.broker, runs.source, events)
    runs.run(*BY, "--counter", "exact", "--backfill")
    records = dict(read_records(runs.broker, runs.sink))
    assert numbers(records) == count(events)
    assert all(value["final"] and value["revision"] > 1_000_000_000 for value in records.values())


def test_more_values_than_names_are_one_group_and_nothing_is_lost(runs: Runs) -> None:
    draw = random.Random(5)
    events: list[Event] = []
    for n in range(12_000):
        # Three countries have half of the events; the others are new nearly every time.
        country = f"big{n % 3}" if n % 2 else f"small{draw.randrange(100_000)}"
        events.append((START + n // 200, f"u{draw.randrange(4_000)}", country, "desk"))
    load(runs.broker, runs.source, events)
    flags = (
        "--by",
        "geo.country",
        "--max-groups",
        "50",
        "--counter",
        "exact",
        "--sketch",
        "--trigger",
        "available-now",
    )
    runs.run(*flags, "--max-offsets-per-trigger", "2500")
    found = runs.read()
    exact = Tally((utc(ts - ts % 60), country) for ts, _, country, _ in events)
    for start in {key.partition(" ")[0] for key in found}:
        groups = [value for key, value in found.items() if key.startswith(f"{start} ")]
        named = {value["group"]["geo.country"]: value for value in groups if "other" not in value}
        others = [value for value in groups if value.get("other")]
        assert len(named) == 50
        assert len(others) == 1
        assert {"big0", "big1", "big2"} <= named.keys()
        # A name that is kept has all its events.
        assert all(value["events"] == exact[start, name] for name, value in named.items())
        assert others[0]["events"] == found[start]["events"] - sum(value["events"] for value in named.values())
        users = {uid for ts, uid, country, _ in events if utc(ts - ts % 60) == start and country not in named}
        assert others[0]["unique_users"] == len(users)
        union = hll_union(12)
        for value in groups:
            union.update(hll_sketch.deserialize(base64.b64decode(value["sketch"])))
        united = union.get_result(tgt_hll_type.HLL_8).serialize_updatable()
        assert registers_of(united) == registers_of(base64.b64decode(found[start]["sketch"]))


def test_other_breakdowns_need_another_checkpoint(runs: Runs) -> None:
    load(runs.broker, runs.source, make_events(10, 60, 6))
    runs.run(*BY, "--trigger", "available-now")
    with pytest.raises(UsageError, match=r"--by geo.country device device,geo.country \(now device\)"):
        runs.run("--by", "device", "--trigger", "available-now")
