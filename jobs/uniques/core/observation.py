"""The observation of a batch: what the accounting and progress read of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.events import OUTCOMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame, Observation

# The accounting is exact for so many distinct windows in a batch: 7 days of minutes.
MAX_WINDOWS_A_BATCH = 10_000

# Positions of partitions: times are told apart by so many seconds. Where a batch has more of them than there are bins,
# neighbours in a partition are merged; partitions are not, because they are further apart than any two times.
POSITION_SECONDS = 10
POSITION_BINS = 2_048
# A position is a DOUBLE, exact up to 2^53: the topic, the partition, and the time, which is cut off in the year 2310.
POSITION_SPAN = 2.0**30
MAX_PARTITIONS, MAX_TOPICS = 2**14, 2**9


def observe_events(
    parsed: DataFrame,
    window_seconds: int | None = None,
    observation: str | Observation = "events",
    topics: Sequence[str] | None = None,
) -> DataFrame:
    """Attaches the observation that `accounting` reads; rows and columns of `parse_events` stay as they are.

    `read` BIGINT: rows; `last_arrival` BIGINT: latest arrival, unix milliseconds, null without one; `rejected` and
    `windows` STRING, JSON `[{"x":…,"y":…}]` (before Spark 4.1 Python gets no arrays from an observation): how many rows
    (y) do not count for the reason with index x in OUTCOMES, and how many accepted ones belong to the window that ends
    at second x. These histograms are exact as long as no more distinct x occur than they have bins (Spark's
    NumericHistogram merges bins only then). Without `window_seconds` `windows` is null: it is not needed everywhere,
    and in history with few events a window it is slow. `positions` STRING is the same for how many accepted events a
    Kafka partition had at which time; `read_position` reads an x. Null without `topics`, those whose records these are,
    as far as they are known.

    The observation also keeps Spark from pushing the filters that follow below the parse, where they would have every
    record parsed twice.
    """
    # An SQL expression, because array_position of Spark 3.5 takes no column to look for.
    reasons = ", ".join(f"'{reason}'" for reason in OUTCOMES)
    code = F.expr(f"if(reject_reason IS NULL, NULL, array_position(array({reasons}), reject_reason))")
    windows = F.lit(None).cast("string")
    if window_seconds is not None:
        end = (F.floor(F.unix_seconds("event_time") / window_seconds) + 1) * window_seconds
        # DOUBLE: for integers Spark cuts off the fractions that merging leaves, and is then off by one.
        windows = F.to_json(F.histogram_numeric(end.cast("double"), F.lit(MAX_WINDOWS_A_BATCH)))
    positions = F.lit(None).cast("string")
    if topics is not None:
        position = F.when(F.col("event_time").isNotNull(), make_position(topics))
        positions = F.to_json(F.histogram_numeric(position, F.lit(POSITION_BINS)))
    arrival = F.unix_millis("timestamp") if "timestamp" in parsed.columns else F.lit(None).cast("bigint")
    return parsed.observe(
        observation,
        F.max(arrival).alias("last_arrival"),
        F.count(F.lit(1)).alias("read"),
        F.to_json(F.histogram_numeric((code - 1).cast("double"), F.lit(2 * len(OUTCOMES)))).alias("rejected"),
        windows.alias("windows"),
        positions.alias("positions"),
    )


def make_position(topics: Sequence[str]) -> Column:
    """The x of `positions`, DOUBLE, of an event with `topic`, `partition` and `event_time`."""
    time = F.least(F.floor(F.unix_seconds("event_time") / POSITION_SECONDS), F.lit(int(POSITION_SPAN) - 1))
    topic = F.pmod(F.crc32("topic"), F.lit(MAX_TOPICS))
    for code, name in enumerate(topics):
        topic = F.when(F.col("topic") == name, code).otherwise(topic) if len(topics) > 1 else F.lit(code)
    partition = F.pmod("partition", F.lit(MAX_PARTITIONS))
    return (topic * MAX_PARTITIONS + partition).cast("double") * POSITION_SPAN + time


def read_position(x: float) -> tuple[int, int, float]:
    """The code of the topic, the partition and the time, unix seconds, of an x of `positions` in `observe_events`."""
    place, time = divmod(x, POSITION_SPAN)
    topic, partition = divmod(int(place), MAX_PARTITIONS)
    return topic, partition, time * POSITION_SECONDS


def code_topic(topic: str, topics: Sequence[str]) -> int:
    """The code that `make_position` gives a topic. Two that are not in `topics` may have the same."""
    return topics.index(topic) if topic in topics else zlib.crc32(topic.encode()) % MAX_TOPICS
