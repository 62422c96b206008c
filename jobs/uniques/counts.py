"""Counting: window, unique users, and the record that goes out."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

COUNTER = "approx_count_distinct"
# ISO 8601 in UTC, whatever the session's time zone is.
UTC_FORMAT = {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss'Z'"}


def count_unique_users(
    events: DataFrame, window: str = "1 minute", watermark: str = "5 seconds", rsd: float = 0.02
) -> DataFrame:
    """Counts users per tumbling window of event time.

    Takes `event_time` TIMESTAMP and `uid` STRING. Returns a row a window `[window_start, window_end)`: both
    TIMESTAMP, aligned to the epoch; `unique_users` BIGINT, estimated with relative standard deviation `rsd` at the
    most; `events` BIGINT, exact. Rows with a null `uid` are punctuation: they move the watermark and are not counted.
    On a stream a window is open until the watermark, `watermark` behind the largest
    event time seen, passes its end; events that come later are dropped. On a static frame `watermark` means nothing.
    """
    return (
        events.withWatermark("event_time", watermark)
        # As a plain `uid IS NOT NULL` Spark would push it below the watermark, which punctuation then never reached.
        .where(F.when(F.col("event_time").isNotNull(), F.col("uid").isNotNull()))
        .groupBy(F.window("event_time", window))
        .agg(
            F.approx_count_distinct("uid", rsd).alias("unique_users"),
            F.count(F.lit(1)).alias("events"),
        )
        .select(
            F.col("window.start").alias("window_start"),
            F.col("window.end").alias("window_end"),
            "unique_users",
            "events",
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


def relative_error(rsd: float) -> float:
    """One standard error of `approx_count_distinct(…, rsd)`, relative to the count.

    Spark takes the smallest HyperLogLog++ of m = 2^p registers with 1.106 / sqrt(m) <= rsd, so the error is that of
    the m it took, at most `rsd`. Source: `HyperLogLogPlusPlusHelper.trueRsd` in Spark, after Heule, Nunkesser and
    Hall, "HyperLogLog in Practice", 2013, which gives 1.04 / sqrt(m) for the estimator itself.
    """
    precision = math.ceil(2.0 * math.log2(1.106 / rsd))
    return 1.106 / math.sqrt(2**precision)


def make_records(counts: DataFrame, rsd: float, final: bool) -> DataFrame:
    """Turns rows of `count_unique_users` into Kafka records: `key` STRING, the window's start; `value` STRING, JSON.

    The value repeats nothing that depends on the batch, so a replayed batch writes equal records. `final` says that
    no other record for the same window follows.
    """
    return counts.select(
        F.to_csv(F.struct("window_start"), UTC_FORMAT).alias("key"),
        F.to_json(
            F.struct(
                "window_start",
                "window_end",
                "unique_users",
                "events",
                F.lit(COUNTER).alias("counter"),
                F.lit(round(relative_error(rsd), 4)).alias("relative_error"),
                F.lit(final).alias("final"),
            ),
            UTC_FORMAT,
        ).alias("value"),
    )
