"""Groups in the tables: united by themselves, asked for by name, and left out of totals."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from datasketches import hll_sketch, tgt_hll_type
from load_events import load_lines
from support import read_messages, utc
from uniques.apps import rollup
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.usefixtures("in_utc")

START = 1468244340  # 2016-07-11T13:39:00Z
Row = tuple[int, "dict[str, Any] | None", bool, list[str]]  # minute, group, other, users


def make_record(ts: int, group: dict[str, Any] | None, other: bool, users: list[str], revision: int = 0) -> bytes:
    """A record as unique_users.py --sketch --by writes it, made without it."""
    sketch = hll_sketch(12, tgt_hll_type.HLL_8)
    for user in users:
        sketch.update(user)
    value = {
        "window_start": utc(ts),
        "window_end": utc(ts + 60),
        "unique_users": len(set(users)),
        "events": len(users),
        "final": True,
        "revision": revision,
        "sketch": base64.b64encode(bytes(sketch.serialize_compact())).decode(),
        **({} if group is None else {"group": group}),
        **({"other": True} if other else {}),
    }
    return json.dumps(value).encode()


def make_rows() -> list[Row]:
    rows: list[Row] = []
    for minute in range(90):
        ts = START + 60 * minute
        parts: list[tuple[dict[str, Any], bool, list[str]]] = [
            ({"country": "CH"}, False, [f"u{(minute * 7 + n) % 300}" for n in range(9)]),
            ({"country": 'D"É'}, False, [f"u{(minute * 11 + n) % 200}" for n in range(5)]),
            ({"country": None}, False, [f"u{minute % 50}"]),
            ({"country": None}, True, [f"u{400 + minute % 70}", f"u{minute}"]),
        ]
        rows += [(ts, group, other, users) for group, other, users in parts]
        rows.append((ts, None, False, [user for *_, users in parts for user in users]))
    return rows


def count(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """Key of an hour or a day -> (unique users, events), by sets."""
    users: dict[str, list[str]] = defaultdict(list)
    for ts, group, other, names in rows:
        text = "" if group is None else f" {json.dumps(group, separators=(',', ':'), ensure_ascii=False)}"
        text += " other" if other else ""
        users[f"hour {utc(ts // 3_600 * 3_600)}{text}"] += names
        users[f"day {utc(ts // 86_400 * 86_400)}{text}"] += names
    return {key: (len(set(of)), len(of)) for key, of in users.items()}


def test_groups_are_united_apart_from_the_total_and_asked_for_by_name(
    spark: SparkSession,
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, sink = new_topic("out", partitions=2), new_topic("rollups")
    tables = ("--minutes-table", str(tmp_path / "minutes"), "--rollups-table", str(tmp_path / "rollups"))

    def run(*flags: str) -> None:
        own = [
            "--bootstrap-servers",
            broker.bootstrap_servers,
            "--input-topic",
            source,
            "--rollup-topic",
            sink,
            *tables,
        ]
        own += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
        rollup.run(spark, rollup.parse_settings([*own, *flags]), StopSignal())

    def ask(*flags: str) -> dict[str, Any]:
        capsys.readouterr()
        run("--between", utc(START), utc(START + 5_400), *flags)
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    rows = make_rows()
    load_lines([make_record(*row) for row in rows[: len(rows) // 2]], broker.bootstrap_servers, source)
    run()
    # The other half, one group corrected, and all of it once more.
    fixed = (START, {"country": "CH"}, False, ["x", "y", "z"])
    again = [make_record(*fixed, revision=1), *(make_record(*row) for row in rows)]
    load_lines(again, broker.bootstrap_servers, source)
    run()
    rows = [fixed if row[:3] == fixed[:3] else row for row in rows]
    exact = count(rows)
    last = {(message.key() or b"").decode(): message.value() or b"" for message in read_messages(broker, sink)}
    found = {key: json.loads(value) for key, value in last.items() if key.startswith(("hour ", "day "))}
    assert found.keys() == exact.keys()
    for key, value in found.items():
        assert value["events"] == exact[key][1]
        assert abs(value["unique_users"] / exact[key][0] - 1) <= 3 * value["relative_error"]
        assert (" {" in key) == ("group" in value)
    assert found['day 2016-07-11T00:00:00Z {"country":null} other']["other"] is True

    for flags, group, other in [
        ((), None, False),
        (("--group", "country=CH"), {"country": "CH"}, False),
        (("--group", 'country=D"É'), {"country": 'D"É'}, False),
        (("--group", "country"), {"country": None}, False),
        (("--group", "country", "--other"), {"country": None}, True),
    ]:
        users = [user for _, of, is_other, names in rows if (of, is_other) == (group, other) for user in names]
        answer = ask(*flags)
        assert answer["events"] == len(users)
        assert abs(answer["unique_users"] / len(set(users)) - 1) <= 3 * answer["relative_error"]
    assert ask("--group", "country=nowhere")["unique_users"] == 0
    run("--show", "day", "--group", "country=CH")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    key = 'day 2016-07-11T00:00:00Z {"country":"CH"}'
    assert f"{exact[key][1]:,}" in lines[1]
    run("--rebuild")
    assert ask("--group", "country=CH")["events"] == sum(len(row[3]) for row in rows if row[1] == {"country": "CH"})
