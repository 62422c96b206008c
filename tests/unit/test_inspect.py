"""The tool that looks into a topic: what it proposes, and that the job does what it says."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from clickstream import FLAGS
from confluent_kafka import Producer
from event_profile import profile_records, propose
from event_rules import PATTERNS, BotFlag, Record, classify, read_time
from event_shapes import SHAPES, START, dump, make_events
from generate_events import Settings, generate_events
from inspect_topic import Finding, Source, format_command, inspect, make_command
from sample_reader import Sample, share_out
from support import ROOT, read_event_table
from uniques.apps import count
from uniques.core.events import OUTCOMES, parse_events
from uniques.core.fields import DEFAULT_SHAPE, EventShape, Field, TimeFormat
from uniques.filters import read_filter
from uniques.runtime.session import changed_setting
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession
    from support import InProcess

T = 1468244384
FILE = Source("localhost:9092", "in", "events.jsonl")


def run_inspect(*flags: str, stdin: bytes = b"", folder: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, str(ROOT / "tools" / "inspect_topic.py"), *flags]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, cwd=folder)


def look(lines: Sequence[bytes], source: Source = FILE, now: float = START + 600) -> Finding:
    return inspect(Sample([Record(line) for line in lines], "all of events.jsonl"), source, now)


def flags_of(finding: Finding) -> dict[str, str]:
    """What the command says of events: flag -> value."""
    command = finding.command or []
    said = dict(zip(command[2::2], command[3::2], strict=True))
    return {flag: value for flag, value in said.items() if flag.startswith(("--time", "--user", "--where"))}


def count_outcomes(finding: Finding) -> Counter[str]:
    return Counter(outcome.name for outcome in finding.outcomes or ())


# ---------------------------------------------------------------- the reading in Python


def test_the_tool_reads_every_record_of_the_documentation_as_the_job_does() -> None:
    table = read_event_table()
    said = {what: classify(Record(value), DEFAULT_SHAPE).name for what, (value, _) in table.items()}
    assert said == {what: outcome for what, (_, outcome) in table.items()}


STRANGE_TIMES: tuple[object, ...] = (
    *(T, T * 1_000, T + 0.25, -1, 0, -0.0, 1e11, 253402300799, 253402300800, 2**63, 10**30, 1e300, True, [], {}, ""),
    *(" 1 ", "+1", "1.", ".5", "1e9", "1e999", "0x1", "1_000", "\u0661", "1 2", "--1", "1468244384.9999999999", "soon"),
    *("2016-07-11T13:39Z", "2016-07-11t13:39:44z", "2016-07-11 13:39:44.1", "2016-07-11T13:39:44.", "2016-07-11"),
    *("2016-07-11T13:39:44+18:30", "2016-07-11T13:39:44-18:00", "2016-07-11T13:39:44+19:00", "2016-07-11T24:00:00Z"),
    *("2016-02-30T00:00:00Z", "2016-12-31T23:59:60Z", "1970-01-01T00:30:00+01:00", "9999-12-31T23:59:59.9999999Z"),
    *("0001-01-01T00:00:00Z", "2016-07-11T13:39:44 Z", "2016-07-11T13:39:44  Z", "\n2016-07-11T13:39:44+0200\t"),
    *(
        "11/Jul/2016:15:39:44 +0200",
        "11/jul/2016:15:39:44 +0200",
        "1/Jul/2016:15:39:44 +0200",
        "31/Feb/2016:00:00:00 Z",
    ),
    *("20160711133944", "20160711T133944Z", "2016/07/11 13:39:44", "11.07.2016 13:39:44", "11/07/2016 13:39:44"),
    *("07/31/2016 13:39:44", "31/07/2016 13:39:44", "2016/7/11 13:39:44", "11.07.16 13:39:44"),
)


@pytest.mark.parametrize("time_format", ["auto", *PATTERNS])
def test_the_tool_reads_times_as_spark_does(spark: SparkSession, time_format: str) -> None:
    lines = [dump({"ts": time, "uid": "a"}) for time in STRANGE_TIMES]
    frame = spark.createDataFrame([(i, bytearray(line)) for i, line in enumerate(lines)], "i INT, value BINARY")
    with changed_setting(spark, "spark.sql.ansi.enabled", "false"):  # as the job does
        parsed = parse_events(frame, shape=EventShape(time_format=TimeFormat(time_format)))
    rows = parsed.orderBy("i").selectExpr("unix_micros(event_time) AS time").collect()
    found = [read_time(time, time_format) for time in STRANGE_TIMES]
    said = dict(zip(map(repr, STRANGE_TIMES), (read and read[0] for read in found), strict=True))
    assert said == dict(zip(map(repr, STRANGE_TIMES), (row.time for row in rows), strict=True))
    assert any(found)


def damage(random_: random.Random, line: bytes) -> bytes:
    """A line with a few bytes changed, lost, or doubled."""
    data = bytearray(line)
    for _ in range(random_.randrange(1, 4)):
        at = random_.randrange(len(data))
        change = random_.randrange(4)
        if change == 0:
            data[at] = random_.choice(b'"{}[]:,\\0eE-.+ \x00\x1f\x80\xc3\xed\xff')
        elif change == 1:
            del data[at : at + random_.randrange(1, 9)]
        elif change == 2:
            data[at:at] = data[at : at + random_.randrange(1, 30)]
        else:
            data[at] ^= 1 << random_.randrange(8)
        data = data or bytearray(b" ")
    return bytes(data).replace(b"\n", b" ")


def test_the_tool_reads_damaged_events_as_spark_does(spark: SparkSession) -> None:
    random_ = random.Random(1)
    shape = EventShape(
        Field(("payload", "ts_ms")), users=(Field(("payload", "after", "customer_id")), Field(("user", "name")))
    )
    good = [
        b'{"payload":{"ts_ms":1468244384123,"after":{"customer_id":"K\xc3\xbcng","x":[1,{"y":null}]}},"z":-1.5e3}',
        b'{"user":{"name":"\\u00e9\\n"},"payload":{"ts_ms":"2016-07-11T13:39:44.5+02:00","after":null,"b":true}}',
    ]
    lines = [damage(random_, line) for line in good for _ in range(1_000)]
    frame = spark.createDataFrame([(i, bytearray(line)) for i, line in enumerate(lines)], "i INT, value BINARY")
    with changed_setting(spark, "spark.sql.ansi.enabled", "false"):  # as the job does
        parsed = parse_events(frame, shape=shape)
    rows = parsed.orderBy("i").selectExpr("unix_micros(event_time) AS time", "reject_reason AS reason").collect()
    found = [classify(Record(line), shape) for line in lines]
    differ = [
        (line, outcome.name, row.reason)
        for line, outcome, row in zip(lines, found, rows, strict=True)
        if (outcome.name, outcome.time) != (row.reason or "counted", row.time)
    ]
    assert differ == []
    assert len({outcome.name for outcome in found}) >= 6


def test_a_bot_is_left_out_before_anything_else_is_asked() -> None:
    bots = BotFlag(Field(("bot",)), "true", "false")
    lines = {
        b'{"ts":1,"uid":"a","bot":true}': "filtered",
        b'{"bot":"true"}': "filtered",
        b'{"ts":1,"uid":"a","bot":false}': "counted",
        b'{"ts":1,"uid":"a","bot":null}': "counted",
        b'{"ts":1,"uid":"a"}': "counted",
        b'{"bot":false}': "missing_ts",
        b'{"ts":1,"uid":"a","bot":"\xff"}': "invalid_utf8",
        b'{"bot":true': "not_json",
    }
    assert {line: classify(Record(line), DEFAULT_SHAPE, bots).name for line in lines} == lines


def test_the_condition_for_bots_is_one_that_the_job_takes_whatever_the_field_is_called(spark: SparkSession) -> None:
    paths = [("bot",), ("user", "is_bot"), ("true", "bot"), ("current_date", "null"), ("select", "from", "bot")]
    paths += [("a.b", "is bot"), ("a`b", "bot"), ("Bot-Flag",), ("1bot",), ("é", "bot")]
    for names in paths:
        found = read_filter(spark, BotFlag(Field(names), "true", "false").sql)
        assert [field.names for field in found.fields] == [names]


# ---------------------------------------------------------------- what it proposes

EXPECTED: dict[str, dict[str, str]] = {
    "CloudEvents": {"--time-field": "time", "--user-field": "data.userId"},
    "Tracking calls": {"--time-field": "timestamp", "--user-field": "userId,anonymousId"},
    "Web access log": {"--time-field": "time_iso8601", "--user-field": "remote_user,remote_addr"},
    "Database changes": {
        "--time-field": "payload.ts_ms",
        "--user-field": "payload.after.customer_id,payload.before.customer_id",
    },
    "Code host feed": {"--time-field": "created_at", "--user-field": "actor.id"},
}
DIMENSIONS = {
    "CloudEvents": {"type"},
    "Tracking calls": {"event", "context.app.name"},
    "Web access log": {"status"},
    "Database changes": {"payload.op", "payload.after.status"},
    "Code host feed": {"type", "repo.name"},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_it_finds_time_users_and_dimensions_of_real_shapes(shape: str) -> None:
    finding = look([event.line for event in make_events(shape)])
    assert flags_of(finding) == EXPECTED[shape]
    found = {path.field.text for path in finding.proposal.dimensions if path.field}
    assert DIMENSIONS[shape] <= found
    assert not {"id", "messageId", "time", "sentAt", "actor.login", "remote_addr"} & found


def test_it_finds_the_flags_of_the_generated_events() -> None:
    events = list(generate_events(Settings(events=1_000, size=300, malformed=0.05)))
    assert flags_of(look([event.line for event in events])) == {}
    clicks = list(generate_events(Settings(events=1_000, size=300, malformed=0.05, shape="clickstream")))
    finding = look([event.line for event in clicks])
    assert flags_of(finding) == dict(zip(FLAGS[::2], FLAGS[1::2], strict=True))
    assert count_outcomes(finding)["counted"] == sum(event.uid is not None for event in clicks)
    found = {path.field.text for path in finding.proposal.dimensions if path.field}
    assert {"context.geo.country", "context.device.type", "context.app", "event.type"} <= found


@pytest.mark.parametrize(
    ("documents", "flags"),
    [
        # A time in any form that auto reads, in one field.
        (
            lambda i: {"at": (T + i, str(T + i), T + i + 0.5, (T + i) * 1_000, "2016-07-11T13:39:44Z")[i % 5]},
            {"--time-field": "at"},
        ),
        # Formats that auto does not read, or reads as another time: 20160711133944 would be milliseconds.
        (
            lambda i: {"at": f"11/Jul/2016:15:39:{i:02d} +0200"},
            {"--time-field": "at", "--time-format": "dd/MMM/yyyy:HH:mm:ss Z"},
        ),
        (lambda i: {"at": 20160711133900 + i}, {"--time-field": "at", "--time-format": "yyyyMMddHHmmss"}),
        (
            lambda i: {"at": f"31.05.2016 15:39:{i:02d}"},
            {"--time-field": "at", "--time-format": "dd.MM.yyyy HH:mm:ss"},
        ),
        # Neither a birthday, nor the end of a session, nor a number that looks like a time.
        (
            lambda i: {
                "born": f"{1950 + i}-01-01T00:00:00Z",
                "expires_at": T + 90 * 86_400,
                "number": 10**9 + 7_919_777 * i,
                "when": T + i,
            },
            {"--time-field": "when"},
        ),
        (lambda i: {"user": {"created_at": T - 10**6 * i}, "meta": {"dt": T + i}}, {"--time-field": "meta.dt"}),
        (lambda i: {"ts": T + i, "data.time": 5}, {}),
        (lambda i: {"sent at": {"the.time": T + i}}, {"--time-field": "`sent at`.`the.time`"}),
    ],
)
def test_the_time_is_what_has_plausible_times(
    documents: Callable[[int], dict[str, Any]], flags: dict[str, str]
) -> None:
    lines = [dump({**documents(i), "uid": f"u{i % 20}"}) for i in range(50)]
    finding = look(lines)
    assert flags_of(finding) == flags
    assert count_outcomes(finding) == {"counted": 50}


@pytest.mark.parametrize(
    ("documents", "users"),
    [
        (lambda i: {"user": {"id": i % 9}, "session_id": f"s{i}"}, "user.id"),
        (lambda i: {"user_id": "" if i % 2 else f"u{i}", "device_id": f"d{i % 9}"}, "user_id,device_id"),
        (lambda i: {"domain_userid": f"d{i % 9}", "user_ip": "192.0.2.1"}, "domain_userid"),
        # A name that hardly any event has a value for, or all the same one.
        (lambda i: {"user_id": "-", "client_id": f"c{i % 9}"}, "client_id"),
        (lambda i: {"user_id": None, "sid": f"c{i % 9}"}, "sid"),
        (lambda i: {"user": {"id": f"u{i % 9}"}, "properties": {"user": {"uid": f"x{i}"}}}, "user.id"),
        # No name says so: what differs most, and comes again.
        (lambda i: {"who": f"p{i % 25}", "kind": f"k{i % 3}", "message": f"m{i}"}, "who"),
        (lambda i: {"user id": f"u{i % 9}"}, "`user id`"),
    ],
)
def test_users_are_found_by_name_and_by_how_much_they_differ(
    documents: Callable[[int], dict[str, Any]], users: str
) -> None:
    finding = look([dump({"ts": T + i, **documents(i)}) for i in range(60)])
    assert flags_of(finding) == {"--user-field": users}
    assert count_outcomes(finding) == {"counted": 60}


@pytest.mark.parametrize(
    ("flag", "where"),
    [
        ({"isBot": True}, "coalesce(isBot, 'false') <> 'true'"),
        ({"device": {"is_crawler": 1}}, "coalesce(device.is_crawler, '0') <> '1'"),
        ({"robot": "yes"}, "coalesce(robot, 'no') <> 'yes'"),
        ({"bot": "Googlebot"}, None),
        ({"bottom": True}, None),
    ],
)
def test_a_flag_for_bots_becomes_a_condition(flag: dict[str, Any], where: str | None) -> None:
    lines = [dump({"ts": T, "uid": f"u{i}", **(flag if i % 10 == 0 else {})}) for i in range(50)]
    finding = look(lines)
    assert flags_of(finding).get("--where") == where
    assert count_outcomes(finding)["filtered"] == (5 if where else 0)


def test_of_several_shapes_in_a_file_it_takes_the_users_of_the_one_whose_time_it_takes() -> None:
    events = [event for shape in SHAPES for event in make_events(shape)]
    random.Random(1).shuffle(events)
    finding = look([event.line for event in events])
    assert flags_of(finding) == EXPECTED["Tracking calls"]
    assert count_outcomes(finding)["counted"] > 150


def test_without_a_time_or_a_user_there_is_no_command() -> None:
    for document in ({"uid": "a"}, {"ts": T}, {"@timestamp": T, "uid": "a"}):  # no flag can name the last one
        done = run_inspect("-", stdin=dump(document))
        said = done.stdout.decode()
        assert done.returncode == 0
        assert "no command: it needs a time and a user" in said
        assert "spark-submit" not in said


def test_what_is_given_is_not_proposed() -> None:
    lines = [
        dump({"at": f"2016/07/11 13:39:{i:02d}", "seen": T + i, "card": 10**15 + i % 9, "user_id": f"u{i}"})
        for i in range(50)
    ]
    said = run_inspect(
        "-", "--time-field", "at", "--user-field", "card,user_id", stdin=b"\n".join(lines)
    ).stdout.decode()
    command = " ".join(said.replace("\\\n", "").split())
    assert "--time-field at --time-format 'yyyy/MM/dd HH:mm:ss' --user-field card,user_id of these" in command
    assert "of these 50 it counts 50, of 9 users; filters 0; rejects 0" in said
    said = run_inspect("-", "--time-field", "card", stdin=b"\n".join(lines)).stdout.decode()
    assert "time        card, in none of 50 a plausible time" in said
    missing = run_inspect("-", "--time-field", "nowhere", stdin=b"\n".join(lines)).stdout.decode()
    assert "of these 50 it counts 0, of 0 users; filters 0; rejects 50 (50 missing_ts)" in missing
    for flag, path in (
        ("--time-field", "@key"),
        ("--time-field", "a,b"),
        ("--user-field", "a."),
        ("--user-field", "@topic"),
    ):
        done = run_inspect("-", flag, path)
        assert done.returncode == 2
        assert f"argument {flag}: '{path}' is not the path of" in done.stderr.decode()


# ---------------------------------------------------------------- what it prints


def test_the_table_shows_paths_types_shares_values_and_examples() -> None:
    lines = [
        b'{"ts":1468244384,"uid":"a","n":{"x.y":1.5,"z":[1,{"q":2}]}}',
        b'{"ts":"1468244385","uid":"b","n":null}',
        b'{"ts":1468244386,"uid":"a","n":{"x.y":1.5}}',
        b"rubbish",
    ]
    done = run_inspect("-", stdin=b"\n".join(lines))
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode().splitlines()
    assert said[0] == "4 records: all of standard input; 3 are JSON objects"
    assert [line.split() for line in said[2:7]] == [
        ["path", "type", "share", "distinct", "examples"],
        ["ts", "integer,", "string", "100", "%", "3", "1468244384", '"1468244385"', "1468244386"],
        ["uid", "string", "100", "%", "2", '"a"', '"b"'],
        ["n.`x.y`", "number", "67", "%", "1", "1.5"],
        ["n.z", "array", "33", "%", "1", "[1,", '{"q":', "2}]"],
    ]
    assert "of these 4 it counts 3, of 2 users; filters 0; rejects 1 (1 not_json)" in said
    assert ".venv/bin/spark-submit jobs/unique_users.py --input - --output -" in said


def test_the_guide_shows_what_the_tool_prints(tmp_path: Path) -> None:
    lines = [event.line for event in make_events("Web access log")]
    (tmp_path / "requests.jsonl").write_bytes(b"\n".join(lines))
    done = run_inspect("requests.jsonl", folder=tmp_path)
    page = (ROOT / "docs" / "guides" / "your-events.md").read_text()
    assert f"\n```\n{done.stdout.decode()}```\n" in page


def test_what_would_move_a_terminals_cursor_is_escaped_and_long_values_are_cut() -> None:
    document = {"ts": T, "uid": "\u202e\ud800\x7f", "na\x1bme": 1, "long": "x" * 5_000, "@timestamp": 5, "": 1}
    done = run_inspect("-", stdin=json.dumps(document).encode())
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    assert all(character.isprintable() or character == "\n" for character in said)
    assert r'"\u202e\ud800\u007f"' in said
    assert r'["na\u001bme"]' in said
    assert '["@timestamp"]' in said
    assert "no flag can name what is in brackets" in said
    assert "x…" in said
    assert max(map(len, said.splitlines())) < 200


def test_json_says_the_same_for_machines() -> None:
    lines = [event.line for event in make_events("Tracking calls")]
    done = run_inspect("-", "--json", "--records", "100", stdin=b"\n".join(lines))
    found = json.loads(done.stdout)
    assert (found["records"], found["objects"]) == (100, 100)
    assert {path["path"]: path["types"] for path in found["paths"]}["sentAt"] == {"string": 100}
    assert found["time"]["path"] == "timestamp"
    assert [user["path"] for user in found["users"]] == ["userId", "anonymousId"]
    assert found["command"][-4:] == ["--time-field", "timestamp", "--user-field", "userId,anonymousId"]
    assert sum(found["outcomes"].values()) == 100
    assert found["outcomes"].keys() <= {"counted", *OUTCOMES}


@pytest.mark.parametrize(
    ("flags", "stdin", "status", "says"),
    [
        (["-"], b"", 1, "standard input is empty"),
        (["-"], b"\n\n", 1, "no JSON object in 2 records (all of standard input): 2 not_json"),
        (["-"], b"\xff\xfe\n[1]\nhello\n7\n", 1, "4 records (all of standard input): 2 not_an_object, 1 invalid_utf8"),
        (["nowhere.jsonl"], b"", 1, "nowhere.jsonl can't be read: No such file or directory"),
        (["."], b"", 1, ". can't be read: Is a directory"),
        (["-", "--records", "0"], b"", 2, "--records: '0' is not a whole number from 1"),
        (["--bootstrap-servers", "127.0.0.1:1"], b"", 1, "Kafka at 127.0.0.1:1 does not answer"),
    ],
)
def test_where_there_is_nothing_to_look_at_one_line_says_so(
    flags: list[str], stdin: bytes, status: int, says: str
) -> None:
    done = run_inspect(*flags, stdin=stdin)
    assert done.returncode == status
    assert done.stdout == b""
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith("inspect_topic")
    assert says in last
    assert status == 2 or len(done.stderr.splitlines()) == 1


def test_a_file_that_is_cut_off_and_one_that_is_packed(tmp_path: Path) -> None:
    packed = gzip.compress(b"\n".join(event.line for event in make_events("CloudEvents")))
    (tmp_path / "whole.jsonl.gz").write_bytes(packed)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[:-2_000])
    whole, cut = (run_inspect(str(tmp_path / name)) for name in ("whole.jsonl.gz", "cut.jsonl.gz"))
    assert b"200 are JSON objects" in whole.stdout
    assert cut.returncode == 1
    assert b"cut.jsonl.gz can't be read: Compressed file ended" in cut.stderr
    assert len(cut.stderr.splitlines()) == 1


# ---------------------------------------------------------------- the job does what it says


def split_as_a_shell(command: str) -> list[str]:
    """The words of a command, as a shell splits it."""
    printed = subprocess.run(["sh", "-c", f"printf '%s\\0' {command}"], capture_output=True, check=True)
    return printed.stdout.decode().split("\0")[:-1]


def make_awkward_lines() -> list[bytes]:
    """Names that a shell and SQL would take for something else, and a pattern with blanks and quotes."""
    zone = ("+0000", "+0200")
    return [
        dump(
            {
                "the $time": f"11/Jul/2016:{13 + i % 2 * 2}:39:{i % 60:02d} {zone[i % 2]}",
                "user": {"user `id`": f"u{i % 9}" if i % 7 else ""},
                "it's": {"is_bot": i % 5 == 0},
            }
        )
        for i in range(100)
    ]


def list_lines(name: str) -> list[bytes]:
    if name == "challenge" or name == "clickstream":
        return [event.line for event in generate_events(Settings(events=600, size=400, malformed=0.2, shape=name))]
    if name == "awkward":
        return make_awkward_lines()
    return [event.line for event in make_events(name)]


@pytest.mark.parametrize("name", ["challenge", "clickstream", "awkward", *SHAPES])
def test_the_printed_command_counts_and_rejects_what_the_tool_says(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = tmp_path / 'it\'s "one" $file.jsonl'
    path.write_bytes(b"\n".join(list_lines(name)) + b"\n")
    done = run_inspect(str(path))
    said = done.stdout.decode()
    command = said[said.index(".venv/bin/spark-submit") :].split("\n\n")[0]
    outcomes = json.loads(run_inspect(str(path), "--json").stdout)["outcomes"]
    words = split_as_a_shell(command)
    assert words[:2] == [".venv/bin/spark-submit", "jobs/unique_users.py"]
    breakdowns = said.partition("for breakdowns add some of: ")[2].partition("\n")[0]
    if breakdowns:
        proposed = count.parse_settings(split_as_a_shell(breakdowns)).events.shape.breakdowns
        assert len(proposed) == breakdowns.count("--by ")
    flags = [*words[2:], "--counter", "exact", "--summary", str(tmp_path / "summary")]
    capsys.readouterr()
    count.run(spark, count.parse_settings(flags), StopSignal())
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    summary = json.loads((tmp_path / "summary").read_text())
    counted, filtered = outcomes.pop("counted"), outcomes.pop("filtered", 0)
    assert (summary["counted"], summary.get("filtered", 0)) == (counted, filtered)
    assert summary["rejected_by_reason"] == outcomes
    assert sum(record["events"] for record in records) == counted
    assert counted > summary["read"] / 3
    rejected = sum(outcomes.values())
    assert f"it counts {counted:,}, of " in said
    assert f"; filters {filtered:,}; rejects {rejected:,}" in said


# ---------------------------------------------------------------- topics


def produce(broker: KafkaBroker, topic: str, records: Sequence[tuple[int, bytes | None, bytes | None, int]]) -> None:
    """Writes `(partition, key, value, arrival time in milliseconds)`."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for partition, key, value, arrived in records:
        producer.produce(topic, value, key, partition, timestamp=arrived)
    assert producer.flush(60) == 0


def inspect_topic(broker: KafkaBroker, topic: str, *flags: str) -> dict[str, Any]:
    done = run_inspect("--bootstrap-servers", broker.bootstrap_servers, "--topic", topic, "--json", *flags)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_reads_the_ends_of_all_partitions(broker: KafkaBroker, new_topic: Callable[..., str]) -> None:
    topic = new_topic("events", 3)
    # Partition 2 is empty; partition 1 is short.
    sizes = {0: 200, 1: 5}
    events = [
        (partition, None, dump({"ts": T + i, "uid": f"u{i}", "partition": partition, "i": i}), (T + i) * 1_000)
        for partition, size in sizes.items()
        for i in range(size)
    ]
    produce(broker, topic, events)
    latest, earliest, few, all_of_it = (
        inspect_topic(broker, topic, *flags)
        for flags in (["--records", "25"], ["--records", "25", "--earliest"], ["--records", "1"], [])
    )
    assert (latest["records"], earliest["records"], few["records"], all_of_it["records"]) == (25, 25, 1, 205)
    assert latest["origin"] == f"the latest of topic {topic}, 2 of 3 partitions"
    assert (latest["time"]["first"], latest["time"]["last"]) == ("2016-07-11T13:39:44Z", "2016-07-11T13:43:03Z")
    assert (earliest["time"]["first"], earliest["time"]["last"]) == ("2016-07-11T13:39:44Z", "2016-07-11T13:40:03Z")


def test_a_sample_is_shared_out_over_partitions() -> None:
    assert share_out(10, {0: 100, 1: 100}) == {0: 5, 1: 5}
    assert share_out(10, {0: 2, 1: 100, 2: 0}) == {0: 2, 1: 8}
    assert share_out(10, {0: 3, 1: 3}) == {0: 3, 1: 3}
    assert sum(share_out(1_000, dict.fromkeys(range(7), 10**6)).values()) == 1_000
    assert share_out(1, {0: 5, 1: 5}) == {0: 1}


def test_a_topic_that_is_missing_or_empty_gets_a_line(broker: KafkaBroker, new_topic: Callable[..., str]) -> None:
    for topic, says in {
        "nowhere": f"topic 'nowhere' does not exist on {broker.bootstrap_servers}",
        (empty := new_topic("empty", 2)): f"topic '{empty}' is empty: no records to look at",
    }.items():
        done = run_inspect("--bootstrap-servers", broker.bootstrap_servers, "--topic", topic)
        assert (done.returncode, done.stderr.decode()) == (1, f"inspect_topic: error: {says}\n")


def test_a_topic_without_times_and_users_in_its_events_is_counted_by_arrival_and_key(
    broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path
) -> None:
    topic, out = new_topic("events", 2), new_topic("out")
    records: list[tuple[int, bytes | None, bytes | None, int]] = [
        (i % 2, f"k{i % 9}".encode(), dump({"temperature": i % 4}), (T + i) * 1_000) for i in range(50)
    ]
    records += [(0, b"k1", None, T * 1_000), (1, None, b"{}", T * 1_000), (1, b"\xff", b"{}", T * 1_000)]
    produce(broker, topic, records)
    found = inspect_topic(broker, topic)
    assert found["outcomes"] == {"counted": 50, "tombstone": 1, "missing_uid": 2}
    flags = found["command"][2:]
    assert flags[-4:] == ["--time-format", "kafka", "--user-field", "@key"]
    assert flags[flags.index("--output-topic") + 1] == "out"
    flags[flags.index("--output-topic") + 1] = out
    flags[flags.index("--checkpoint-location") + 1] = str(tmp_path / "checkpoint")
    job.run(*flags, "--trigger", "available-now", "--summary", str(tmp_path / "summary"))
    summary = json.loads((tmp_path / "summary").read_text())
    assert summary["rejected_by_reason"] == {"tombstone": 1, "missing_uid": 2}
    assert summary["counted"] == 50


def test_events_ahead_of_their_arrival_are_told_apart(broker: KafkaBroker, new_topic: Callable[..., str]) -> None:
    topic = new_topic("events")
    produce(
        broker, topic, [(0, None, dump({"ts": T + i, "uid": f"u{i}"}), T * 1_000 + 2) for i in range(20)]
    )  # 6 to 19 seconds ahead are too many
    done = run_inspect("--bootstrap-servers", broker.bootstrap_servers, "--topic", topic)
    said = done.stdout.decode()
    assert "it counts 6, of 6 users; filters 0; rejects 14 (14 ts_in_future)" in said
    assert "ts_in_future: more than 5 s ahead of arrival; --max-future allows more" in said


def test_a_command_leaves_out_what_is_so_by_default() -> None:
    lines = [dump({"ts": T + i, "uid": f"u{i}"}) for i in range(20)]
    profile = profile_records([Record(line) for line in lines])
    proposal = propose(profile, T)
    assert make_command(proposal, FILE)[2:] == ["--input", "events.jsonl", "--output", "-"]
    assert format_command(make_command(proposal, FILE._replace(path=None))) == (
        ".venv/bin/spark-submit jobs/unique_users.py --bootstrap-servers localhost:9092 --input-topic in "
        "--output-topic out \\\n    --checkpoint-location checkpoint/in"
    )
    shape = proposal.shape
    assert shape is not None
    assert replace(shape, where=None) == DEFAULT_SHAPE
