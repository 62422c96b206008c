"""The two tables of the rollups, and what stands in their properties."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques.core.calendar import Calendar
from uniques.core.rollups import MINUTES_SCHEMA, ROLLUPS_SCHEMA
from uniques.errors import UsageError
from uniques.tables import Table, read_properties, set_property

if TYPE_CHECKING:
    import argparse

    from delta.tables import DeltaTable

TIMEZONE, WEEK_START = "unique_users.timezone", "unique_users.week_start"
KEPT_FROM = "unique_users.kept_from"


@dataclass(frozen=True)
class Tables:
    """Where the minutes and the rollups are, and the calendar of the rollups."""

    minutes: Table
    rollups: Table
    calendar: Calendar


def tables_of(args: argparse.Namespace) -> Tables:
    """The tables that the flags name."""
    return Tables(
        Table("--minutes-table", args.minutes_table),
        Table("--rollups-table", args.rollups_table),
        Calendar(args.timezone, args.week_start),
    )


def read_calendar(spark: SparkSession, tables: Tables) -> Tables:
    """The tables with the calendar that the rollups were made with."""
    properties = read_properties(tables.rollups.open(spark))
    if TIMEZONE not in properties:
        raise UsageError(f"{tables.rollups.flag} {tables.rollups.place} was not made by this job")
    return Tables(tables.minutes, tables.rollups, Calendar(properties[TIMEZONE], properties[WEEK_START]))


def create_tables(spark: SparkSession, tables: Tables) -> None:
    """Makes the tables where they are not there yet; raises UsageError when the calendar is another."""
    tables.minutes.create(spark, MINUTES_SCHEMA, {})
    calendar = {TIMEZONE: tables.calendar.timezone, WEEK_START: tables.calendar.week_start}
    tables.rollups.create(spark, ROLLUPS_SCHEMA, calendar, partition=["period"])


def read_kept_from(minutes: DeltaTable) -> int | None:
    """The time in unix seconds before which minutes were removed; None when all are there."""
    text = read_properties(minutes).get(KEPT_FROM)
    return int(text) if text else None


def drop_minutes(spark: SparkSession, table: Table, calendar: Calendar, retention_seconds: int) -> None:
    """Removes the minutes of hours that ended longer ago than the retention, and notes from when on they are there."""
    limit = calendar.bounds(F.current_timestamp() - F.make_dt_interval(secs=F.lit(retention_seconds)), "hour").start
    seconds = spark.range(1).select(F.unix_seconds(limit)).collect()[0][0]
    # First the note: what comes in for a window before it would find half an hour.
    set_property(spark, table, KEPT_FROM, str(seconds))
    table.open(spark).delete(F.col("window_start") < F.timestamp_seconds(F.lit(seconds)))
