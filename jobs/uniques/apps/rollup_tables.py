"""The two tables of the rollup job, and the properties that the job keeps in them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques.core.calendar import Calendar
from uniques.core.rollups import MINUTES_SCHEMA, ROLLUPS_SCHEMA
from uniques.errors import UsageError
from uniques.tables import Table, read_properties, set_property

if TYPE_CHECKING:
    from delta.tables import DeltaTable

TIMEZONE, WEEK_START = "unique_users.timezone", "unique_users.week_start"
KEPT_FROM = "unique_users.kept_from"
# Properties of rebuilt rollups: the time up to which they are complete, and whether they are published.
COMPLETE_UNTIL, UNPUBLISHED = "unique_users.complete_until", "unique_users.unpublished"


@dataclass(frozen=True)
class Tables:
    """Where the minutes and the rollups are, and the calendar of the rollups."""

    minutes: Table = field(default_factory=lambda: Table("--minutes-table", "tables/minutes"))
    rollups: Table = field(default_factory=lambda: Table("--rollups-table", "tables/rollups"))
    calendar: Calendar = field(default_factory=Calendar)


def read_calendar(spark: SparkSession, tables: Tables) -> Tables:
    """The tables with the calendar of the rollups; raises UsageError, one line, when this job did not make them."""
    properties = read_properties(tables.rollups.open(spark))
    if TIMEZONE not in properties:
        raise UsageError(f"{tables.rollups.flag} {tables.rollups.describe()} was not made by this job")
    return Tables(tables.minutes, tables.rollups, Calendar(properties[TIMEZONE], properties[WEEK_START]))


def create_tables(spark: SparkSession, tables: Tables) -> None:
    """Creates the tables that do not exist yet, and adds the columns that a table of an earlier release lacks.

    Raises UsageError, one line, when the rollups have another calendar.
    """
    tables.minutes.create(spark, MINUTES_SCHEMA, {})
    calendar = {TIMEZONE: tables.calendar.timezone, WEEK_START: tables.calendar.week_start}
    tables.rollups.create(spark, ROLLUPS_SCHEMA, calendar, partition=["period"])
    tables.minutes.add_column(spark, "revision BIGINT", after="final")
    for table, last in ((tables.minutes, "offset"), (tables.rollups, "parent_end")):
        table.add_column(spark, "group STRING", after=last)
        table.add_column(spark, "other BOOLEAN", after="group")


def read_kept_from(minutes: DeltaTable) -> int | None:
    """The time in unix seconds before which minutes were removed; None when all are there."""
    text = read_properties(minutes).get(KEPT_FROM)
    return int(text) if text else None


def drop_minutes(spark: SparkSession, table: Table, calendar: Calendar, retention_seconds: int) -> None:
    """Removes the minutes of hours that ended longer ago than the retention, and keeps that time as a property."""
    limit = calendar.bounds(F.current_timestamp() - F.make_dt_interval(secs=F.lit(retention_seconds)), "hour").start
    seconds = spark.range(1).select(F.unix_seconds(limit)).collect()[0][0]
    # The property comes first: after a kill between the two, no late window is united with a part of its hour.
    set_property(spark, table, KEPT_FROM, str(seconds))
    table.open(spark).delete(F.col("window_start") < F.timestamp_seconds(F.lit(seconds)))
