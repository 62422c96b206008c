"""Several topics, topics by a pattern, and what a record has beside its value."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from support import DEADLINE_SECONDS, InProcess, read_records, utc, wait_until
from uniques.errors import JobError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kafka_broker import KafkaBroker

START = 1_700_000_040  # of a minute
Row = tuple[int, str]  # unix seconds, user


def make_rows(seconds: int, first: int = START, seed: int = 1) -> list[Row]:
    return [(first + n // 5, f"u{(n * 7_919 + seed * 104_729) % 97}") for n in range(seconds * 5)]


def load(broker: KafkaBroker, topic: str, rows: Iterable[Row], **record: Any) -> None:
    """Loads events, with the user in the value, into one partition after the other."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20})
    for number, (ts, uid) in enumerate(rows):
        producer.produce(topic, json.dumps({"ts": ts, "uid": uid}).encode(), partition=number % 2, **record)
    assert producer.flush(DEADLINE_SECONDS) == 0


def count(rows: Iterable[Row]) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events), by sets."""
    users = defaultdict(list)
    for ts, uid in rows:
        users[utc(ts - ts % 60)].append(uid)
    return {start: (len(set(users[start])), len(users[start])) for start in sorted(users)}


@pytest.fixture
def drain(job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> Callable[..., Any]:
    def run(*flags: str, checkpoint: str = "checkpoint") -> tuple[dict[str, tuple[int, int]], dict[str, Any]]:
        """The last record of each window, and the summary."""
        sink, summary = new_topic("out"), tmp_path / "summary.json"
        own = ("--output-topic", sink, "--trigger", "available-now", "--counter", "exact")
        job.run(*flags, *own, "--checkpoint-location", str(tmp_path / checkpoint), "--summary", str(summary))
        records = dict(read_records(broker, sink, "read_committed"))
        last = {key: (value["unique_users"], value["events"]) for key, value in sorted(records.items())}
        return last, json.loads(summary.read_text())

    return run


def test_topics_that_are_not_in_step_lose_nothing(
    drain: Callable[..., Any], broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    first, second = new_topic("in", 2), new_topic("in", 2)
    # The second topic has nothing for 50 of 60 minutes.
    rows = [make_rows(3_600), make_rows(600, START + 3_000, seed=2)]
    load(broker, first, rows[0])
    load(broker, second, rows[1])
    last, summary = drain("--input-topic", f"{first},{second}", "--max-offsets-per-trigger", "1500")
    assert summary["late"] == 0
    assert last == count(rows[0] + rows[1])


def test_a_condition_knows_the_topic_the_key_and_the_headers(
    drain: Callable[..., Any], broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    first, second = new_topic("in", 2), new_topic("in", 2)
    rows = [make_rows(120), make_rows(120, seed=2), make_rows(120, seed=3)]
    load(broker, first, rows[0], key=b"k", headers=[("app", b"web")])
    load(broker, first, rows[1], key=b"other", headers=[("app", b"web")])
    load(broker, second, rows[2], key=b"k")
    topics = ("--input-topic", f"{first},{second}")
    for condition, expected in {
        f"`@topic` = '{second}'": rows[2],
        "`@key` = 'k'": rows[0] + rows[2],
        "`@header`.app = 'web' AND `@key` <> 'k'": rows[1],
    }.items():
        last, summary = drain(*topics, "--where", condition, checkpoint=condition.replace("`", ""))
        assert last == count(expected)
        assert summary["filtered"] == sum(map(len, rows)) - len(expected)
        assert summary["rejected"] == 0


def test_the_user_can_be_the_key_or_a_header_and_the_time_that_of_the_record(
    drain: Callable[..., Any], broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("in", 2)
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    rows = make_rows(120)
    for number, (ts, uid) in enumerate(rows):
        user: dict[str, Any] = {"headers": [("user", uid.encode())]} if number % 3 else {"key": uid.encode()}
        producer.produce(topic, b'{"what":"ever"}', partition=number % 2, timestamp=ts * 1_000 + 250, **user)
    producer.produce(topic, b"{}", partition=0, timestamp=START * 1_000)
    assert producer.flush(DEADLINE_SECONDS) == 0
    last, summary = drain("--input-topic", topic, "--user-field", "@key,@header.user", "--time-format", "kafka")
    assert last == count(rows)
    assert summary["rejected_by_reason"] == {"missing_uid": 1}


def test_a_topic_that_comes_while_the_job_runs_is_found_and_read_from_its_beginning(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    first, other, sink = new_topic("found-in", 2), new_topic("in", 2), new_topic("out")
    rows = make_rows(120), make_rows(120, START + 240, seed=2), make_rows(1, START + 600)
    load(broker, first, rows[0])
    load(broker, other, rows[0])  # not matched
    flags: list[str] = [
        "--input-pattern",
        r"found-in.*",
        "--output-topic",
        sink,
        "--counter",
        "exact",
        "--trigger",
        "100 milliseconds",
    ]
    # The consumer looks for new topics when its metadata is older than this.
    (tmp_path / "client.properties").write_text("metadata.max.age.ms=1000\n")
    flags += ["--kafka-config", str(tmp_path / "client.properties")]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint")]

    def has(number: int) -> Callable[[], bool]:
        return lambda: len(dict(read_records(broker, sink, "read_committed"))) >= number

    with job.running(*flags, "--idle-timeout", "1 second") as runs:
        wait_until(has(2), runs)
        second = new_topic("found-in", 2)
        load(broker, second, rows[1] + rows[2])
        wait_until(has(5), runs)
    records = {key: (value["unique_users"], value["events"]) for key, value in read_records(broker, sink)}
    assert records == count(rows[0] + rows[1] + rows[2])


def test_no_topic_that_matches_and_another_topic_on_the_checkpoint_are_said_in_one_line(
    drain: Callable[..., Any], broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("in", 2)
    load(broker, topic, make_rows(60))
    with pytest.raises(JobError, match=r"--input-pattern nothing-.*: no topic has a name that matches"):
        drain("--input-pattern", "nothing-.*")
    drain("--input-topic", topic)
    with pytest.raises(UsageError, match=r"--input-pattern none \(now in-"):
        drain("--input-pattern", "in-.*")
    with pytest.raises(UsageError, match=r"--user-field uid \(now id\)"):
        drain("--input-topic", topic, "--user-field", "id")
