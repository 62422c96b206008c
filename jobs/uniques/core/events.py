"""The input contract: what an event is, which events count, and why the others do not.

An event is a JSON object with `ts`, unix time as a JSON number or a string of digits, and `uid`, a string; other
fields, and fields of these names in nested objects, do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.choices import TS_UNITS
from uniques.times import to_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, DataFrame, Observation

# `ts` is a STRING, because a BIGINT field turns the quoted "1468244384" into null. Only the fields that are needed,
# because parsing is the largest cost.
EVENT_SCHEMA = "ts STRING, uid STRING, malformed STRING"

# By default Spark also accepts single quotes and NaN, which are not JSON.
STRICT_JSON = {
    "columnNameOfCorruptRecord": "malformed",
    "allowSingleQuotes": "false",
    "allowNonNumericNumbers": "false",
}

# Why a record is no countable event, in order of precedence. No other reasons exist; docs/reference explains each.
REJECT_REASONS = (
    "tombstone",
    "invalid_utf8",
    "not_an_object",
    "not_json",
    "missing_ts",
    "bad_ts",
    "missing_uid",
    "ts_in_future",
    "ts_too_old",
    "outside_range",
)

# The end of the year 9999 in seconds. Later times are not plausible (milliseconds are), and Python can't show them.
MAX_TS_SECONDS = 253_402_300_799
MAX_LONG = 2**63 - 1

# A JSON value that is no object or array, to its end or to what may follow it.
SCALAR = (
    r"""^[ \t\r\n]*("([^"\\]|\\.)*"|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null)([ \t\r\n,\]}]|$)"""
)

# The accounting is exact for so many distinct windows in a batch: 7 days of minutes.
MAX_WINDOWS_A_BATCH = 10_000

# Positions of partitions: times are told apart by so many seconds. Where a batch has more of them than there are bins,
# neighbours in a partition are merged; partitions are not, because they are further apart than any two times.
POSITION_SECONDS = 10
POSITION_SPAN = float(2**36)
POSITION_BINS = 2_048


def parse_events(
    records: DataFrame,
    max_future_seconds: int | None = None,
    max_age_seconds: int | None = None,
    ts_unit: str = "s",
    decode: Callable[[Column], Column] | None = None,
) -> DataFrame:
    """Parses the JSON in `value` (BINARY or STRING); keeps one row a record, never raises for what a value holds.

    Adds to the columns of `records`: `event_time` TIMESTAMP and `uid` STRING, null unless the record is a countable
    event, and `reject_reason` STRING, one of REJECT_REASONS or null. `ts_unit` is a key of TS_UNITS. When `records` has
    an arrival time (`timestamp` TIMESTAMP, as Kafka's source gives it), events more than `max_future_seconds` after it
    or more than `max_age_seconds` before it are rejected. No clock is asked, so a replay gives the same rows.
    `decode` is what `decoder.send_decoder` returns, a faster parser for ordinary events; it changes no row.
    Raises ValueError for a duration that is none.
    """
    # An ANSI error, or a time that no timestamp holds, would end the query: hence try_ functions and a range check.
    ts = F.expr("try_cast(event.ts AS BIGINT)")
    ts_read, uid = F.when(ts.between(0, largest_ts(ts_unit)), ts), F.col("event.uid")
    if decode is None:
        parsed, left = records, "value"
    else:
        decoded, left = F.col("decoded"), "left_to_spark"
        parsed = records.withColumn("decoded", decode(F.col("value").cast("binary")))
        # Null once decoded, so that Spark need not carry the value any further.
        parsed = parsed.withColumn(left, F.when(decoded.isNull(), F.col("value")))
        ts_read, uid = F.coalesce("decoded.ts", ts_read), F.coalesce("decoded.uid", uid)
    text = F.col(left).cast("string")
    parsed = parsed.withColumn("event", F.from_json(text, EVENT_SCHEMA, STRICT_JSON))
    timed = parsed.withColumns({"ts_read": ts_read, "uid_read": uid})
    reason = (
        F.when(F.col(left).isNull(), "tombstone")
        .when(F.col("event.malformed").isNotNull() | F.col("event").isNull(), explain_malformed(text))
        .when(F.col("event.ts").isNull(), "missing_ts")
        .when(F.col("ts_read").isNull(), "bad_ts")
        .when(F.col("event.uid").isNull() | (F.col("event.uid") == ""), "missing_uid")
        # The parser replaces bytes that are not UTF-8 with U+FFFD, which would make different users one.
        .when(F.col("event.uid").contains("\ufffd") & ~is_valid_utf8(text), "invalid_utf8")
    )
    if decode is not None:
        reason = F.when(F.col("decoded").isNull(), reason)
    time = to_timestamp("ts_read", ts_unit)
    if "timestamp" in records.columns:
        # Kafka gives records of very old clients no time, -1: these can't be validated.
        arrived = F.col("timestamp") >= F.lit(0).cast("timestamp")
        if max_future_seconds is not None:
            latest = F.col("timestamp") + F.expr(f"INTERVAL {to_interval(max_future_seconds)}")
            reason = F.coalesce(reason, F.when(arrived & (time > latest), "ts_in_future"))
        if max_age_seconds is not None:
            earliest = F.col("timestamp") - F.expr(f"INTERVAL {to_interval(max_age_seconds)}")
            reason = F.coalesce(reason, F.when(arrived & (time < earliest), "ts_too_old"))
    validated = timed.withColumn("reject_reason", reason)
    accepted = F.col("reject_reason").isNull()
    return validated.select(
        *records.columns,
        F.when(accepted, time).alias("event_time"),
        F.when(accepted, F.col("uid_read")).alias("uid"),
        "reject_reason",
    )


def largest_ts(ts_unit: str) -> int:
    """The largest `ts` that is a time, in its unit."""
    return min(MAX_TS_SECONDS * TS_UNITS[ts_unit], MAX_LONG)


def to_timestamp(column: str, ts_unit: str) -> Column:
    """A BIGINT column in `ts_unit`, within range, as TIMESTAMP; nanoseconds are cut to microseconds."""
    if ts_unit == "s":
        return F.col(column).cast("timestamp")
    if ts_unit == "ns":
        return F.expr(f"timestamp_micros({column} DIV 1000)")
    return F.expr(f"timestamp_micros(try_multiply({column}, {TS_UNITS['us'] // TS_UNITS[ts_unit]}))")


def is_valid_utf8(text: Column) -> Column:
    """Whether a STRING, which may have been cast from any BINARY, is UTF-8."""
    if hasattr(F, "is_valid_utf8"):
        return F.is_valid_utf8(text)
    # Spark 3.5: there decoding replaces what is no UTF-8, and never raises.
    value = text.cast("binary")
    return F.encode(F.decode(value, "UTF-8"), "UTF-8") == value


def explain_malformed(text: Column) -> Column:
    """The reject reason of a value that is no JSON object."""
    is_json = F.from_json(text, "ARRAY<STRING>", STRICT_JSON).isNotNull() | text.rlike(SCALAR)
    return F.when(~is_valid_utf8(text), "invalid_utf8").when(is_json, "not_an_object").otherwise("not_json")


def limit_events(parsed: DataFrame, start_time: int | None, end_time: int | None) -> DataFrame:
    """Rejects the countable events of `parse_events` outside `[start_time, end_time)`, unix seconds; None: no limit."""
    inside = F.lit(True)
    if start_time is not None:
        inside &= F.col("event_time") >= F.timestamp_seconds(F.lit(start_time))
    if end_time is not None:
        inside &= F.col("event_time") < F.timestamp_seconds(F.lit(end_time))
    reason = F.when(F.col("reject_reason").isNull() & ~inside, "outside_range").otherwise(F.col("reject_reason"))
    return parsed.withColumns(
        {
            "event_time": F.when(inside, F.col("event_time")),
            "uid": F.when(inside, F.col("uid")),
            "reject_reason": reason,
        }
    )


def observe_events(
    parsed: DataFrame,
    window_seconds: int | None = None,
    observation: str | Observation = "events",
    with_positions: bool = False,
) -> DataFrame:
    """Attaches the observation that `accounting` reads; rows and columns of `parse_events` stay as they are.

    `read` BIGINT: rows; `last_arrival` BIGINT: latest arrival, unix milliseconds, null without one; `rejected` and
    `windows` STRING, JSON `[{"x":…,"y":…}]` (before Spark 4.1 Python gets no arrays from an observation): how many rows
    (y) were rejected for the reason with index x, and how many accepted ones belong to the window that ends at second
    x. These histograms are exact as long as no more distinct x occur than they have bins (Spark's NumericHistogram
    merges bins only then). Without `window_seconds` `windows` is null: it is not needed everywhere, and in history with
    few events a window it is slow. `positions` STRING is the same for how many accepted events a Kafka partition had at
    which time; `read_position` reads an x. Null without `with_positions`.

    The observation also keeps Spark from pushing the filters that follow below the parse, where they would have every
    record parsed twice.
    """
    # An SQL expression, because array_position of Spark 3.5 takes no column to look for.
    reasons = ", ".join(f"'{reason}'" for reason in REJECT_REASONS)
    code = F.expr(f"if(reject_reason IS NULL, NULL, array_position(array({reasons}), reject_reason))")
    windows = F.lit(None).cast("string")
    if window_seconds is not None:
        end = (F.floor(F.unix_seconds("event_time") / window_seconds) + 1) * window_seconds
        # DOUBLE: for integers Spark cuts off the fractions that merging leaves, and is then off by one.
        windows = F.to_json(F.histogram_numeric(end.cast("double"), F.lit(MAX_WINDOWS_A_BATCH)))
    positions = F.lit(None).cast("string")
    if with_positions:
        time = F.floor(F.unix_seconds("event_time") / POSITION_SECONDS)
        position = F.when(F.col("event_time").isNotNull(), F.col("partition").cast("double") * POSITION_SPAN + time)
        positions = F.to_json(F.histogram_numeric(position, F.lit(POSITION_BINS)))
    arrival = F.unix_millis("timestamp") if "timestamp" in parsed.columns else F.lit(None).cast("bigint")
    return parsed.observe(
        observation,
        F.max(arrival).alias("last_arrival"),
        F.count(F.lit(1)).alias("read"),
        F.to_json(F.histogram_numeric((code - 1).cast("double"), F.lit(2 * len(REJECT_REASONS)))).alias("rejected"),
        windows.alias("windows"),
        positions.alias("positions"),
    )


def read_position(x: float) -> tuple[int, float]:
    """The partition and the time, unix seconds, of an x of `positions` in `observe_events`."""
    partition, time = divmod(x, POSITION_SPAN)
    return int(partition), time * POSITION_SECONDS


def accept_events(parsed: DataFrame) -> DataFrame:
    """Keeps the countable events of `parse_events`: `event_time` TIMESTAMP, `uid` STRING, neither null."""
    return parsed.where(F.col("reject_reason").isNull()).select("event_time", "uid")


def reject_events(parsed: DataFrame) -> DataFrame:
    """Keeps the rejected records of `parse_events`, with all their columns and `reject_reason`.

    Events outside the range that was asked for are left out: nothing is wrong with them.
    """
    return parsed.where(F.col("reject_reason").isNotNull() & (F.col("reject_reason") != "outside_range"))
