"""Counting: window, unique users, and the record that goes out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.sketches import normalize_sketch, sketch_error
from uniques.times import to_interval

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

# ISO 8601 in UTC, independent of the session's time zone.
UTC_FORMAT = {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss'Z'"}


@dataclass(frozen=True)
class Counter:
    """How users are counted: `name`, one of `choices.COUNTERS`, and what it and the sketch of a window are made with.

    `rsd` is that of `approx_count_distinct`, 2^`lg_k` the registers of a sketch; `with_sketch`: a window keeps one.
    """

    name: str = "approx_count_distinct"
    rsd: float = 0.02
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


DEFAULT_COUNTER = Counter()


def count_unique_users(
    events: DataFrame, window_seconds: int = 60, watermark_seconds: int = 5, counter: Counter = DEFAULT_COUNTER
) -> DataFrame:
    """Counts users per tumbling window of event time.

    Takes `event_time` TIMESTAMP and `uid` STRING. Returns a row a window `[window_start, window_end)`: both
    TIMESTAMP, aligned to the epoch; `unique_users` BIGINT, as exact as `counter` is; `events` BIGINT, exact; and with
    `counter.with_sketch` `sketch` BINARY. Rows with a null `uid` are punctuation: they move the watermark and are not
    counted. On a stream a window is open until the watermark, `watermark_seconds` behind the largest event time seen,
    passes its end; events that come later are dropped. A static frame has no watermark. Raises ValueError for a
    duration that is none.
    """
    return (
        events.withWatermark("event_time", to_interval(watermark_seconds))
        # Spark would push a plain `uid IS NOT NULL` below the watermark, and punctuation would never reach it.
        .where(F.when(F.col("event_time").isNotNull(), F.col("uid").isNotNull()))
        .groupBy(F.window("event_time", to_interval(window_seconds, minimum=1)))
        .agg(*counter.aggregates(), F.count(F.lit(1)).alias("events"))
        .select(
            F.col("window.start").alias("window_start"),
            F.col("window.end").alias("window_end"),
            counter.unique_users(),
            "events",
            *(["sketch"] if counter.with_sketch else []),
        )
    )


def observe_counts(counts: DataFrame) -> DataFrame:
    """Attaches the observation `results` to rows of `count_unique_users`, which stay as they are.

    `rows` BIGINT, how many; `last_window_end` BIGINT, unix seconds, and `last_window_users` BIGINT: the latest window
    among them; null for none.
    """
    return counts.observe(
        "results",
        F.count(F.lit(1)).alias("rows"),
        F.max(F.unix_seconds("window_end")).alias("last_window_end"),
        F.max_by("unique_users", "window_end").alias("last_window_users"),
    )


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
    A sketch is in base64.
    """
    return counts.select(
        F.to_csv(F.struct("window_start"), UTC_FORMAT).alias("key"),
        F.to_json(
            F.struct(
                "window_start",
                "window_end",
                "unique_users",
                "events",
                F.lit(counter.name).alias("counter"),
                F.lit(round(counter.relative_error, 4)).alias("relative_error"),
                F.lit(final).alias("final"),
                F.lit(revision).cast("bigint").alias("revision"),
                *([F.base64("sketch").alias("sketch")] if counter.with_sketch else []),
            ),
            UTC_FORMAT,
        ).alias("value"),
    )
