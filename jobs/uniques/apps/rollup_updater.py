"""Keeps both tables and the topic up to date, batch by batch."""

from __future__ import annotations

import logging
import time
from collections import Counter
from datetime import timedelta
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from uniques.apps.rollup_progress import bound_completeness
from uniques.apps.rollup_tables import Tables, drop_minutes, read_kept_from
from uniques.core.calendar import Calendar
from uniques.core.choices import HOUR_SECONDS
from uniques.core.rollups import GROUP, parse_minutes, rank_minute, renew_rollups, select_minutes
from uniques.tables import is_maintenance_due, maintain, merge_rows
from uniques.times import describe_duration, describe_time

if TYPE_CHECKING:
    from collections.abc import Callable

    from uniques.apps.rollup_settings import UpkeepSettings
    from uniques.apps.rollup_topic import RollupTopic
    from uniques.core.calendar import Calendar

log = logging.getLogger("uniques")


# Up to so many stretches of time are looked up separately; more become one, from the first to the last.
MAX_STRETCHES = 50
# An upper bound of the days between a part and the larger period that holds it.
LARGEST_PARENT_DAYS = {"hour": 2, "day": 32, "month": 367}


class RollupUpdater:
    """Keeps both tables and the topic up to date, batch by batch."""

    def __init__(
        self,
        tables: Tables,
        topic: RollupTopic | None,
        upkeep: UpkeepSettings,
        find_unread: Callable[[int], set[int]] = lambda _batch: set(),
    ) -> None:
        """`find_unread`: the partitions of the input topic with records behind those of a batch.

        `totals` are the records read in this run, by what became of them, and the rows written.
        """
        self._find_unread = find_unread
        self._positions: dict[int, int] = {}
        self._tables = tables
        self._topic = topic
        self._upkeep = upkeep
        self._looked_at = float("-inf")
        self._warned_lengths: set[int] = set()
        self.totals = Counter({"read": 0, "windows": 0, "rollups": 0})

    def update(self, records: DataFrame, batch: int) -> None:
        """Merges the windows of a batch, and renews the periods that hold them.

        Each step can be repeated: windows are replaced by their valid record, and periods are recomputed from all their
        parts. Rows go to the topic before they go to the table, so a kill between the two repeats both.
        """
        began = time.monotonic()
        spark = records.sparkSession
        kept_from = read_kept_from(self._tables.minutes.open(spark))
        parsed = parse_minutes(records, self._tables.calendar, kept_from).persist()
        try:
            by_reason = self._count_records(parsed)
            windows = select_minutes(parsed).persist()
            found = windows.count()
            written = self._merge_windows(spark, windows, self._find_unread(batch))
            windows.unpersist()
        finally:
            parsed.unpersist()
        self._maintain(spark)
        read = sum(by_reason.values())
        rejected = {reason: number for reason, number in by_reason.items() if reason is not None}
        self.totals.update({"read": read, "windows": found, "rollups": written, **rejected})
        seconds = time.monotonic() - began
        text = "".join(f" {reason}={number}" for reason, number in rejected.items())
        log.info("batch=%s records=%s windows=%s rollups=%s seconds=%.1f%s", batch, read, found, written, seconds, text)

    def _count_records(self, parsed: DataFrame) -> dict[str | None, int]:
        """The records of a batch by reject reason, None for accepted ones; warns of windows that are left out.

        Notes how far each partition has been read.
        """
        accepted = parsed.where("reject_reason IS NULL AND final")
        oldest = accepted.groupBy("partition").agg(F.unix_seconds(F.min("window_end")))
        self._positions.update((partition, end) for partition, end in oldest.collect())
        length = F.unix_seconds("window_end") - F.unix_seconds("window_start")
        example = F.min(F.struct(length.alias("length"), F.unix_seconds("window_start").alias("start")))
        rows = parsed.groupBy("reject_reason").agg(F.count(F.lit(1)).alias("records"), example.alias("example"))
        by_reason: dict[str | None, int] = {}
        for reason, records, (seconds, start) in rows.collect():
            by_reason[reason] = records
            if reason == "before_kept_minutes":
                log.warning(
                    "warning: %s records have windows older than --minutes-retention keeps them: they are left out",
                    records,
                )
            if reason == "bad_window" and seconds not in self._warned_lengths:
                self._warned_lengths.add(seconds)
                log.warning(
                    "warning: %s and are left out as bad_window: count with a --window that does, or take another "
                    "--timezone, with new tables and a new --checkpoint-location",
                    describe_misfit(self._tables.calendar, seconds, start),
                )
        return by_reason

    def _merge_windows(self, spark: SparkSession, windows: DataFrame, unread: set[int]) -> int:
        """Brings the windows into both tables and the topic; returns the number of rows of rollups."""
        calendar = self._tables.calendar
        minutes, rollups = self._tables.minutes.open(spark), self._tables.rollups.open(spark)
        hours = collect_hours(windows, calendar)
        if hours:
            merge_rows(
                minutes,
                windows,
                ["window_start", *GROUP],
                rank_minute("new.") > rank_minute("old."),
                select_stretches(F.col("old.window_start"), hours),
            )
        near = minutes.toDF().where(select_stretches(F.col("window_start"), hours))
        old = rollups.toDF()
        parts = old.where(select_parts(hours)).persist()
        renewed = renew_rollups(near, parts, windows, calendar) if hours else old.limit(0)
        parts.unpersist()
        complete = is_complete(bound_completeness(find_newest(minutes.toDF()), unread, self._positions))
        rows = set_final(renewed, old, complete).persist()
        try:
            starts = F.unix_seconds("period_start")
            number, first, last = rows.agg(F.count(F.lit(1)), F.min(starts), F.max(starts)).collect()[0]
            if not number:
                return 0
            if self._topic:
                self._topic.publish(rows, calendar)
            changed = F.expr(
                "NOT (new.sketch <=> old.sketch AND new.final <=> old.final AND new.events <=> old.events)"
            )
            old_start = F.col("old.period_start")
            within = old_start.between(F.timestamp_seconds(F.lit(first)), F.timestamp_seconds(F.lit(last)))
            merge_rows(rollups, rows, ["period", "period_start", *GROUP], changed, within)
        finally:
            rows.unpersist()
        return int(number)

    def _maintain(self, spark: SparkSession) -> None:
        """Once in a maintenance interval: drops minutes past their retention, joins small files, removes old ones."""
        interval, now = self._upkeep.interval_seconds, time.monotonic()
        if interval is None or now < self._looked_at + min(HOUR_SECONDS, interval):
            return
        self._looked_at = now
        minutes = self._tables.minutes
        if not is_maintenance_due(minutes.open(spark), timedelta(seconds=interval)):
            return
        if self._upkeep.retention_seconds is not None:
            drop_minutes(spark, minutes, self._tables.calendar, self._upkeep.retention_seconds)
        for table in (minutes, self._tables.rollups):
            maintain(spark, table)
        log.info("maintenance of both tables took %.1f s", time.monotonic() - now)


def describe_misfit(calendar: Calendar, seconds: int, start: int) -> str:
    """What is wrong with a window of `seconds` that starts at `start`, in unix seconds."""
    return (
        f"windows of {describe_duration(seconds)}, such as that of {describe_time(start)}, do not fill the hours of "
        f"--timezone {calendar.timezone}"
    )


def collect_hours(windows: DataFrame, calendar: Calendar) -> list[tuple[int, int]]:
    """The hours that hold windows, as stretches `[start, end)` in unix seconds; gaps of up to a day are included."""
    hour = calendar.bounds(F.col("window_start"), "hour")
    bounds = windows.select(F.unix_seconds(hour.start).alias("start"), F.unix_seconds(hour.end).alias("end"))
    stretches: list[tuple[int, int]] = []
    for start, end in bounds.distinct().orderBy("start").collect():
        if stretches and start - stretches[-1][1] <= 24 * HOUR_SECONDS:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))
    return stretches if len(stretches) <= MAX_STRETCHES else [(stretches[0][0], stretches[-1][1])]


def select_stretches(time_: Column, stretches: list[tuple[int, int]]) -> Column:
    """Whether a TIMESTAMP lies in one of the stretches."""
    inside = F.lit(False)
    for start, end in stretches:
        inside |= (time_ >= F.timestamp_seconds(F.lit(start))) & (time_ < F.timestamp_seconds(F.lit(end)))
    return inside


def select_parts(stretches: list[tuple[int, int]]) -> Column:
    """Whether a row of rollups may be needed to unite a period that holds one of the stretches."""
    wanted = F.lit(False)
    for period, reach_days in LARGEST_PARENT_DAYS.items():
        reach = reach_days * 24 * HOUR_SECONDS
        widened = [(start - reach, end + reach) for start, end in stretches]
        wanted |= (F.col("period") == period) & select_stretches(F.col("period_start"), widened)
    return wanted


def set_final(renewed: DataFrame, old: DataFrame, complete: Column) -> DataFrame:
    """The rows to write: renewed ones, with `final` set, and old ones that become final without another change.

    A row that was final stays so: records that come for it now are corrections.
    """
    keys = ["period", "period_start", *GROUP]
    matches = reduce(and_, (F.col(f"new.{key}").eqNullSafe(F.col(f"old.{key}")) for key in keys))
    before = old.select(*keys, F.col("final").alias("was_final")).alias("old")
    rows = renewed.alias("new").join(before, matches, "left").select("new.*", "was_final")
    rows = rows.withColumn("final", complete | F.coalesce("was_final", F.lit(False)))
    ended = old.where(~F.col("final")).alias("old").join(renewed.alias("new"), matches, "left_anti").where(complete)
    return rows.select(*old.columns).unionByName(ended.withColumn("final", F.lit(True)))


def find_newest(minutes: DataFrame) -> int | None:
    """The end of the newest final window, in unix seconds; None when there is none."""
    newest: int | None = minutes.where("final").agg(F.unix_seconds(F.max("window_end"))).collect()[0][0]
    return newest


def is_complete(until: int | None) -> Column:
    """Whether a row of rollups ended by a time in unix seconds, and by the clock too.

    The clock matters because one window far in the future, of a flipped timestamp, must not end all periods before it.
    """
    if until is None:
        return F.lit(False)
    return F.col("period_end") <= F.least(F.timestamp_seconds(F.lit(until)), F.current_timestamp())
