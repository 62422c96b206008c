"""The tools, as their users call them."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from load_events import load_lines
from show_counts import Exact, read_exact, read_results, summarize_errors
from support import utc

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_tool(name: str, *flags: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, str(TOOLS / name), *flags], input=stdin, capture_output=True, check=False)


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    written = []
    for name, seed in (("a.jsonl.gz", "1"), ("b.jsonl.gz", "1"), ("c.jsonl.gz", "2")):
        done = run_tool("generate_events.py", "--events", "500", "--seed", seed, "--output", str(tmp_path / name))
        assert done.returncode == 0
        written.append((tmp_path / name).read_bytes())
    first, second, other = written
    assert first == second
    assert gzip.decompress(first) != gzip.decompress(other)


def test_the_default_shape_is_the_same_bytes_in_every_release(tmp_path: Path) -> None:
    exact = tmp_path / "exact.jsonl"
    flags = ["--events", "2000", "--malformed", "0.05", "--late", "0.01", "--exact", str(exact)]
    written = run_tool("generate_events.py", *flags).stdout
    found = [hashlib.sha256(data).hexdigest() for data in (written, exact.read_bytes())]
    assert found == [
        "5b50d1440c257e6db1d0ada5c9fbb31cd2f14ef7b1e3330aab6005e2a7250cbf",
        "be10b95a4e6669277174b928738aae88752974de6fd2b68a4648c933550eaa78",
    ]


def test_events_are_json_of_about_the_asked_size_with_both_forms_of_ts() -> None:
    events = [json.loads(event.line) for event in generate_events(Settings(events=400))]
    sizes = [len(event.line) for event in generate_events(Settings(events=400))]
    assert 1_950 < sum(sizes) / len(sizes) < 2_050
    assert {type(event["ts"]) for event in events} == {int, str}
    assert all(event["data"]["uid"] != event["uid"] for event in events)
    # Root fields come first in some, last in others.
    assert {list(event)[-1] for event in events} == {"ts", "uid"}


def test_the_exact_counts_are_those_of_the_events(tmp_path: Path) -> None:
    exact = tmp_path / "exact.jsonl"
    flags = [
        "--events",
        "3000",
        "--rate",
        "20",
        "--users",
        "50",
        "--size",
        "200",
        "--late",
        "0.05",
        "--exact",
        str(exact),
    ]
    done = run_tool("generate_events.py", *flags, "--exact", str(exact))
    events = [json.loads(line) for line in done.stdout.splitlines()]
    rows = [json.loads(line) for line in exact.read_text().splitlines()]
    assert len(events) == 3000
    assert sum(row["events"] + row["late_events"] for row in rows) == 3000
    assert sum(row["late_events"] for row in rows) > 0
    # The first minute with its stragglers; what is generated into it 300 s later is late and no part of it.
    first = [event for event in events[:1300] if int(event["ts"]) // 60 == 1468244340 // 60]
    assert (rows[-3]["window_start"], rows[-3]["events"]) == ("2016-07-11T13:39:00Z", len(first))
    assert rows[-3]["unique_users"] == len({event["uid"] for event in first})


def test_malformed_events_are_made_on_demand() -> None:
    events = list(generate_events(Settings(events=2000, malformed=0.5, size=100)))
    malformed = [event.line for event in events if event.ts is None]
    assert 900 < len(malformed) < 1100
    assert len(set(malformed)) > 500


def test_the_exact_counts_of_a_clickstream_are_those_of_its_events_and_of_their_groups(tmp_path: Path) -> None:
    exact = tmp_path / "exact.jsonl"
    flags = ["--shape", "clickstream", "--events", "4000", "--rate", "30", "--users", "300", "--size", "400"]
    done = run_tool("generate_events.py", *flags, "--malformed", "0.05", "--exact", str(exact))
    assert done.returncode == 0, done.stderr
    users: dict[tuple[str, str], list[str]] = defaultdict(list)
    forms: Counter[str] = Counter()
    for line in done.stdout.splitlines():
        try:
            event = json.loads(line)
            sent, context = event["event"]["sentAt"], event["context"]
        except (ValueError, KeyError, TypeError):
            forms["malformed"] += 1
            continue
        if context.get("bot"):
            forms["bot"] += 1
            continue
        user = event["user"]["id"] or event["anonymousId"]
        forms["known" if event["user"]["id"] else "anonymous"] += 1
        if isinstance(sent, str) and not sent.isdigit():
            forms[f"offset {sent[-6:]}"] += 1
            time = datetime.fromisoformat(sent).timestamp()
        else:
            forms[type(sent).__name__] += 1
            time = float(sent) / (1 if isinstance(sent, float) else 1_000)
        country, device = context["geo"].get("country"), context["device"]["type"]
        for group in (
            None,
            {"context.geo.country": country},
            {"context.device.type": device},
            {"context.app": context["app"], "context.geo.country": country},
        ):
            users[utc(int(time // 60) * 60), json.dumps(group)].append(user)
    assert all(forms[form] > 100 for form in ("malformed", "bot", "known", "anonymous", "int", "str", "float"))
    assert all(forms[f"offset {offset}"] > 100 for offset in ("+00:00", "+02:00", "-07:00", "+05:30"))
    rows = [json.loads(line) for line in exact.read_text().splitlines()]
    assert {
        (row["window_start"], json.dumps(row.get("group"))): (row["events"], row["unique_users"]) for row in rows
    } == {key: (len(found), len(set(found))) for key, found in users.items()}
    # The totals come first, so that whoever reads totals only may stop; groups of one breakdown add up to the events.
    assert ["group" in row for row in rows] == sorted("group" in row for row in rows)
    by_country = [row for row in rows if list(row.get("group", ())) == ["context.geo.country"]]
    assert len({row["group"]["context.geo.country"] for row in by_country}) == 31
    assert sum(row["events"] for row in by_country) == sum(row["events"] for row in rows if "group" not in row)
    assert len(read_exact(exact)) == len(rows)


def test_the_image_of_the_generator_holds_all_that_its_tools_import(tmp_path: Path) -> None:
    dockerfile = (TOOLS.parent / "docker" / "Dockerfile").read_text()
    copied = re.search(r"^COPY (tools/.*generate_events.py .+) tools/$", dockerfile.replace("\\\n", ""), re.MULTILINE)
    assert copied is not None
    for name in copied[1].split():
        shutil.copy(TOOLS.parent / name, tmp_path)
    for name in ("generate_events.py", "load_events.py"):
        done = subprocess.run([sys.executable, str(tmp_path / name), "--help"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()


def test_a_wrong_flag_gets_a_clear_error() -> None:
    done = run_tool("generate_events.py", "--late", "2")
    assert done.returncode == 2
    assert b"--late: '2' is not a share from 0 to 1" in done.stderr
    assert b"Traceback" not in done.stderr


def test_loading_from_standard_input_keeps_lines_and_spreads_partitions(
    broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    topic = new_topic("lines", 2)
    lines = [b'{"unique_users":%d}' % number for number in range(5)]
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", topic]
    done = run_tool("load_events.py", *flags, stdin=b"\n".join(lines))
    assert done.returncode == 0, done.stderr
    found = [record["unique_users"] for record in read_results(broker.bootstrap_servers, topic)]
    assert sorted(found) == [0, 1, 2, 3, 4]


def test_loading_into_a_topic_that_is_not_there_says_so(broker: KafkaBroker) -> None:
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", "nowhere"]
    done = run_tool("load_events.py", *flags, stdin=b"{}\n")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "load_events: error: topic 'nowhere' does not exist: create it, or use --create-topic PARTITIONS\n"
    )


def test_the_table_shows_counts_beside_exact_ones(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic("results")
    result = {"window_start": "2016-07-11T13:39:00Z", "unique_users": 98, "events": 7, "relative_error": 0.02}
    # A running count, as an earlier release wrote it; a repair; a correction that came after it.
    lines = [
        json.dumps({**result, "unique_users": 50, "final": False}),
        json.dumps({**result, "final": True, "revision": 1_800_000_000}),
        json.dumps({**result, "unique_users": 60, "final": True, "revision": 1}),
    ]
    load_lines([line.encode() for line in lines], broker.bootstrap_servers, topic)
    exact = tmp_path / "exact.jsonl"
    row = {"window_start": "2016-07-11T13:39:00Z", "unique_users": 100, "events": 7}
    exact.write_text(json.dumps(row) + "\n")
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", topic, "--exact", str(exact)]
    done = run_tool("show_counts.py", *flags)
    said = done.stdout.decode().splitlines()
    assert done.returncode == 0
    assert said[1].split()[:7] == ["2016-07-11T13:39:00Z", "98", "100", "-2.00%", "2.00%", "7", "final"]
    assert said[2].startswith("1 windows of 1 shown; largest error 1.00 standard errors (bound: 3); 0 windows")
    # The same counts against an exact answer that they miss: status 1.
    exact.write_text(json.dumps({**row, "unique_users": 200}) + "\n")
    assert run_tool("show_counts.py", *flags).returncode == 1


def test_groups_are_shown_below_the_windows_and_compared_with_exact_ones(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = new_topic("results")
    window = {"window_start": "2016-07-11T13:39:00Z"}
    base = {**window, "relative_error": 0.01, "final": True, "revision": 0}
    swiss, none = {"group": {"geo.country": "CH"}}, {"group": {"geo.country": None}}
    results = [
        {**base, "unique_users": 90, "events": 120},
        {**base, "unique_users": 49, "events": 70, **swiss},
        {**base, "unique_users": 40, "events": 40, **none},
        # A correction of the same group, and what has no name: no group that has no country.
        {**base, "unique_users": 50, "events": 70, **swiss, "revision": 1},
        {**base, "unique_users": 8, "events": 10, **none, "other": True},
    ]
    load_lines([json.dumps(result).encode() for result in results], broker.bootstrap_servers, topic)
    exact = tmp_path / "exact.jsonl"
    rows = [
        {**window, "unique_users": 90, "events": 120},
        {**window, "unique_users": 50, "events": 70, **swiss},
        {**window, "unique_users": 40, "events": 40, **none},
        {**window, "unique_users": 8, "events": 10, **none, "other": True},
    ]
    exact.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ["--bootstrap-servers", broker.bootstrap_servers, "--topic", topic, "--exact", str(exact)]
    done = run_tool("show_counts.py", *flags, "--groups", "2")
    said = done.stdout.decode().splitlines()
    assert done.returncode == 0, said
    assert said[1].split()[:3] == ["2016-07-11T13:39:00Z", "90", "90"]
    assert said[2].startswith("1 windows of 1 shown; largest error 0.00 standard errors")
    assert said[4] == (
        "3 groups by geo.country: 120 events, 98 users added up; the window has 120 and 90, who may each be in several "
        "groups"
    )
    assert [[*line.split()[1:3], line.split("final")[1].strip()] for line in said[5:7]] == [
        ["50", "50", "geo.country=CH"],
        ["40", "40", "geo.country=-"],
    ]
    assert said[7].startswith("3 groups of 3; 100.0% within 3 standard errors")
    # A group that is missing is no agreement.
    with exact.open("a") as file:
        file.write(json.dumps({**rows[1], "group": {"geo.country": "DE"}}) + "\n")
    assert run_tool("show_counts.py", *flags).returncode == 1


def test_a_wrong_number_of_events_is_no_agreement() -> None:
    result = {"window_start": "x", "unique_users": 10, "events": 9, "relative_error": 0.02}
    assert summarize_errors([result], {"x": Exact(10, 10)})[1] is False
    assert summarize_errors([result], {"x": Exact(10, 9)})[1] is True
