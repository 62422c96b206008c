"""History in batch, and its handover to the stream, on a real Kafka."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from load_events import load_lines
from support import count_exactly, make_events, read_messages, read_records, utc
from uniques.errors import JobError, UsageError
from uniques.kafka.topics import write_topic_once
from uniques.state import backfill
from uniques.state.backfill import Bounds, Piece, plan_pieces

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import DataFrame, SparkSession
    from support import InProcess

START = 1468244340  # 2016-07-11T13:39:00Z
NOON = 1468238400  # 2016-07-11T12:00:00Z


def make_history(minutes: int) -> list[tuple[int, str]]:
    """Events in no order at all: (ts, uid), 10 a minute."""
    draw = random.Random(5)
    events = [
        (START + 60 * minute + draw.randrange(60), f"u{draw.randrange(40)}")
        for minute in range(minutes)
        for _ in range(10)
    ]
    draw.shuffle(events)
    return events


def count(events: list[tuple[int, str]]) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events), by sets."""
    users: dict[str, list[str]] = {}
    for ts, uid in events:
        users.setdefault(utc(ts - ts % 60), []).append(uid)
    return {start: (len(set(uids)), len(uids)) for start, uids in sorted(users.items())}


def load(broker: KafkaBroker, topic: str, events: list[tuple[int, str]]) -> None:
    load_lines([json.dumps({"ts": ts, "uid": uid}).encode() for ts, uid in events], broker.bootstrap_servers, topic)


def read_counts(broker: KafkaBroker, topic: str) -> list[tuple[str, tuple[int, int]]]:
    return [(key, (value["unique_users"], value["events"])) for key, value in read_records(broker, topic)]


def test_pieces_hold_whole_windows_within_the_bounds(spark: SparkSession) -> None:
    days = [(0, 5), (1, 5), (2, 30), (3, 2), (400, 1)]
    rows = [(day * 86_400_000_000 + number, "u") for day, events in days for number in range(events)]
    staged = spark.createDataFrame(rows, "time_us BIGINT, uid STRING")
    day = 86_400
    assert plan_pieces(staged, 60, Bounds(10_000, 30, 86_400)) == [
        Piece(0, 2 * day, 10),
        Piece(2 * day, 3 * day, 30),
        Piece(3 * day, 401 * day, 3),
    ]
    few = Bounds(5, 30, 86_400)
    assert [piece.events for piece in plan_pieces(staged, 60, few)] == [5, 5, 30, 3]
    # A window of 7 days, aligned to the epoch, is in one piece.
    assert plan_pieces(staged, 7 * day, few)[0].end == 7 * day


def test_history_in_any_order_is_counted_to_the_last_event_and_goes_on_after_a_failure(
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    job: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, sink = new_topic("in", partitions=2), new_topic("out")
    history = make_history(minutes=40)
    # Flipped bits land alone, far away; what lies outside the range is another's.
    flipped = [(START + 5 - 2**24, "flip"), (START + 5 + 2**24, "flip")]
    outside = [(START - 1, "before"), (START + 40 * 60, "after")]
    load(broker, source, history + flipped + outside)
    flags = ["--backfill", "--input-topic", source, "--output-topic", sink, "--counter", "exact"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--max-offsets-per-trigger", "150"]
    flags += ["--start-time", utc(START), "--end-time", utc(START + 40 * 60), "--summary", str(tmp_path / "summary")]
    written: list[int] = []
    write = write_topic_once

    def fail_at_second(records: DataFrame, cluster: Any) -> None:
        written.append(1)
        if len(written) == 2:
            raise JobError("the broker is away")
        write(records, cluster)

    monkeypatch.setattr(backfill, "BOUNDS", Bounds(10, 1_000, 600))  # four pieces
    monkeypatch.setattr("uniques.apps.pipeline.write_topic_once", fail_at_second)
    with pytest.raises(JobError):
        job.run(*flags)
    assert dict(read_counts(broker, sink)).keys() < count(history).keys()
    job.run(*flags)
    # In order of time, each once: a piece that was written is not written again.
    assert read_counts(broker, sink) == list(count(history).items())
    assert all(value["final"] for _, value in read_records(broker, sink))

    job.run(*flags)
    assert len(read_records(broker, sink)) == 40
    other = [*flags[:-4], "--end-time", utc(START + 60), *flags[-2:]]
    with pytest.raises(UsageError, match=r"with --end-time 2016-07-11T14:19:00Z \(now 2016-07-11T13:40:00Z\): give"):
        job.run(*other)


def test_a_backfill_that_is_started_again_writes_equal_records_and_a_later_one_a_higher_revision(
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    job: InProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    load(broker, source, make_history(minutes=20))
    flags = ["--backfill", "--input-topic", source, "--output-topic", sink, "--counter", "exact"]
    monkeypatch.setattr(backfill, "BOUNDS", Bounds(10, 1_000, 600))

    def fail(*_: Any) -> None:
        raise JobError("cut short")

    began = time.time()
    with monkeypatch.context() as patched:
        patched.setattr(backfill.Journal, "add", fail)  # its first piece is written, and not noted
        with pytest.raises(JobError, match="cut short"):
            job.run(*flags, "--checkpoint-location", str(tmp_path / "first"))
    revisions = {value["revision"] for _, value in read_records(broker, sink)}
    assert len(revisions) == 1
    assert int(began) <= min(revisions) < int(time.time())
    job.run(*flags, "--checkpoint-location", str(tmp_path / "first"))
    records = read_records(broker, sink)
    assert len(records) > len(dict(records)) == 20
    assert all(value == dict(records)[key] for key, value in records)
    assert {value["revision"] for _, value in records} == revisions

    job.run(*flags, "--checkpoint-location", str(tmp_path / "second"))
    repaired = read_records(broker, sink)[len(records) :]
    assert len(repaired) == 20
    assert {value["revision"] > max(revisions) for _, value in repaired} == {True}


def test_where_every_event_of_a_backfill_went(
    broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path
) -> None:
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    events = make_events(events=500, rate=5.0)
    exact = count_exactly(events)
    load_lines([event.line for event in events], broker.bootstrap_servers, source)
    load(broker, source, [(NOON, "outside")] * 7)
    first = min(exact)
    job.run(
        *("--backfill", "--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects),
        *("--checkpoint-location", str(tmp_path / "c"), "--summary", str(tmp_path / "summary"), "--start-time", first),
    )
    summary = json.loads((tmp_path / "summary").read_text())
    accepted = sum(number for _, number in exact.values())
    assert summary["counted"] == accepted
    assert summary["read"] == len(events) + 7
    assert summary["rejected_by_reason"]["outside_range"] == 7
    # Events of another time are no faults.
    assert len(read_messages(broker, rejects)) == summary["read"] - accepted - 7


def test_a_backfill_reads_files_one_a_batch(
    broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path
) -> None:
    sink = new_topic("out")
    history = make_history(minutes=3)
    folder = tmp_path / "history"
    folder.mkdir()
    for part in range(2):
        lines = [json.dumps({"ts": ts, "uid": uid}) for ts, uid in history[part::2]]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n")
    flags = ("--backfill", "--input", str(folder), "--output-topic", sink, "--counter", "exact")
    job.run(*flags, "--checkpoint-location", str(tmp_path / "c"))
    assert read_counts(broker, sink) == list(count(history).items())


def test_the_handover_from_backfill_to_stream_splits_loses_and_doubles_no_minute(
    broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path
) -> None:
    source, sink = new_topic("in", partitions=2), new_topic("out")
    handover = START + 4 * 60
    history = sorted(make_history(minutes=8))
    load(broker, source, history[:60])
    flags = ["--input-topic", source, "--output-topic", sink, "--counter", "exact"]
    stream = [*flags, "--checkpoint-location", str(tmp_path / "stream"), "--start-time", utc(handover)]
    # The stream runs first, and meets events of both sides of the handover.
    job.run(*stream, "--trigger", "available-now", "--idle-timeout", "off")
    load(broker, source, history[60:])
    job.run(*flags, "--backfill", "--checkpoint-location", str(tmp_path / "history"), "--end-time", utc(handover))
    # An event of the backfill's side that is late changes nothing on the stream's side, and is no new record.
    load(broker, source, [(handover - 1, "late")])
    job.run(*stream, "--trigger", "available-now")
    assert sorted(read_counts(broker, sink)) == list(count(history).items())
