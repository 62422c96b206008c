"""The calendar, and what sketches of windows become."""

from __future__ import annotations

import base64
import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from datasketches import hll_sketch, tgt_hll_type
from pyspark.sql import functions as F
from uniques.core.calendar import Calendar
from uniques.core.counts import Counter, count_unique_users, make_records
from uniques.core.rollups import make_rollup_records, parse_minutes, select_minutes, select_range, unite_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import DataFrame, SparkSession

pytestmark = pytest.mark.usefixtures("in_utc")


BOUNDS = [
    # (zone, week start, period, an instant, start, end, name)
    ("UTC", "monday", "hour", "2016-07-11T13:39:59Z", "2016-07-11T13:00Z", "2016-07-11T14:00Z", "2016-07-11T13"),
    ("UTC", "monday", "day", "2016-02-29T23:59:59Z", "2016-02-29T00:00Z", "2016-03-01T00:00Z", "2016-02-29"),
    ("UTC", "monday", "month", "2016-02-29T23:59:59Z", "2016-02-01T00:00Z", "2016-03-01T00:00Z", "2016-02"),
    ("UTC", "monday", "month", "2015-02-28T12:00:00Z", "2015-02-01T00:00Z", "2015-03-01T00:00Z", "2015-02"),
    ("UTC", "monday", "year", "2016-12-31T23:59:59Z", "2016-01-01T00:00Z", "2017-01-01T00:00Z", "2016"),
    ("UTC", "monday", "year", "2017-01-01T00:00:00Z", "2017-01-01T00:00Z", "2018-01-01T00:00Z", "2017"),
    # ISO week 53, and the days of a year that belong to a week of its neighbour.
    ("UTC", "monday", "week", "2021-01-03T23:59:59Z", "2020-12-28T00:00Z", "2021-01-04T00:00Z", "2020-W53"),
    ("UTC", "monday", "week", "2021-01-04T00:00:00Z", "2021-01-04T00:00Z", "2021-01-11T00:00Z", "2021-W01"),
    ("UTC", "monday", "week", "2016-01-03T12:00:00Z", "2015-12-28T00:00Z", "2016-01-04T00:00Z", "2015-W53"),
    ("UTC", "monday", "week", "2018-12-31T00:00:00Z", "2018-12-31T00:00Z", "2019-01-07T00:00Z", "2019-W01"),
    ("UTC", "sunday", "week", "2021-01-03T00:00:00Z", "2021-01-03T00:00Z", "2021-01-10T00:00Z", "2021-01-03"),
    ("UTC", "saturday", "week", "2021-01-01T00:00:00Z", "2020-12-26T00:00Z", "2021-01-02T00:00Z", "2020-12-26"),
    # Europe/Zurich in 2016: 23 hours on 27 March, 25 on 30 October.
    ("Europe/Zurich", "monday", "day", "2016-03-27T12:00:00Z", "2016-03-26T23:00Z", "2016-03-27T22:00Z", "2016-03-27"),
    ("Europe/Zurich", "monday", "day", "2016-10-30T22:59:59Z", "2016-10-29T22:00Z", "2016-10-30T23:00Z", "2016-10-30"),
    ("Europe/Zurich", "monday", "week", "2016-10-30T22:59:59Z", "2016-10-23T22:00Z", "2016-10-30T23:00Z", "2016-W43"),
    ("Europe/Zurich", "monday", "month", "2016-03-31T21:59:59Z", "2016-02-29T23:00Z", "2016-03-31T22:00Z", "2016-03"),
    ("Europe/Zurich", "monday", "year", "2016-12-31T23:00:00Z", "2016-12-31T23:00Z", "2017-12-31T23:00Z", "2017"),
    # Two o'clock twice: two hours.
    (
        "Europe/Zurich",
        "monday",
        "hour",
        "2016-10-30T00:59:59Z",
        "2016-10-30T00:00Z",
        "2016-10-30T01:00Z",
        "2016-10-30T02",
    ),
    (
        "Europe/Zurich",
        "monday",
        "hour",
        "2016-10-30T01:00:00Z",
        "2016-10-30T01:00Z",
        "2016-10-30T02:00Z",
        "2016-10-30T02",
    ),
    (
        "Asia/Kolkata",
        "monday",
        "hour",
        "2016-07-11T13:39:00Z",
        "2016-07-11T13:30Z",
        "2016-07-11T14:30Z",
        "2016-07-11T19",
    ),
    ("Asia/Kolkata", "monday", "day", "2016-07-11T18:29:59Z", "2016-07-10T18:30Z", "2016-07-11T18:30Z", "2016-07-11"),
    # Clocks that skip midnight, and a change of half an hour.
    (
        "America/Sao_Paulo",
        "monday",
        "day",
        "2017-10-15T12:00:00Z",
        "2017-10-15T03:00Z",
        "2017-10-16T02:00Z",
        "2017-10-15",
    ),
    (
        "Australia/Lord_Howe",
        "monday",
        "hour",
        "2016-04-02T14:59:00Z",
        "2016-04-02T14:00Z",
        "2016-04-02T15:00Z",
        "2016-04-03T01",
    ),
    (
        "Australia/Lord_Howe",
        "monday",
        "hour",
        "2016-04-02T15:10:00Z",
        "2016-04-02T15:00Z",
        "2016-04-02T15:30Z",
        "2016-04-03T01",
    ),
]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def find_bounds(spark: SparkSession, calendar: Calendar, period: str, times: list[int]) -> list[tuple[int, int, str]]:
    frame = spark.createDataFrame([(index, time) for index, time in enumerate(times)], "i INT, s BIGINT")
    bounds = calendar.bounds(F.timestamp_seconds("s"), period)
    named = calendar.name(bounds.start, period)
    rows = frame.select("i", F.unix_seconds(bounds.start), F.unix_seconds(bounds.end), named).collect()
    return [(row[1], row[2], row[3]) for row in sorted(rows)]


def test_periods_begin_and_end_by_the_calendar(spark: SparkSession) -> None:
    found: dict[tuple[str, ...], tuple[int, int, str]] = {}
    for calendar in sorted({row[:3] for row in BOUNDS}):  # a job of Spark's for each, not for each row
        zone, week_start, period = calendar
        times = [row[3] for row in BOUNDS if row[:3] == calendar]
        bounds = find_bounds(spark, Calendar(zone, week_start), period, list(map(seconds, times)))
        found |= {(*calendar, time): bound for time, bound in zip(times, bounds, strict=True)}
    assert found == {row[:4]: (seconds(row[4]), seconds(row[5]), row[6]) for row in BOUNDS}


@pytest.mark.parametrize("zone", ["Europe/Zurich", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"])
def test_days_agree_with_pythons_calendar(spark: SparkSession, zone: str) -> None:
    # Each hour of the years with the changes: 2011, when Apia skipped a day.
    times = [seconds("2011-01-01T00:00Z") + 3600 * hour for hour in range(0, 366 * 24, 5)]
    found = find_bounds(spark, Calendar(zone), "day", times)
    for time, (start, end, name) in zip(times, found, strict=True):
        local = datetime.fromtimestamp(time, ZoneInfo(zone))
        assert name == f"{local:%Y-%m-%d}"
        assert datetime.fromtimestamp(start, ZoneInfo(zone)).date() == local.date()
        assert datetime.fromtimestamp(start - 1, ZoneInfo(zone)).date() < local.date()
        assert datetime.fromtimestamp(end, ZoneInfo(zone)).date() > local.date()
        assert datetime.fromtimestamp(end - 1, ZoneInfo(zone)).date() == local.date()


EVENTS = [
    ("2016-07-11T13:39:01Z", "a"),
    ("2016-07-11T13:39:02Z", "b"),
    ("2016-07-11T13:59:59Z", "a"),
    ("2016-07-11T14:00:00Z", "c"),
    ("2016-07-12T00:00:00Z", "a"),
    ("2016-07-31T23:59:00Z", "d"),
    ("2016-08-01T00:00:00Z", "a"),
    ("2017-01-01T00:00:00Z", "e"),
]


def make_minutes(spark: SparkSession, events: list[tuple[str, str]], lg_k: int = 12) -> DataFrame:
    rows = [(seconds(time), uid) for time, uid in events]
    frame = spark.createDataFrame(rows, "ts BIGINT, uid STRING").selectExpr(
        "timestamp_seconds(ts) AS event_time", "uid"
    )
    counts = count_unique_users(frame, counter=Counter("hll_sketch", lg_k=lg_k, with_sketch=True))
    return counts.withColumns(
        {
            "final": F.lit(True),
            "revision": F.lit(0).cast("bigint"),
            "written_at": F.current_timestamp(),
            "offset": F.lit(0).cast("bigint"),
        }
    )


def test_minutes_become_hours_days_weeks_months_and_years(spark: SparkSession) -> None:
    rows = unite_all(make_minutes(spark, EVENTS), Calendar()).collect()
    found = {(row.period, row.name): (row.unique_users, row.events, row.minutes) for row in rows}
    assert found == {
        ("hour", "2016-07-11T13"): (2, 3, 2),
        ("hour", "2016-07-11T14"): (1, 1, 1),
        ("hour", "2016-07-12T00"): (1, 1, 1),
        ("hour", "2016-07-31T23"): (1, 1, 1),
        ("hour", "2016-08-01T00"): (1, 1, 1),
        ("hour", "2017-01-01T00"): (1, 1, 1),
        ("day", "2016-07-11"): (3, 4, 3),
        ("day", "2016-07-12"): (1, 1, 1),
        ("day", "2016-07-31"): (1, 1, 1),
        ("day", "2016-08-01"): (1, 1, 1),
        ("day", "2017-01-01"): (1, 1, 1),
        ("week", "2016-W28"): (3, 5, 4),
        ("week", "2016-W30"): (1, 1, 1),
        ("week", "2016-W31"): (1, 1, 1),
        ("week", "2016-W52"): (1, 1, 1),
        ("month", "2016-07"): (4, 6, 5),
        ("month", "2016-08"): (1, 1, 1),
        ("month", "2017-01"): (1, 1, 1),
        ("year", "2016"): (4, 7, 6),
        ("year", "2017"): (1, 1, 1),
    }
    assert {round(row.relative_error, 4) for row in rows} == {0.0162}


def test_sketches_of_two_sizes_unite_to_the_smaller_with_its_error(spark: SparkSession) -> None:
    minutes = make_minutes(spark, EVENTS[:1], lg_k=10).unionByName(make_minutes(spark, EVENTS[3:4], lg_k=12))
    rows = {row.name: row for row in unite_all(minutes, Calendar()).collect()}
    assert (rows["2016-07-11"].unique_users, round(rows["2016-07-11"].relative_error, 4)) == (2, 0.0325)
    assert round(rows["2016-07-11T14"].relative_error, 4) == 0.0162


def test_a_rollup_record_is_the_documented_json(spark: SparkSession) -> None:
    calendar = Calendar("Europe/Zurich")
    rows = unite_all(make_minutes(spark, EVENTS[:2]), calendar).where("period = 'day'").withColumn("final", F.lit(True))
    record = make_rollup_records(rows, calendar).collect()[0]
    assert record.key == "day 2016-07-10T22:00:00Z"
    assert record.value == (
        '{"period":"day","name":"2016-07-11","period_start":"2016-07-10T22:00:00Z","period_end":"2016-07-11T22:00:00Z",'
        '"unique_users":2,"events":2,"relative_error":0.0162,"final":true,"timezone":"Europe/Zurich"}'
    )


def make_kafka(spark: SparkSession, values: list[str | None]) -> DataFrame:
    """Records as Kafka's source gives them, a second apart."""
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    rows = [
        (None if value is None else value.encode(), start + timedelta(seconds=i), 0, i)
        for i, value in enumerate(values)
    ]
    return spark.createDataFrame(rows, "value BINARY, timestamp TIMESTAMP, partition INT, offset BIGINT")


def test_what_is_no_minute_is_left_out_with_its_reason(spark: SparkSession) -> None:
    counter = Counter(with_sketch=True)
    events = spark.createDataFrame([(seconds("2016-07-11T13:39:01Z"), "a")], "ts BIGINT, uid STRING").selectExpr(
        "timestamp_seconds(ts) AS event_time", "uid"
    )
    counts = count_unique_users(events, counter=counter)
    good = make_records(counts, counter, final=True, revision=0).collect()[0].value
    record = json.loads(good)
    revisions: list[Any] = [7, None, "7", 1.5, True, 10**30, []]
    values = [
        good,
        None,
        "rubbish",
        "[]",
        json.dumps({**record, "window_start": "soon"}),
        json.dumps({**record, "events": None}),
        json.dumps({name: value for name, value in record.items() if name != "sketch"}),
        json.dumps({**record, "sketch": "no base64!"}),
        json.dumps({**record, "sketch": record["sketch"][:16]}),
        json.dumps({**record, "window_end": "2016-07-11T13:46:00Z"}),
        json.dumps({**record, "window_end": record["window_start"]}),
        *(json.dumps({**record, "revision": revision}) for revision in revisions),
        json.dumps({name: value for name, value in record.items() if name != "revision"}),
    ]
    rows = sorted(parse_minutes(make_kafka(spark, values), Calendar()).collect(), key=lambda row: int(row.offset))
    assert [row.reject_reason for row in rows] == [
        *(None, "tombstone", "not_a_record", "not_a_record", "not_a_record", "not_a_record"),
        *("no_sketch", "bad_sketch", "bad_sketch", "bad_window", "bad_window"),
        *(None, None, "not_a_record", "not_a_record", "not_a_record", "not_a_record", "not_a_record", None),
    ]
    assert (rows[0].unique_users, rows[0].events, rows[0].final) == (1, 1, True)
    assert [row.revision for row in rows if row.reject_reason is None] == [0, 7, 0, 0]


FITTING = [
    # (zone, first window, minutes of a window, which of the windows of two hours fill their hours)
    ("UTC", "2016-07-11T13:00Z", 20, "all"),
    ("UTC", "2016-07-11T13:00Z", 7, "none"),
    # Windows of a length that divides the hour, but which begin at another time.
    ("UTC", "2016-07-11T13:05Z", 10, "none"),
    # +05:30: hours begin at half past.
    ("Asia/Kolkata", "2016-07-11T13:00Z", 1, "all"),
    ("Asia/Kolkata", "2016-07-11T13:00Z", 10, "all"),
    ("Asia/Kolkata", "2016-07-11T13:00Z", 30, "all"),
    ("Asia/Kolkata", "2016-07-11T13:00Z", 20, "none"),
    ("Asia/Kolkata", "2016-07-11T13:00Z", 60, "none"),
    # +05:45: hours begin at a quarter past.
    ("Asia/Kathmandu", "2016-07-11T13:00Z", 15, "all"),
    ("Asia/Kathmandu", "2016-07-11T13:00Z", 30, "none"),
    ("Asia/Kathmandu", "2016-07-11T13:00Z", 60, "none"),
    # +05:53:28 until 1854: no minute fits.
    ("Asia/Kolkata", "1850-07-11T13:00Z", 1, "none"),
    # +10:30, and +11:00 in summer, from 2016-10-01T15:30Z on.
    ("Australia/Lord_Howe", "2016-07-11T13:00Z", 20, "none"),
    ("Australia/Lord_Howe", "2016-11-11T13:00Z", 20, "all"),
]


@pytest.mark.parametrize(("zone", "first", "minutes", "expected"), FITTING)
def test_windows_fit_when_they_fill_the_hours_of_the_zone(
    spark: SparkSession, zone: str, first: str, minutes: int, expected: str
) -> None:
    starts = [seconds(first) + 60 * minutes * index for index in range(-(-120 // minutes))]
    frame = spark.createDataFrame([(start, start + 60 * minutes) for start in starts], "s BIGINT, e BIGINT")
    fits = Calendar(zone).fits_window(F.timestamp_seconds("s"), F.timestamp_seconds("e"))
    assert {row[0] for row in frame.select(fits).collect()} == {expected == "all"}


# Records of the window 13:39, in the order they were written: (revision, uids); None: of an earlier release.
OF_ONE_WINDOW: list[tuple[list[tuple[int | None, str]], tuple[int, int]]] = [
    # (records, users and events of the one that stays)
    ([(0, "ab"), (1, "abc")], (3, 3)),
    ([(1, "abc"), (0, "ab")], (3, 3)),
    # A recount with fewer events.
    ([(0, "abc"), (2, "a"), (1, "ab")], (1, 1)),
    ([(9, "ab"), (1_800_000_000, "a"), (10, "abcd")], (1, 1)),
    # Of the same revision, a killed job may write an older record again.
    ([(0, "abc"), (0, "ab")], (3, 3)),
    ([(1, "abc"), (1, "abc"), (0, "abcd")], (3, 3)),
    # No revision is 0.
    ([(None, "ab"), (None, "abc"), (None, "ab")], (3, 3)),
    ([(None, "abc"), (0, "ab")], (3, 3)),
    ([(1, "ab"), (None, "abc")], (2, 2)),
]


@pytest.mark.parametrize(("written", "stays"), OF_ONE_WINDOW)
def test_of_several_records_for_a_window_the_one_with_the_highest_revision_stays(
    spark: SparkSession, written: list[tuple[int | None, str]], stays: tuple[int, int]
) -> None:
    def record(revision: int | None, uids: str) -> str:
        sketch = hll_sketch(12, tgt_hll_type.HLL_8)
        for uid in uids:
            sketch.update(uid)
        value = {
            "window_start": "2016-07-11T13:39:00Z",
            "window_end": "2016-07-11T13:40:00Z",
            "unique_users": len(set(uids)),
            "events": len(uids),
            "final": True,
            "sketch": base64.b64encode(sketch.serialize_updatable()).decode(),
        }
        return json.dumps(value if revision is None else {**value, "revision": revision})

    values: list[str | None] = [record(*record_) for record_ in written]
    rows = select_minutes(parse_minutes(make_kafka(spark, values), Calendar())).collect()
    revision: int = max(number or 0 for number, _ in written)
    assert [(row.unique_users, row.events, row.revision) for row in rows] == [(*stays, revision)]


RANGES = [
    # (from, to, users, rows): users of EVENTS by hand
    ("2016-07-11T13:39Z", "2016-07-11T13:40Z", {"a", "b"}, {"minute": 1}),
    ("2016-07-11T13:40Z", "2016-07-11T14:01Z", {"a", "c"}, {"minute": 2}),
    ("2016-07-11T13:00Z", "2016-07-11T14:00Z", {"a", "b"}, {"hour": 1}),
    ("2016-07-11T13:39Z", "2016-07-12T00:00Z", {"a", "b", "c"}, {"minute": 2, "hour": 1}),
    ("2016-07-11T00:00Z", "2016-08-01T00:01Z", {"a", "b", "c", "d"}, {"day": 3, "minute": 1}),
    ("2016-07-01T00:00Z", "2016-08-01T00:01Z", {"a", "b", "c", "d"}, {"month": 1, "minute": 1}),
    ("2016-01-01T00:00Z", "2017-01-01T00:01Z", {"a", "b", "c", "d", "e"}, {"year": 1, "minute": 1}),
    ("2016-01-01T00:00Z", "2018-01-01T00:00Z", {"a", "b", "c", "d", "e"}, {"year": 2}),
    ("2015-01-01T00:00Z", "2016-01-01T00:00Z", set(), {}),
]


@pytest.fixture(scope="module")
def tables(spark: SparkSession) -> Iterator[tuple[DataFrame, DataFrame]]:
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    minutes = make_minutes(spark, EVENTS).persist()
    rollups = unite_all(minutes, Calendar()).persist()
    rollups.count()
    yield minutes, rollups
    spark.conf.set("spark.sql.session.timeZone", zone or "")


@pytest.mark.parametrize(("first", "last", "users", "rows"), RANGES)
def test_any_range_is_made_of_the_largest_rows_that_fit(
    tables: tuple[DataFrame, DataFrame],
    first: str,
    last: str,
    users: set[str],
    rows: dict[str, int],
) -> None:
    start, end = (F.timestamp_seconds(F.lit(seconds(time))) for time in (first, last))
    parts = select_range(*tables, Calendar(), start, end).persist()
    assert {row["period"]: row["count"] for row in parts.groupBy("period").count().collect()} == rows
    united = parts.agg(F.hll_sketch_estimate(F.hll_union_agg("sketch")).alias("users"), F.sum("events")).collect()[0]
    inside = [uid for time, uid in EVENTS if seconds(first) <= seconds(time) < seconds(last)]
    assert set(inside) == users
    assert (united[0] or 0, united[1] or 0) == (len(users), len(inside))
    parts.unpersist()
