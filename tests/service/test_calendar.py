"""The calendar of the service against that of the job, which Spark computes."""

from __future__ import annotations

import random
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as F
from unique_users_service.calendar import Calendar, find_zone
from uniques.core.calendar import Calendar as JobCalendar

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

PERIODS = ("hour", "day", "week", "month", "year")
CHANGES = [
    ("Europe/Zurich", "2016-10-30T01:00"),
    ("Europe/Zurich", "2017-03-26T01:00"),
    ("America/St_Johns", "2016-11-06T04:30"),
    ("America/St_Johns", "2011-11-06T02:31"),  # at a minute past midnight
    ("Australia/Lord_Howe", "2017-04-01T15:00"),  # by half an hour
    ("America/Sao_Paulo", "2017-10-15T03:00"),  # skips midnight
    ("Asia/Kathmandu", "1985-12-31T18:30"),
    ("Pacific/Apia", "2011-12-30T10:00"),  # skips a day
    ("+05:30", "2016-07-11T13:00"),
    ("UTC", "2016-12-31T23:59"),
]


@pytest.mark.parametrize("week_start", ["monday", "sunday"])
def test_periods_begin_and_end_where_spark_says(spark: SparkSession, week_start: str) -> None:
    draw = random.Random(1)
    kept = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    try:
        for zone, change in CHANGES:
            around = int(datetime.fromisoformat(change).replace(tzinfo=timezone.utc).timestamp())
            times = [around + 60 * draw.randrange(-4_000, 4_000) for _ in range(40)]
            times += [around + 60 * minutes for minutes in (-60, -31, -30, -1, 0, 1, 29, 30, 60)]
            job, mine = JobCalendar(zone, week_start), Calendar(zone, week_start)
            frame = spark.createDataFrame([(time,) for time in times], "s BIGINT")
            at = F.timestamp_seconds("s")
            columns = ["s"]
            for period in PERIODS:
                bounds = job.bounds(at, period)
                frame = frame.withColumn(f"{period}_start", F.unix_seconds(bounds.start))
                frame = frame.withColumn(f"{period}_end", F.unix_seconds(bounds.end))
                frame = frame.withColumn(f"{period}_name", job.name(bounds.start, period))
                columns += [f"{period}_start", f"{period}_end", f"{period}_name"]
            for row in frame.select(*columns).collect():
                for period in PERIODS:
                    start, end = mine.bounds(row["s"], period)
                    expected = (row[f"{period}_start"], row[f"{period}_end"], row[f"{period}_name"])
                    assert (start, end, mine.name(start, period)) == expected, (zone, row["s"], period)
    finally:
        spark.conf.set("spark.sql.session.timeZone", kept or "")


def test_zones_that_are_none_are_refused() -> None:
    for name in ("Mars", "../etc/passwd", "+25:00", ""):
        with pytest.raises(ValueError, match="is no time zone"):
            find_zone(name)
