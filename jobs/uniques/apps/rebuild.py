"""Rebuilds the rollups from the minutes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from uniques.apps.rollup_tables import COMPLETE_UNTIL, TIMEZONE, UNPUBLISHED, WEEK_START, Tables, read_kept_from
from uniques.apps.rollup_updater import describe_misfit, find_newest, is_complete
from uniques.core.rollups import unite_all
from uniques.errors import UsageError
from uniques.tables import Table, read_properties

if TYPE_CHECKING:
    from uniques.apps.rollup_topic import RollupTopic

log = logging.getLogger("uniques")


def rebuild(spark: SparkSession, tables: Tables, topic: RollupTopic | None) -> None:
    """Rebuilds the rollups from the minutes, in the calendar of `tables`, and publishes all rows.

    One commit of the table holds the calendar and the rows, so a kill leaves either the old ones or the new ones. One
    that comes before the rows are published leaves a property that says so: this function, or the next start of the
    job, publishes them. Raises UsageError, one line, when the minutes do not suffice.
    """
    opened = tables.minutes.open(spark)
    if read_kept_from(opened) is not None:
        raise UsageError("--rebuild needs all minutes, and some were removed by --minutes-retention")
    minutes, calendar = opened.toDF(), tables.calendar
    check_windows(minutes, tables)
    until = find_complete_until(spark, tables.rollups, minutes)
    log.info("rebuilding %s from %s", tables.rollups.describe(), tables.minutes.describe())
    rows = unite_all(minutes, calendar).withColumn("final", is_complete(until)).persist()
    number = rows.count()
    properties = {
        TIMEZONE: calendar.timezone,
        WEEK_START: calendar.week_start,
        UNPUBLISHED: "true" if topic else "false",
        **({} if until is None else {COMPLETE_UNTIL: str(until)}),
    }
    tables.rollups.replace(spark, rows, properties, ["period"])
    log.info("replaced %s: %s rows", tables.rollups.describe(), number)
    rows.unpersist()
    if topic:
        topic.publish_pending(spark, tables)


def check_windows(minutes: DataFrame, tables: Tables) -> None:
    """Raises UsageError, one line, when windows do not fit the calendar."""
    start, end = F.col("window_start"), F.col("window_end")
    misfits = minutes.where(~tables.calendar.fits_window(start, end))
    length = F.unix_seconds(end) - F.unix_seconds(start)
    row = misfits.select(length, F.unix_seconds(start)).orderBy("window_start").first()
    if row is not None:
        raise UsageError(f"--rebuild: {describe_misfit(tables.calendar, *row)}: take another --timezone")


def find_complete_until(spark: SparkSession, rollups: Table, minutes: DataFrame) -> int | None:
    """The time up to which all windows were read, in unix seconds; None when that is not known of any time.

    The rows that are final say so. Where there is no table yet, the newest final window does.
    """
    if not rollups.exists(spark):
        return find_newest(minutes)
    table = rollups.open(spark)
    properties = read_properties(table)
    if TIMEZONE not in properties:
        raise UsageError(f"{rollups.flag} {rollups.describe()} was not made by this job: give another table")
    known = [int(properties[COMPLETE_UNTIL])] if COMPLETE_UNTIL in properties else []
    last = table.toDF().where("final").agg(F.unix_seconds(F.max("period_end"))).collect()[0][0]
    return max(known + ([] if last is None else [last]), default=None)
