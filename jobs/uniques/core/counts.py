"""Counting: window, unique users, and the record that goes out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.events import list_dimensions
from uniques.core.sketches import normalize_sketch, sketch_error
from uniques.times import to_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame

# ISO 8601 in UTC, independent of the session's time zone.
UTC_FORMAT = {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss'Z'"}


@dataclass(frozen=True)
class Counter:
    """How users are counted: `name`, one of `choices.COUNTERS`, and what it and the sketch of a window are made with.

    `rsd` is that of `approx_count_distinct`, 2^`lg_k` the registers of a sketch; `with_sketch`: a window keeps one.
    """

    name: str = "approx_count_distinct"
    rsd: float = 0.05
    lg_k: int = 12
    with_sketch: bool = False

    @property
    def relative_error(self) -> float:
        """One standard error of `unique_users`, relative to it; 0 when it is exact."""
        errors = {"approx_count_distinct": hll_error(self.rsd), "hll_sketch": sketch_error(self.lg_k), "exact": 0.0}
        return errors[self.name]

    def aggregates(self) -> list[Column]:
        """What a window keeps of its users: `counted`, as the counter needs it, and perhaps `sketch` BINARY."""
        counted = {
            "approx_count_distinct": F.approx_count_distinct("uid", self.rsd),
            "hll_sketch": normalize_sketch(F.hll_sketch_agg("uid", self.lg_k)),
            # Spark has no COUNT(DISTINCT) on a stream.
            "exact": F.collect_set("uid"),
        }[self.name]
        # Spark computes equal aggregates once, so a sketch that is also the counter is not made twice.
        sketches = [normalize_sketch(F.hll_sketch_agg("uid", self.lg_k)).alias("sketch")] if self.with_sketch else []
        return [counted.alias("counted"), *sketches]

    def unique_users(self) -> Column:
        """`unique_users` BIGINT out of `counted`."""
        counted = F.col("counted")
        if self.name == "hll_sketch":
            counted = F.hll_sketch_estimate(counted)
        elif self.name == "exact":
            counted = F.size(counted)
        return counted.cast("bigint").alias("unique_users")

    @property
    def of_groups(self) -> Counter:
        """How the users of groups are counted: exactly, or with sketches, which can be united."""
        return self if self.name == "exact" else replace(self, name="hll_sketch")


DEFAULT_COUNTER = Counter()
# The groups of a window: `group` is a JSON object, path -> value or null; `other` stands for all groups without a name.
GROUPS_SCHEMA = "ARRAY<STRUCT<group: STRING, other: BOOLEAN, unique_users: BIGINT, events: BIGINT, sketch: BINARY>>"


def set_watermark(events: DataFrame, punctuation: DataFrame) -> DataFrame:
    """Unites events with punctuation, which alone moves the watermark: the largest time in it.

    Both have `event_time` TIMESTAMP and `uid` STRING, null in punctuation. On a stream Spark drops events of windows
    that end at the watermark or before, and forgets these windows. Events don't move the watermark, however far ahead
    they are: in a union it is that of the first frame.
    """
    return punctuation.withWatermark("event_time", to_interval(0)).unionByName(events, allowMissingColumns=True)


def count_unique_users(
    events: DataFrame,
    window_seconds: int = 60,
    counter: Counter = DEFAULT_COUNTER,
    count_groups: Callable[[Column, list[Column]], Column] | None = None,
    slide_seconds: int | None = None,
) -> DataFrame:
    """Counts users per window of event time, tumbling, or hopping by `slide_seconds`.

    Takes `event_time` TIMESTAMP and `uid` STRING; on a stream with a watermark, by which Spark forgets windows. Returns
    a row a window `[window_start, window_end)`: both TIMESTAMP, aligned to the epoch; `unique_users` BIGINT, as exact
    as `counter` is; `events` BIGINT, exact; `last_event` TIMESTAMP, the latest event time; and with
    `counter.with_sketch` `sketch` BINARY. `count_groups` is what `grouping.send_grouper` returns: a row then has
    `groups`, of GROUPS_SCHEMA too. Rows with a null `uid` are punctuation, and are not counted. Raises ValueError for a
    duration that is none.
    """
    slide = None if slide_seconds is None else to_interval(slide_seconds, minimum=1)
    values = [F.col(name) for name in list_dimensions(events)]
    groups = [] if count_groups is None else [count_groups(F.col("uid"), values).alias("groups")]
    return (
        # Spark would push a plain `uid IS NOT NULL` below the watermark, and punctuation would never reach it.
        events.where(F.when(F.col("event_time").isNotNull(), F.col("uid").isNotNull()))
        .groupBy(F.window("event_time", to_interval(window_seconds, minimum=1), slide))
        .agg(
            *counter.aggregates(),
            F.count(F.lit(1)).alias("events"),
            F.max("event_time").alias("last_event"),
            *groups,
        )
        .select(
            F.col("window.start").alias("window_start"),
            F.col("window.end").alias("window_end"),
            counter.unique_users(),
            "events",
            "last_event",
            *(["sketch"] if counter.with_sketch else []),
            *(["groups"] if groups else []),
        )
    )


def list_parts(counts: DataFrame) -> DataFrame:
    """Rows of `count_unique_users`, and behind each the groups of its window as rows of their own.

    Without `groups`, with `group` STRING, null in the first rows, and `other` BOOLEAN.
    """
    if "groups" not in counts.columns:
        return counts.withColumns({"group": F.lit(None).cast("string"), "other": F.lit(False)})
    sketch = F.col("sketch") if "sketch" in counts.columns else F.lit(None).cast("binary")
    total = F.struct(
        F.lit(None).cast("string").alias("group"),
        F.lit(False).alias("other"),
        "unique_users",
        "events",
        sketch.alias("sketch"),
    )
    parts = F.explode(F.concat(F.array(total), "groups")).alias("part")
    columns = [name for name in counts.columns if name not in {"unique_users", "events", "sketch", "groups"}]
    kept = ["group", "other", "unique_users", "events", *(["sketch"] if "sketch" in counts.columns else [])]
    return counts.select(*columns, parts).select(*columns, *(f"part.{name}" for name in kept))


def make_changes(counts: DataFrame) -> DataFrame:
    """Rows of `count_unique_users` as the driver takes them: numbers and text, which need no time zone.

    `start` BIGINT and `newest` DOUBLE in unix seconds, `unique_users` BIGINT, `events` BIGINT, `sketch` STRING, base64
    or null; `group` STRING, null for the window itself, and `other` BOOLEAN, as `list_parts` has them.
    """
    counts = list_parts(counts)
    sketch = F.base64("sketch") if "sketch" in counts.columns else F.lit(None).cast("string")
    return counts.select(
        F.unix_seconds("window_start").alias("start"),
        "unique_users",
        "events",
        (F.unix_micros("last_event") / 1e6).alias("newest"),
        sketch.alias("sketch"),
        "group",
        "other",
    )


def observe_counts(counts: DataFrame) -> DataFrame:
    """Attaches the observation `results` to rows of `count_unique_users`: `rows` BIGINT, how many."""
    return counts.observe("results", F.count(F.lit(1)).alias("rows"))


def hll_error(rsd: float) -> float:
    """One standard error of `approx_count_distinct(…, rsd)`, relative to the count.

    Spark takes the smallest HyperLogLog++ of m = 2^p registers with 1.106 / sqrt(m) <= rsd, so the error is that of
    the m it took, at most `rsd`. Source: `HyperLogLogPlusPlusHelper.trueRsd` in Spark, after Heule, Nunkesser and
    Hall, "HyperLogLog in Practice", 2013, which gives 1.04 / sqrt(m) for the estimator itself.
    """
    precision = math.ceil(2.0 * math.log2(1.106 / rsd))
    return 1.106 / math.sqrt(2**precision)


def make_records(counts: DataFrame, counter: Counter, final: bool, revision: int) -> DataFrame:
    """Turns rows of `count_unique_users` into Kafka records: `key` STRING, the window's start; `value` STRING, JSON.

    The value holds nothing that depends on the batch, so a replayed batch writes equal records. `final` says that no
    other record for the window follows. Of several records for a window the one with the highest `revision` is valid.
    A sketch is in base64. The groups of a window have records of their own: the key goes on with the group.
    """
    counts = list_parts(counts)

    def either(of_total: str | float, of_group: str | float) -> Column:
        return F.when(F.col("group").isNull(), of_total).otherwise(of_group)

    errors = [round(each.relative_error, 4) for each in (counter, counter.of_groups)]
    key = F.to_csv(F.struct("window_start"), UTC_FORMAT)
    records = counts.select(
        key.alias("key"),
        F.to_json(
            F.struct(
                "window_start",
                "window_end",
                "unique_users",
                "events",
                either(counter.name, counter.of_groups.name).alias("counter"),
                either(*errors).alias("relative_error"),
                F.lit(final).alias("final"),
                F.lit(revision).cast("bigint").alias("revision"),
                *([F.base64("sketch").alias("sketch")] if counter.with_sketch else []),
            ),
            UTC_FORMAT,
        ).alias("value"),
        "group",
        "other",
    )
    return name_groups(records)


def name_groups(records: DataFrame) -> DataFrame:
    """Adds the group, JSON, and `other`, both perhaps null, to key and value of records; returns `key` and `value`."""
    end = F.concat(F.lit(',"group":'), "group", F.when(F.col("other"), ',"other":true}').otherwise("}"))
    value = F.concat(F.expr("left(value, length(value) - 1)"), end)
    key = F.concat("key", F.lit(" "), "group", F.when(F.col("other"), " other").otherwise(""))
    return records.select(F.coalesce(key, "key").alias("key"), F.coalesce(value, "value").alias("value"))
