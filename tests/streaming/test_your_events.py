"""The commands of the guide "your events", run on such events: counts against sets in Python."""

from __future__ import annotations

import json
import random
import re
import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from event_shapes import SHAPES, START, Made, count_windows, make_events
from support import ROOT, read_records
from uniques.apps import count
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession
    from support import InProcess

PAGE = (ROOT / "docs" / "guides" / "your-events.md").read_text()
MIXED = "Several shapes in one topic"
# Flags of the page that say where records come from and go to.
PLACES = {"--bootstrap-servers", "--input-topic", "--output-topic", "--checkpoint-location"}


def read_blocks(heading: str, language: str) -> list[str]:
    """The blocks of code in a section of the page."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def read_commands(heading: str) -> list[list[str]]:
    """What the commands of a section say of events."""
    commands = []
    for block in read_blocks(heading, "sh"):
        words = shlex.split(block.replace("\\\n", " "))
        assert words[:2] == [".venv/bin/spark-submit", "jobs/unique_users.py"]
        pairs = list(zip(words[2::2], words[3::2], strict=True))
        assert {flag for flag, _ in pairs} >= PLACES
        commands.append([word for pair in pairs if pair[0] not in PLACES for word in pair])
    return commands


def run_lines(
    spark: SparkSession, folder: Path, capsys: pytest.CaptureFixture[str], lines: Sequence[bytes], flags: list[str]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records of the job over these lines, and its summary."""
    (folder / "events.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    places = ["--input", str(folder / "events.jsonl"), "--output", "-", "--summary", str(folder / "summary")]
    capsys.readouterr()
    count.run(spark, count.parse_settings([*places, "--counter", "exact", *flags]), StopSignal())
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return records, json.loads((folder / "summary").read_text())


def list_counts(records: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Window start, and a group where there is one -> (unique users, events)."""
    return {key_of(record): (record["unique_users"], record["events"]) for record in records}


def key_of(record: dict[str, Any]) -> str:
    assert "other" not in record
    group = f" {json.dumps(record['group'], sort_keys=True)}" if "group" in record else ""
    return f"{record['window_start']}{group}"


def list_breakdowns(flags: Sequence[str]) -> list[str]:
    return [value for flag, value in zip(flags[::2], flags[1::2], strict=True) if flag == "--by"]


def count_outcomes(summary: dict[str, Any]) -> Counter[str]:
    return Counter(counted=summary["counted"], filtered=summary["filtered"], **summary["rejected_by_reason"])


@pytest.mark.parametrize("parser", ["bytes", "spark"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_commands_of_the_page_count_each_shape_exactly(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str, parser: str
) -> None:
    events = make_events(shape)
    commands = read_commands(shape)
    assert commands
    for flags in commands:
        lines = [event.line for event in events]
        records, summary = run_lines(spark, tmp_path, capsys, lines, [*flags, "--json-parser", parser])
        assert list_counts(records) == count_windows(events, list_breakdowns(flags))
        assert count_outcomes(summary) == Counter(event.outcome for event in events)
        assert len({event.outcome for event in events}) >= 3, "the events are to be counted, filtered and rejected"


@pytest.mark.parametrize("shape", SHAPES)
def test_the_event_on_the_page_counts_as_the_page_says(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    (text,) = read_blocks(shape, "json")
    event = json.dumps(json.loads(text)).encode()
    section = PAGE.split(f"\n## {shape}\n")[1]
    said = re.search(r"The event counts for user `(.+?)` in the window of `(.+?)`", section)
    assert said is not None
    user, window = said.groups()
    command = read_commands(shape)[0]
    records, _ = run_lines(spark, tmp_path, capsys, [event], command)
    groups = 1 + len(list_breakdowns(command))
    assert [key_of(record).partition(" ")[0] for record in records] == [window] * groups
    assert {(record["unique_users"], record["events"]) for record in records} == {(1, 1)}
    # The same user in a second event is one; the condition sees the user's text, as the job reads it.
    where = command[command.index("--where") + 1] if "--where" in command else "true"
    users = command[command.index("--user-field") + 1]
    same = (
        f"({where}) AND coalesce({', '.join(f'nullif({name}, {chr(39) * 2})' for name in users.split(','))}) = '{user}'"
    )
    flags = [*command[: command.index("--where")], "--where", same]
    records, _ = run_lines(spark, tmp_path, capsys, [event, event], flags)
    assert list_counts(records) == {window: (1, 2)}


def shuffle_all() -> list[tuple[str, Made]]:
    """The events of all shapes in one, in an order of their own."""
    events = [(shape, event) for shape in SHAPES for event in make_events(shape)]
    random.Random(1).shuffle(events)
    return events


@pytest.mark.parametrize("parser", ["bytes", "spark"])
def test_of_several_shapes_the_condition_counts_one_and_rejects_no_event_of_another(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], parser: str
) -> None:
    events = shuffle_all()
    flags = [*read_commands(MIXED)[0], "--json-parser", parser]
    records, summary = run_lines(spark, tmp_path, capsys, [event.line for _, event in events], flags)
    wanted = [event for shape, event in events if shape == "CloudEvents"]
    assert list_counts(records) == count_windows(wanted)
    no_objects = Counter(event.outcome for _, event in events if event.outcome in {"not_json", "not_an_object"})
    expected = Counter(event.outcome for event in wanted) + no_objects
    expected["filtered"] = len(events) - sum(number for name, number in expected.items() if name != "filtered")
    assert count_outcomes(summary) == expected


def find_any_user(line: bytes) -> str | None:
    """The user of an event of any shape, in the order of the page's command."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    if not isinstance(event, dict):
        return None
    payload = event.get("payload") or {}
    rows = [payload.get("after"), payload.get("before")]
    found = [
        event["data"].get("userId") if isinstance(event.get("data"), dict) else None,
        *(event.get(name) for name in ("userId", "anonymousId", "remote_user", "remote_addr")),
        *(row.get("customer_id") for row in rows if isinstance(row, dict)),
        (event.get("actor") or {}).get("login"),
    ]
    return next((str(user) for user in found if user not in (None, "")), None)


@pytest.mark.parametrize("parser", ["bytes", "spark"])
def test_all_shapes_of_a_topic_are_counted_together_by_arrival(
    broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path, parser: str
) -> None:
    topic, out = new_topic("everything", 2), new_topic("all-users")
    events = shuffle_all()
    arrivals = [START + at * 0.4 for at in range(len(events))]
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for at, ((_, event), arrived) in enumerate(zip(events, arrivals, strict=True)):
        producer.produce(topic, event.line, partition=at % 2, timestamp=int(arrived * 1_000))
    assert producer.flush(60) == 0
    places = ["--input-topic", topic, "--output-topic", out, "--checkpoint-location", str(tmp_path / "checkpoint")]
    ending = ["--trigger", "available-now", "--counter", "exact", "--json-parser", parser]
    flags = read_commands(MIXED)[1]
    job.run(*places, *ending, *flags, "--summary", str(tmp_path / "summary"))
    users = [find_any_user(event.line) for _, event in events]
    expected = [
        Made(b"", "counted", time, user, {"@topic": topic})
        for time, user in zip(arrivals, users, strict=True)
        if user is not None
    ]
    records = [record for _, record in read_records(broker, out)]
    assert list_counts(records) == count_windows(expected, list_breakdowns(flags))
    summary = json.loads((tmp_path / "summary").read_text())
    assert summary["counted"] == len(expected) > 900
    assert sum(summary["rejected_by_reason"].values()) == len(events) - len(expected)
