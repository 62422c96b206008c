"""Rollups: the rows of hours, days, weeks, months and years, united from the sketches of windows.

Every function here needs a session in UTC. A row is always recomputed from all its parts. So doing it twice, or with a
part that came twice, gives the same row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from uniques.core.counts import UTC_FORMAT, name_groups
from uniques.core.sketches import is_sketch, normalize_sketch, sketch_error_of

if TYPE_CHECKING:
    from uniques.core.calendar import Calendar

# The smaller period that each is united from. Weeks cross months, so neither is united from the other.
PARTS = {"day": "hour", "week": "day", "month": "day", "year": "month"}
# The larger period that replaces a row in a range, when it fits into the range too.
PARENTS = {"hour": "day", "day": "month", "month": "year"}
# What a row of a table is about beside its time: a group of a breakdown as a JSON object, null for the total, and
# `other`, true for all groups without a name, else null.
GROUP = ("group", "other")
MINUTES_SCHEMA = (
    "window_start TIMESTAMP, window_end TIMESTAMP, unique_users BIGINT, events BIGINT, final BOOLEAN, "
    "revision BIGINT, written_at TIMESTAMP, offset BIGINT, group STRING, other BOOLEAN, sketch BINARY"
)
ROLLUPS_SCHEMA = (
    "period STRING, period_start TIMESTAMP, period_end TIMESTAMP, name STRING, unique_users BIGINT, "
    "relative_error DOUBLE, events BIGINT, minutes BIGINT, final BOOLEAN, parent_start TIMESTAMP, "
    "parent_end TIMESTAMP, group STRING, other BOOLEAN, sketch BINARY"
)
# Why a record of the main job's topic can't be united, in order of precedence.
MINUTE_REJECT_REASONS = (
    "tombstone",
    "not_a_record",
    "no_sketch",
    "bad_sketch",
    # Its windows do not fill the hours of the calendar.
    "bad_window",
    # The other minutes of its hour were removed by retention.
    "before_kept_minutes",
)
RECORD_SCHEMA = (
    "window_start TIMESTAMP, window_end TIMESTAMP, unique_users BIGINT, events BIGINT, final BOOLEAN, revision BIGINT, "
    "sketch STRING, group STRING, other BOOLEAN"
)


def parse_minutes(records: DataFrame, calendar: Calendar, kept_from: int | None = None) -> DataFrame:
    """Parses the main job's records: Kafka's `value`, `timestamp`, `partition`, `offset`. Never raises.

    `kept_from`: minutes before that time, in unix seconds, were removed. Returns a row for each record: the columns of
    MINUTES_SCHEMA, `partition` INT, and `reject_reason` STRING: one of MINUTE_REJECT_REASONS, or null. Records of older
    releases have no revision; theirs is 0.
    """
    parsed = records.select(
        "value",
        F.from_json(F.col("value").cast("string"), RECORD_SCHEMA).alias("record"),
        F.col("timestamp").alias("written_at"),
        "partition",
        "offset",
    ).withColumn("bytes", F.expr("try_to_binary(record.sketch, 'base64')"))
    start, end = F.col("record.window_start"), F.col("record.window_end")
    # Null stands for a field that is missing, and for one of another type.
    has_revision = F.get_json_object(F.col("value").cast("string"), "$.revision").isNotNull()
    kept = F.lit(True) if kept_from is None else start >= F.timestamp_seconds(F.lit(kept_from))
    reason = (
        F.when(F.col("value").isNull(), "tombstone")
        .when(start.isNull() | end.isNull(), "not_a_record")
        .when(F.col("record.events").isNull(), "not_a_record")
        .when(F.col("record.revision").isNull() & has_revision, "not_a_record")
        .when(F.col("record.sketch").isNull(), "no_sketch")
        .when(~is_sketch(F.col("bytes")), "bad_sketch")
        .when(~calendar.fits_window(start, end), "bad_window")
        .when(~kept, "before_kept_minutes")
    )
    return parsed.select(
        "record.window_start",
        "record.window_end",
        F.coalesce(
            "record.unique_users", F.hll_sketch_estimate(F.when(is_sketch(F.col("bytes")), F.col("bytes")))
        ).alias("unique_users"),
        "record.events",
        F.coalesce("record.final", F.lit(False)).alias("final"),
        F.coalesce("record.revision", F.lit(0)).alias("revision"),
        "written_at",
        "offset",
        "partition",
        "record.group",
        F.when(F.col("record.other"), True).alias("other"),
        F.col("bytes").alias("sketch"),
        reason.alias("reject_reason"),
    )


def rank_minute(prefix: str = "") -> Column:
    """What orders the records of a window: the highest is the valid one. `prefix`: before the columns, as `old.`.

    The highest revision wins. With the same revision the most events win: a running count only grows, but a killed job
    may write an older one again. Among equal ones the last written wins. Rows of earlier releases have no revision;
    theirs is 0.
    """
    revision = F.coalesce(F.col(f"{prefix}revision"), F.lit(0)).alias("revision")
    return F.struct(revision, *(F.col(f"{prefix}{name}") for name in ("events", "written_at", "offset")))


def select_minutes(parsed: DataFrame) -> DataFrame:
    """The accepted windows and groups of `parse_minutes`, as MINUTES_SCHEMA: a row for each, by the valid record."""
    names = [name for name in parsed.columns if name not in ("reject_reason", "partition")]
    best = F.max_by(F.struct(*names), rank_minute()).alias("best")
    return parsed.where(F.col("reject_reason").isNull()).groupBy("window_start", *GROUP).agg(best).select("best.*")


def unite(parts: DataFrame, calendar: Calendar, period: str) -> DataFrame:
    """Unites `start` TIMESTAMP, `events`, `minutes` BIGINT, `sketch` BINARY, of a group each, to rows of a period.

    Returns the columns of ROLLUPS_SCHEMA, `final` null. A part belongs to the period it starts in. Sketches of
    different lg_k give one of the smallest lg_k, with its error.
    """
    united = parts.groupBy(calendar.bounds(F.col("start"), period).alias("bounds"), *GROUP).agg(
        F.sum("events").alias("events"),
        F.sum("minutes").alias("minutes"),
        normalize_sketch(F.hll_union_agg("sketch", True)).alias("sketch"),
    )
    start = F.col("bounds.start")
    parent = calendar.bounds(start, PARENTS[period]) if period in PARENTS else F.lit(None)
    return united.select(
        F.lit(period).alias("period"),
        start.alias("period_start"),
        F.col("bounds.end").alias("period_end"),
        calendar.name(start, period).alias("name"),
        F.hll_sketch_estimate("sketch").alias("unique_users"),
        sketch_error_of(F.col("sketch")).alias("relative_error"),
        "events",
        "minutes",
        F.lit(None).cast("boolean").alias("final"),
        (parent.start if period in PARENTS else F.lit(None).cast("timestamp")).alias("parent_start"),
        (parent.end if period in PARENTS else F.lit(None).cast("timestamp")).alias("parent_end"),
        *GROUP,
        "sketch",
    )


def add_group(rows: DataFrame) -> DataFrame:
    """Rows of a table with the columns of GROUP, null in a table of an earlier release, which has totals only."""
    types = {"group": "string", "other": "boolean"}
    missing = {name: F.lit(None).cast(types[name]) for name in GROUP if name not in rows.columns}
    return rows.withColumns(missing) if missing else rows  # Spark Connect takes no empty set of columns


def minutes_as_parts(minutes: DataFrame) -> DataFrame:
    """Rows of MINUTES_SCHEMA as `unite` takes them."""
    return add_group(minutes).select(
        F.col("window_start").alias("start"), "events", F.lit(1).cast("bigint").alias("minutes"), "sketch", *GROUP
    )


def rollups_as_parts(rollups: DataFrame, period: str) -> DataFrame:
    """The rows of a period, of ROLLUPS_SCHEMA, as `unite` takes them."""
    rows = add_group(rollups).where(F.col("period") == period)
    return rows.select(F.col("period_start").alias("start"), "events", "minutes", "sketch", *GROUP)


def renew_rollups(minutes: DataFrame, rollups: DataFrame, changed: DataFrame, calendar: Calendar) -> DataFrame:
    """The rows of all periods that hold a changed window, recomputed; columns of ROLLUPS_SCHEMA, `final` null.

    `changed` has `window_start` TIMESTAMP. `minutes` already holds the change, `rollups` does not; both need only the
    rows of the periods that hold one. An hour is united from its minutes, every other period from smaller periods. Runs
    a job for each period.
    """
    hour_of = calendar.bounds(F.col("window_start"), "hour").start
    hours = changed.select(hour_of.alias("hour")).distinct()
    touched = minutes.join(F.broadcast(hours), hour_of == F.col("hour"), "left_semi")
    rows = {"hour": materialize_rows(unite(minutes_as_parts(touched), calendar, "hour"))}
    for period, part in PARTS.items():
        old = rollups_as_parts(rollups, part).withColumn("renewed", F.lit(False))
        new = rollups_as_parts(rows[part], part).withColumn("renewed", F.lit(True))
        latest = F.max_by(F.struct("events", "minutes", "sketch", "renewed"), "renewed").alias("latest")
        parts = old.unionByName(new).groupBy("start", *GROUP).agg(latest).select("start", *GROUP, "latest.*")
        # A period holds a change when one of its parts does.
        within = calendar.bounds(F.col("start"), period).start
        changes = rows[part].select(calendar.bounds(F.col("period_start"), period).start.alias("within")).distinct()
        parts = parts.join(F.broadcast(changes), within == F.col("within"), "left_semi")
        rows[period] = materialize_rows(unite(parts, calendar, period))
    return join_rows(rows)


def materialize_rows(rows: DataFrame) -> DataFrame:
    """The rows, computed once: otherwise every larger period would compute those of the smaller ones again."""
    return rows.localCheckpoint()


def join_rows(rows: dict[str, DataFrame]) -> DataFrame:
    """The rows of all periods in one frame."""
    joined = rows["hour"]
    for period in PARTS:
        joined = joined.unionByName(rows[period])
    return joined


def unite_all(minutes: DataFrame, calendar: Calendar) -> DataFrame:
    """The rows of all periods from all minutes; columns of ROLLUPS_SCHEMA, `final` null. Runs a job for each period."""
    rows = {"hour": materialize_rows(unite(minutes_as_parts(minutes), calendar, "hour"))}
    for period, part in PARTS.items():
        rows[period] = materialize_rows(unite(rollups_as_parts(rows[part], part), calendar, period))
    return join_rows(rows)


def make_rollup_records(rollups: DataFrame, calendar: Calendar) -> DataFrame:
    """Turns rows of ROLLUPS_SCHEMA into Kafka records: `key` STRING, period and start in UTC; `value` STRING, JSON.

    Those of a group go on with the group, as the records of windows do.
    """
    start = F.to_csv(F.struct("period_start"), UTC_FORMAT)
    fields = ("period", "name", "period_start", "period_end", "unique_users", "events", "relative_error", "final")
    rounded = {"relative_error": F.round("relative_error", 4)}
    columns = [rounded.get(field, F.col(field)).alias(field) for field in fields]
    records = add_group(rollups).select(
        F.concat_ws(" ", "period", start).alias("key"),
        F.to_json(F.struct(*columns, F.lit(calendar.timezone).alias("timezone")), UTC_FORMAT).alias("value"),
        *GROUP,
    )
    return name_groups(records)


def select_range(minutes: DataFrame, rollups: DataFrame, calendar: Calendar, start: Column, end: Column) -> DataFrame:
    """The fewest rows that make up `[start, end)`: years, months, days and hours that fit, minutes at both edges.

    Of the rows that are given: those of one group, or of all. Returns `period` STRING, `start` TIMESTAMP, `events`,
    `minutes` BIGINT, `sketch` BINARY, and the group. `start` and `end` are
    TIMESTAMP columns of constants, at full minutes.
    """

    def fits(first: Column, last: Column) -> Column:
        return (first >= start) & (last <= end)

    rows = rollups.where((F.col("period") != "week") & fits(F.col("period_start"), F.col("period_end")))
    rows = rows.where(~F.coalesce(fits(F.col("parent_start"), F.col("parent_end")), F.lit(False)))
    hour = calendar.bounds(F.col("window_start"), "hour")
    edges = minutes.where(fits(F.col("window_start"), F.col("window_end")))
    # `near` lets Spark skip files without these hours; the condition after it is exact.
    near = (F.col("window_start") < calendar.bounds(start, "hour").end) | (
        F.col("window_start") >= calendar.bounds(end, "hour").start
    )
    edges = edges.where(near & ~fits(hour.start, hour.end))
    rows = add_group(rows).select("period", F.col("period_start").alias("start"), "events", "minutes", "sketch", *GROUP)
    return rows.unionByName(minutes_as_parts(edges).withColumn("period", F.lit("minute")))
