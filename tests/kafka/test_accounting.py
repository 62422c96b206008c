"""Where every event went: on a real Kafka, against a model of the stream in plain Python."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from load_events import load_lines
from support import (
    LOG_IN_JSON,
    InProcess,
    count_exactly,
    make_events,
    plain_environment,
    read_headers,
    read_log,
    read_messages,
    read_records,
    submit_command,
    utc,
    wait_until,
)
from uniques.apps.count import main

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker

BATCH = 250
START = 1_700_000_040  # of a minute


@pytest.mark.parametrize(
    ("mode", "parser"),
    [("append", "spark"), ("update", "bytes")],
)
def test_every_event_is_counted_rejected_or_late(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, mode: str, parser: str
) -> None:
    # Five minutes, a part of them unreadable, a part two minutes late.
    events = make_events(events=1_500, rate=5, malformed=0.05, late=0.1, late_by=120)
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    summary = tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, "--output-mode", mode]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    flags += ["--max-offsets-per-trigger", str(BATCH), "--summary", str(summary), "--json-parser", parser]
    job.run(*flags)

    windows = {start: number for start, (_, number) in count_exactly(events).items()}
    rejected = sum(event.ts is None for event in events)
    assert min(rejected, sum(windows.values())) > 50  # both kinds occur
    said = json.loads(summary.read_text())
    assert (said["counted"], said["rejected"], said["late"]) == (sum(windows.values()), rejected, 0)
    assert (said["carried"], said["read"], said["in_open_windows"], said["exact"]) == (0, len(events), 0, True)
    assert sum(said["rejected_by_reason"].values()) == rejected

    records = read_records(broker, sink)
    assert {key: value["events"] for key, value in records} == windows
    assert_revisions_follow(records)
    assert {value["final"] for _, value in records} == ({True} if mode == "append" else {True, False})
    assert all(value["final"] for value in dict(records).values())

    # Every rejected record, and no other, can be found by its offset, unchanged.
    found = {}
    for message in read_messages(broker, rejects):
        headers = read_headers(message)
        assert list(headers) == ["reason", "topic", "partition", "offset", "arrival_time", "timestamp_type"]
        assert (headers["topic"], headers["partition"]) == (source, "0")
        found[int(headers["offset"])] = (message.value(), headers["reason"])
    assert {offset: value for offset, (value, _) in found.items()} == {
        offset: event.line for offset, event in enumerate(events) if event.ts is None
    }
    assert Counter(reason for _, reason in found.values()) == said["rejected_by_reason"]


def assert_revisions_follow(records: list[tuple[str, dict[str, Any]]]) -> None:
    """The records of a key are numbered 0, 1, 2, …, and none that is not final follows one that is."""
    seen: Counter[str] = Counter()
    final: set[str] = set()
    for key, value in records:
        assert value["revision"] == seen[key], (key, value)
        seen[key] += 1
        assert value["final"] or key not in final
        final |= {key} if value["final"] else set()


def test_events_that_come_after_the_allowed_lateness_are_late(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    early = [(START + second, f"u{second}") for second in range(120)]
    later = [(START + 7_200 + second, f"u{second}") for second in range(600)]
    source, sink, summary = new_topic("in"), new_topic("out"), tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now", "--summary", str(summary)]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--max-offsets-per-trigger", "100"]
    load_lines(map(make_line, early + later), broker.bootstrap_servers, source)
    job.run(*flags)
    exact = {key: value["events"] for key, value in read_records(broker, sink)}
    assert exact == {utc(START + 60 * n): 60 for n in (0, 1, *range(120, 130))}
    # Two hours late: lost, and said so. 50 minutes late: counted, by a correction.
    load_lines(
        map(make_line, [*early[:40], (START + 7_200 + 599 - 3_000, "x"), later[0]]), broker.bootstrap_servers, source
    )
    job.run(*flags)
    said = json.loads(summary.read_text())
    assert {name: said[name] for name in ("carried", "read", "counted", "late", "in_open_windows")} == {
        "carried": 0,
        "read": 42,
        "counted": 2,
        "late": 40,
        "in_open_windows": 0,
    }
    assert (said["corrections"], said["corrected_events"]) == (1, 1)
    records = read_records(broker, sink)
    assert_revisions_follow(records)
    last = {key: value["events"] for key, value in records}
    start = START + 7_200 + 599 - 3_000
    assert last == {**exact, utc(START + 7_200): 61, utc(start - start % 60): 1}


def make_line(event: tuple[int, str]) -> bytes:
    return json.dumps({"ts": event[0], "uid": event[1]}).encode()


def test_a_rejected_record_of_10_mb_goes_through(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    huge = b'{"ts":1468244384,"uid":"a' + b"x" * 10_000_000
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    load_lines([huge, b'{"ts":1468244384,"uid":"a"}'], broker.bootstrap_servers, source)
    flags = ["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, "--trigger", "available-now"]
    job.run(*flags, "--checkpoint-location", str(tmp_path / "checkpoint"))
    assert [
        (message.value() == huge, read_headers(message)["reason"]) for message in read_messages(broker, rejects)
    ] == [(True, "not_json")]
    assert [value["events"] for _, value in read_records(broker, sink)] == [1]


def test_windows_left_open_are_carried_into_the_next_run(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=1_200, rate=10, delayed=0.0)
    source, sink = new_topic("in", 2), new_topic("out")
    summary = tmp_path / "summary.json"
    flags = ["--input-topic", source, "--output-topic", sink, "--summary", str(summary), "--trigger", "available-now"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint")]
    load_lines((event.line for event in events[:900]), broker.bootstrap_servers, source)
    job.run(*flags, "--idle-timeout", "off")
    first = json.loads(summary.read_text())
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    in_second = count_exactly(events[:900])["2016-07-11T13:40:00Z"][1]
    assert first["in_open_windows"] == in_second
    assert first["counted"] == exact["2016-07-11T13:39:00Z"]

    load_lines((event.line for event in events[900:]), broker.bootstrap_servers, source)
    # Flags that the documentation says may change on a checkpoint do.
    changed = ["--watermark", "7 seconds", "--max-age", "36500 days", "--max-offsets-per-trigger", "100"]
    job.run(*flags, *changed)
    second = json.loads(summary.read_text())
    assert second["carried"] == in_second
    assert second["carried"] + second["read"] == second["counted"] + second["rejected"]
    assert second["late"] == second["in_open_windows"] == 0
    assert {key: value["events"] for key, value in read_records(broker, sink)} == exact


def test_a_batch_that_is_done_again_after_a_crash_is_accounted_for(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=1_200, rate=10, delayed=0.0)
    source, sink = new_topic("in", 2), new_topic("out")
    summary, checkpoint = tmp_path / "summary.json", tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--summary", str(summary), "--trigger", "available-now"]
    flags += ["--checkpoint-location", str(checkpoint), "--max-offsets-per-trigger", "500"]
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    job.run(*flags, "--idle-timeout", "off")
    # As if the job had been killed before Spark noted its last batch as done.
    for name in ("2", ".2.crc"):
        (checkpoint / "query" / "commits" / name).unlink()
    job.run(*flags)
    said = json.loads(summary.read_text())
    assert said["read"] == 200  # batch 2, again
    assert said["carried"] + said["read"] == said["counted"] + said["rejected"]
    assert said["in_open_windows"] == 0
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    assert {key: value["events"] for key, value in read_records(broker, sink)} == exact


def test_a_silent_stream_shows_its_last_minute_and_what_comes_after_corrects_it(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=900, rate=10, malformed=0.0)  # a minute and a half
    source, sink = new_topic("in"), new_topic("out")
    summary = tmp_path / "summary.json"
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    flags = ["--input-topic", source, "--output-topic", sink, "--summary", str(summary)]
    flags += ["--trigger", "100 milliseconds", "--idle-timeout", "2 seconds", "--correction-interval", "1 second"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint")]
    with job.running(*flags) as runs:
        wait_until(lambda: len(read_messages(broker, sink)) >= len(exact), runs)
        assert {key: value["events"] for key, value in read_records(broker, sink)} == exact
        # Nothing but the events stands in the customer's topic.
        assert [message.value() for message in read_messages(broker, source)] == [event.line for event in events]
        load_lines([events[-1].line, make_line((1468244700, "next"))], broker.bootstrap_servers, source)
        wait_until(lambda: len(read_messages(broker, sink)) >= len(exact) + 2, runs)
    said = json.loads(summary.read_text())
    assert (said["read"], said["counted"], said["late"], said["in_open_windows"]) == (902, 902, 0, 0)
    assert (said["corrections"], said["corrected_events"]) == (1, 1)
    records = read_records(broker, sink)
    assert_revisions_follow(records)
    last = max(exact)
    assert {key: value["events"] for key, value in records} == {
        **exact,
        last: exact[last] + 1,
        "2016-07-11T13:45:00Z": 1,
    }


@pytest.mark.slow
def test_files_and_standard_input_give_the_records_the_topic_gives(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=3_000, rate=20)
    lines = b"".join(event.line + b"\r\n" for event in events)
    source, sink, from_file = new_topic("in", 2), new_topic("out"), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    flags = ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    job.run("--input-topic", source, "--output-topic", sink, *flags)
    expected = [message.value() for message in sorted(read_messages(broker, sink), key=lambda m: m.key() or b"")]
    assert len(expected) == 3

    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "events.jsonl").write_bytes(lines)
    summary = tmp_path / "summary.json"
    job.run("--input", str(folder), "--output-topic", from_file, "--summary", str(summary))
    assert [message.value() for message in read_messages(broker, from_file)] == expected
    said = json.loads(summary.read_text())
    assert said["read"] == 3_000 == said["counted"] + said["rejected"]

    # And as its users start it, with JSON as the layout of all log lines.
    done = subprocess.run(
        [*submit_command(*LOG_IN_JSON), "--rsd", "0.05", "--input", "-", "--output", "-"],
        input=lines,
        capture_output=True,
        check=False,
        env=plain_environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == expected
    [(level, message)] = read_log(done.stderr.decode())
    assert level == "INFO"
    assert json.loads(message.removeprefix("summary: ")) == said


@pytest.mark.usefixtures("main_in_session")
def test_input_that_is_not_there_gets_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--input", "/no/such/file", "--output", "-"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("unique_users: error: --input /no/such/file: ")
    assert said.count("\n") == 1
