"""Answers questions from the tables: the users of any range, and the rows of periods."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from uniques.apps.rollup_tables import Tables, read_kept_from
from uniques.core.choices import PERIODS
from uniques.core.rollups import add_group, select_range
from uniques.core.sketches import sketch_error_of
from uniques.errors import UsageError
from uniques.times import describe_time

if TYPE_CHECKING:
    from datetime import datetime

    from uniques.apps.rollup_settings import Between, Group, Range, Show
    from uniques.core.calendar import Calendar
    from uniques.tables import Table


def to_instant(calendar: Calendar, time_: datetime) -> Column:
    """A time from the command line as TIMESTAMP, in the calendar's zone where it has no offset of its own."""
    if time_.tzinfo is not None:
        return F.timestamp_seconds(F.lit(int(time_.timestamp())))
    return F.to_utc_timestamp(F.lit(time_.strftime("%Y-%m-%d %H:%M:%S")).cast("timestamp"), calendar.timezone)


def answer_range(spark: SparkSession, tables: Tables, question: Between) -> dict[str, Any]:
    """The unique users of a range, and those that a second one shares with it, as a JSON object.

    Raises UsageError, one line, when a range is empty, or needs minutes that are no longer kept.
    """
    began = time.monotonic()
    rows = read_rows(spark, tables, question.group)
    first = unite_range(spark, tables, rows, question.first, "--between")
    answer = describe_range(first)
    if question.second:
        second = unite_range(spark, tables, rows, question.second, "--and")
        both = first.unionByName(second).agg(F.hll_union_agg("sketch", True).alias("sketch"))
        other = describe_range(second)
        union = both.select(F.hll_sketch_estimate("sketch"), sketch_error_of(F.col("sketch"))).collect()[0]
        users = [answer["unique_users"], other["unique_users"], union[0] or 0]
        # |A and B| = |A| + |B| - |A or B|. Its standard error is at most the sum of the three, however they correlate.
        answer = {
            "between": answer,
            "and": other,
            "in_both": max(0, users[0] + users[1] - users[2]),
            "standard_error_at_most": round(sum(users) * (union[1] or 0)),
        }
    return {**answer, "seconds": round(time.monotonic() - began, 1)}


class Rows(NamedTuple):
    """The rows of both tables that a question is about."""

    minutes: DataFrame
    rollups: DataFrame


def read_rows(spark: SparkSession, tables: Tables, group: Group) -> Rows:
    """The rows of a group, or of the total."""
    if group.text is None:
        chosen = F.col("group").isNull()
    else:
        chosen = (F.col("group") == group.text) & F.col("other").eqNullSafe(F.lit(True) if group.other else F.lit(None))

    def read(table: Table) -> DataFrame:
        return add_group(table.open(spark).toDF()).where(chosen)

    return Rows(read(tables.minutes), read(tables.rollups))


def unite_range(spark: SparkSession, tables: Tables, rows: Rows, between: Range, flag: str) -> DataFrame:
    """One row: `first`, `last` STRING, `sketch` BINARY, `events` BIGINT, and the number of united rows by period."""
    start, end = (to_instant(tables.calendar, time_) for time_ in between)
    opened = tables.minutes.open(spark)
    seconds = spark.range(1).select(F.unix_seconds(start), F.unix_seconds(end)).collect()[0]
    if seconds[0] >= seconds[1]:
        raise UsageError(f"{flag}: {describe_time(seconds[1])} is not after {describe_time(seconds[0])}")
    kept_from = read_kept_from(opened)
    if kept_from is not None:
        for edge, seconds_ in zip((start, end), seconds, strict=True):
            hour = spark.range(1).select(F.unix_seconds(tables.calendar.bounds(edge, "hour").start)).collect()[0][0]
            if seconds_ < kept_from and seconds_ != hour:
                raise UsageError(
                    f"{flag}: minutes before {describe_time(kept_from)} are no longer kept: give a full hour"
                )
    parts = select_range(rows.minutes, rows.rollups, tables.calendar, start, end)
    numbers = [
        F.count_if(F.col("period") == period).alias(period) for period in ("year", "month", "day", "hour", "minute")
    ]
    return parts.agg(
        F.hll_union_agg("sketch", True).alias("sketch"),
        F.coalesce(F.sum("events"), F.lit(0)).alias("events"),
        *numbers,
    ).withColumns({"first": F.lit(describe_time(seconds[0])), "last": F.lit(describe_time(seconds[1]))})


def describe_range(united: DataFrame) -> dict[str, Any]:
    """A row of `unite_range` as a JSON object; `low` and `high` are two standard errors away."""
    row = united.select(
        "*", F.hll_sketch_estimate("sketch").alias("users"), sketch_error_of(F.col("sketch")).alias("error")
    ).collect()[0]
    users, error = row["users"] or 0, row["error"] if row["events"] else 0.0
    return {
        "from": row["first"],
        "to": row["last"],
        "unique_users": users,
        "relative_error": round(error, 4),
        "low": round(users * (1 - 2 * error)),
        "high": round(users * (1 + 2 * error)),
        "events": row["events"],
        "rows": {period: row[period] for period in ("year", "month", "day", "hour", "minute") if row[period]},
    }


def show_tables(spark: SparkSession, tables: Tables, question: Show) -> None:
    """Prints the rows of the periods, of the total or a group, in order of time, as a table."""
    calendar = tables.calendar
    columns = ["period", "name", "unique_users", "relative_error", "events", "final"]
    minutes, rollups = read_rows(spark, tables, question.group)
    named = F.date_format(F.from_utc_timestamp("window_start", calendar.timezone), "yyyy-MM-dd'T'HH:mm")
    rows = minutes.select(
        F.lit("minute").alias("period"),
        named.alias("name"),
        "unique_users",
        sketch_error_of(F.col("sketch")).alias("relative_error"),
        "events",
        "final",
        F.col("window_start").alias("start"),
    ).unionByName(rollups.withColumn("start", F.col("period_start")).select(*columns, "start"))
    print(f"{'period':<7}{'start (' + calendar.timezone + ')':<26}{'users':>12}{'±1 s.e.':>9}{'events':>15}")
    for period in ("minute", *PERIODS):
        if period in question.periods:
            for row in rows.where(F.col("period") == period).orderBy("start").toLocalIterator():
                print(
                    f"{row['period']:<7}{row['name']:<26}{row['unique_users']:>12,}{row['relative_error']:>9.2%}"
                    f"{row['events']:>15,}{' final' if row['final'] else ''}"
                )
