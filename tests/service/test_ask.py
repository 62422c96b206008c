"""The command line: the same answers without a server, and one line for what is wrong."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from test_questions import grouped
from unique_users_service import ask, server

if TYPE_CHECKING:
    from pathlib import Path

    from service_tables import Tables

FIRST = 1468242000  # 2016-07-11T13:00:00Z


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return grouped(tmp_path_factory.mktemp("ask"))


def run(tables: Tables, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    minutes, rollups = tables.places
    ask.main([*args, "--minutes-table", minutes, "--rollups-table", rollups])
    return capsys.readouterr().out


def run_json(tables: Tables, capsys: pytest.CaptureFixture[str], *args: str) -> Any:
    return json.loads(run(tables, capsys, *args, "--output", "json"))


def test_a_range_in_a_zone(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    answer = run_json(tables, capsys, "2016-07-11T15:10", "2016-07-11T16:25", "--timezone", "Europe/Zurich")
    _, users, events = tables.expect(FIRST + 600, FIRST + 5_100)
    assert answer["events"] == events
    assert answer["low"] <= len(users) <= answer["high"]
    table = run(tables, capsys, "2016-07-11T13:10", "2016-07-11T14:25")
    assert f"{answer['unique_users']:,}" in table.splitlines()[1]


def test_other_questions(tables: Tables, capsys: pytest.CaptureFixture[str]) -> None:
    day = ("2016-07-11", "2016-07-12")
    series = run_json(tables, capsys, *day, "--series", "hour")
    assert [point["events"] for point in series["points"][13:15]] == [
        tables.expect(FIRST + 3_600 * hour, FIRST + 3_600 * (hour + 1))[2] for hour in range(2)
    ]
    assert len(run_json(tables, capsys, *day, "--rolling")["points"]) == 1
    assert run_json(tables, capsys, *day, "--rolling", "1,3")["days"] == [1, 3]
    overlap = run_json(tables, capsys, *day, "--and", *day)
    assert overlap["both"]["unique_users"] == overlap["either"]["unique_users"]
    assert len(run_json(tables, capsys, *day, "--retention", "day", "--periods", "3")["cohorts"]) == 3
    assert len(run_json(tables, capsys, *day, "--breakdown", "country")["parts"]) == 4
    rows = list(csv.DictReader(io.StringIO(run(tables, capsys, *day, "--breakdown", "country", "--output", "csv"))))
    assert [row["line"] for row in rows] == ["part"] * 4 + ["union", "total", "counted_more_than_once"]
    assert run_json(tables, capsys, *day, "--group", "country=CH")["group"] == {"country": "CH"}


@pytest.mark.parametrize(
    ("args", "says", "status"),
    [
        (["2016-07-12", "2016-07-11"], "is not after from", 2),
        (["soon", "2016-07-11"], "from 'soon' is no time", 2),
        (["2016-07-11", "2016-07-12", "--timezone", "Mars"], "is no time zone", 2),
        (["2016-07-11", "2016-07-12", "--group", "country=XX"], "no users of that group", 2),
        (["2016-07-11", "2016-07-12", "--series", "eon"], "argument --series: invalid choice: 'eon'", 2),
        (["2016-07-11", "2016-07-12", "--minutes-table", "./no", "--rollups-table", "./no"], "no Delta table", 1),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tables: Tables, capsys: pytest.CaptureFixture[str], args: list[str], says: str, status: int
) -> None:
    minutes, rollups = tables.places
    places = [] if "--minutes-table" in args else ["--minutes-table", minutes, "--rollups-table", rollups]
    with pytest.raises(SystemExit) as ended:
        ask.main([*args, *places])
    assert ended.value.code == status
    said = capsys.readouterr().err
    assert said.startswith("unique-users-ask: error: ")
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--port", "0"], "argument --port: '0' is not allowed: give a port from 1 to 65535"),
        (["--memory", "1"], "argument --memory: '1' is not allowed: give a whole number from 16"),
        (["--token-file", "no-such"], "argument --token-file: 'no-such': can't be read (No such file or directory)"),
        (["--job-metrics", "9108"], "argument --job-metrics: '9108' is not allowed: give an address such as"),
        (["--allow-origin", "*"], "argument --allow-origin: '*' is not allowed: give an origin such as"),
        (["--refresh-interval", "soon"], "argument --refresh-interval: 'soon' is not allowed"),
    ],
)
def test_a_wrong_flag_of_the_service_is_said_in_one_line(
    capsys: pytest.CaptureFixture[str], args: list[str], says: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        server.main(args)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_wrong_kafka_property_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "client.properties").write_text("bootstrap.servers=localhost:1\nno.such.property=1\n")
    with pytest.raises(SystemExit) as ended:
        server.main(["--kafka-config", str(tmp_path / "client.properties")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "argument --kafka-config:" in said
    assert "no.such.property" in said
    assert said.count("\n") == 1
