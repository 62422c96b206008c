"""The input contract: what an event is, and which events count.

An event is a JSON object with `ts`, unix seconds as a JSON number or a string of digits, and `uid`, a string; other
fields, and fields of these names in nested objects, do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

# `ts` as STRING: a BIGINT field would turn "1468244384" (quoted) into null. Only the fields that are needed, because
# parsing is what costs.
EVENT_SCHEMA = "ts STRING, uid STRING"

# Year 10000 and later is no plausible time in seconds (milliseconds of today are), and Python can't show it.
MAX_TS_SECONDS = 253_402_300_799


def parse_events(records: DataFrame) -> DataFrame:
    """Parses the JSON in `value` (BINARY or STRING); keeps one row a record, never raises for what a value holds.

    Returns `event_time` TIMESTAMP and `uid` STRING, both null when the record is not a countable event. The frame
    carries the observation `events` (`read`, `accepted`: rows), which a StreamingQueryListener sees for every batch.
    """
    event = F.from_json(F.col("value").cast("string"), EVENT_SCHEMA).alias("event")
    # try_cast and a range check: an ANSI cast, or a time no timestamp can hold, would end the query.
    ts = F.expr("try_cast(event.ts AS BIGINT)")
    uid = F.col("event.uid")
    is_event = ts.between(0, MAX_TS_SECONDS) & (uid != "")
    return (
        records.select(event)
        .select(F.when(is_event, ts.cast("timestamp")).alias("event_time"), F.when(is_event, uid).alias("uid"))
        # The observation is also a barrier: without it Spark pushes the filters that follow below the parse and
        # parses every record twice.
        .observe("events", F.count(F.lit(1)).alias("read"), F.count("event_time").alias("accepted"))
    )


def accept_events(parsed: DataFrame) -> DataFrame:
    """Keeps the countable events of `parse_events`: `event_time` TIMESTAMP, `uid` STRING, neither null."""
    return parsed.where(F.col("event_time").isNotNull())
