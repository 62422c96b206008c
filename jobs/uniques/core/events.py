"""The input contract: what an event is, which events count, and why the others do not.

An event is a JSON object with a time and a user, where a `fields.EventShape` says: by default in `ts` and `uid`. Other
fields do not matter.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.event_time import add_time
from uniques.core.fields import DEFAULT_SHAPE
from uniques.core.json_fields import STRICT_JSON, parse_fields
from uniques.times import to_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import Column, DataFrame

    from uniques.core.fields import EventShape, Field, Filter

# Why a record is no countable event, in order of precedence. No other reasons exist; docs/reference explains each.
REJECT_REASONS = (
    "tombstone",
    "unknown_schema",
    "bad_bytes",
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
# An event that a condition leaves out. Nothing is wrong with it, so it is not rejected.
FILTERED = "filtered"
OUTCOMES = (*REJECT_REASONS, FILTERED)

# Longer values of dimensions are cut: they are part of the keys of records.
MAX_NAME = 256

# A JSON value that is no object or array, to its end or to what may follow it.
SCALAR = (
    r"""^[ \t\r\n]*("([^"\\]|\\.)*"|-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|true|false|null)([ \t\r\n,\]}]|$)"""
)


def parse_events(
    records: DataFrame,
    max_future_seconds: int | None = None,
    max_age_seconds: int | None = None,
    shape: EventShape = DEFAULT_SHAPE,
    decode: Callable[[Column], Column] | None = None,
) -> DataFrame:
    """Parses the JSON in `value` (BINARY or STRING); keeps one row a record, never raises for what a value holds.

    Adds to the columns of `records`: `event_time` TIMESTAMP, `uid` STRING and `dimension_0`, `dimension_1`, … STRING,
    of the dimensions, null unless the record is a countable event; `reject_reason` STRING, one of OUTCOMES or null. If
    `records` has an arrival time (`timestamp` TIMESTAMP, as Kafka's source gives it), events more than
    `max_future_seconds` after it or more than `max_age_seconds` before it are rejected. No clock is asked, so a replay
    gives the same rows. Fields of the record that the shape names (`@key`) need the columns of Kafka's source. `decode`
    is what `decoder.send_decoder` returns for the shape, a faster parser for ordinary events; it changes no row. Raises
    ValueError for a duration that is none.
    """
    names = {field: f"read_{at}" for at, field in enumerate(shape.fields)}
    parsed = add_columns(records, {names[field]: read_record_field(field) for field in shape.record_fields})
    parsed = decode_values(parsed, shape, decode)
    text = F.col("left_to_spark").cast("string")
    paths = [*([shape.time] if shape.has_time_field else []), *shape.json_fields]
    plan = parse_fields(text, list(dict.fromkeys(paths)))
    parsed = add_columns(parsed, plan.columns)
    found = {
        names[field]: F.coalesce(f"decoded.value_{at}", plan.values[field])
        for at, field in enumerate(shape.json_fields)
    }
    parsed = read_event_time(add_columns(parsed, found), shape, plan.values.get(shape.time))
    parsed = parsed.withColumn("uid_read", find_user([names[field] for field in shape.users]))
    reason = F.when(F.col("is_decoded"), explain_decoded(shape, names)).otherwise(
        explain_parsed(shape, names, text, plan.is_object)
    )
    if "timestamp" in records.columns:
        reason = compare_arrival(reason, max_future_seconds, max_age_seconds)
    accepted = F.col("reject_reason").isNull()
    return parsed.withColumn("reject_reason", reason).select(
        *records.columns,
        F.when(accepted, F.timestamp_micros("time_read")).alias("event_time"),
        F.when(accepted, F.col("uid_read")).alias("uid"),
        *(
            F.when(accepted, F.substring(names[field], 1, MAX_NAME)).alias(f"dimension_{at}")
            for at, field in enumerate(shape.dimensions)
        ),
        "reject_reason",
    )


def add_columns(frame: DataFrame, columns: dict[str, Column]) -> DataFrame:
    """The frame with these columns too; Spark Connect takes no empty set of them."""
    return frame.withColumns(columns) if columns else frame


def decode_values(records: DataFrame, shape: EventShape, decode: Callable[[Column], Column] | None) -> DataFrame:
    """Adds what the fast parser finds, `decoded`, whether that is enough, `is_decoded`, and `left_to_spark`.

    That is the value where it is not enough, else null, so that Spark need not carry it any further.
    """
    if decode is None:
        return records.withColumns(
            {"decoded": F.lit(None).cast(schema_of(shape)), "is_decoded": F.lit(False), "left_to_spark": F.col("value")}
        )
    decoded = records.withColumn("decoded", decode(F.col("value").cast("binary")))
    enough = F.col("decoded").isNotNull()
    if shape.where is not None:
        # An event that the condition leaves out may lack anything else; of others Spark's parser says what they lack.
        columns = {field: f"decoded.value_{at}" for at, field in enumerate(shape.json_fields)}
        columns |= {field: f"read_{at}" for at, field in enumerate(shape.fields) if not field.is_json}
        user = find_user([columns[field] for field in shape.users])
        complete = user.isNotNull() & (F.col("decoded.time").isNotNull() if shape.has_time_field else F.lit(True))
        enough &= ~passes(shape.where, columns) | complete
    decoded = decoded.withColumn("is_decoded", enough)
    return decoded.withColumn("left_to_spark", F.when(~F.col("is_decoded"), F.col("value")))


def schema_of(shape: EventShape) -> str:
    """The type of what the fast parser finds of an event: its time, in microseconds or as a text, and its fields."""
    time = "STRING" if shape.time_format.pattern is not None else "BIGINT"
    values = "".join(f", value_{at}: STRING" for at in range(len(shape.json_fields)))
    return f"STRUCT<time: {time}{values}>"


def read_record_field(field: Field) -> Column:
    """The STRING that a record has beside its value; null where it has none, or what it has is not UTF-8."""
    kind, *name = field.names
    if kind == "@topic":
        return F.col("topic")
    found = F.col("key")
    if kind == "@header":
        of_name = F.filter("headers", lambda header: header["key"] == name[0])
        found = F.try_element_at(of_name, F.lit(-1))["value"]
    text = found.cast("string")
    return F.when(is_valid_utf8(text), text)


def read_event_time(parsed: DataFrame, shape: EventShape, found: Column | None) -> DataFrame:
    """Adds `time_text`, null where there is no time, and `time_read`, BIGINT microseconds, null where it is none.

    `found` is the text that Spark's parser found. Of what is decoded only `time_read` is right.
    """
    decoded = F.col("decoded.time")
    if found is None:
        # Kafka gives records of very old clients no time, -1.
        arrived = F.when(F.col("timestamp") >= F.lit(0).cast("timestamp"), F.unix_micros("timestamp"))
        return parsed.withColumns({"time_text": arrived.cast("string"), "time_read": arrived})
    if shape.time_format.pattern is not None:
        return add_time(parsed, F.coalesce(decoded, found), shape.time_format)
    parsed = add_time(parsed, found, shape.time_format)
    return parsed.withColumn("time_read", F.coalesce(decoded, "time_read"))


def find_user(columns: Sequence[str]) -> Column:
    """The first of these STRING columns that is there and not empty."""
    return F.coalesce(*(F.when(F.col(column) != "", F.col(column)) for column in columns))


def passes(where: Filter, columns: Mapping[Field, str]) -> Column:
    """Whether a condition holds, BOOLEAN; false where it is null. `columns` has the fields it is about."""
    return F.coalesce(F.expr(where.sql([columns[field] for field in where.fields])), F.lit(False))


def explain_decoded(shape: EventShape, names: Mapping[Field, str]) -> Column:
    """Why an event that the fast parser has read does not count; null when it does."""
    reason = F.lit(None).cast("string")
    if shape.where is not None:
        reason = F.when(~passes(shape.where, names), FILTERED)
    if shape.has_time_field and shape.time_format.pattern is None and all(field.is_json for field in shape.users):
        return reason
    no_time = "bad_ts" if shape.has_time_field else "missing_ts"
    lacking = F.when(F.col("time_read").isNull(), no_time).when(F.col("uid_read").isNull(), "missing_uid")
    return F.coalesce(reason, lacking)


def explain_parsed(shape: EventShape, names: Mapping[Field, str], text: Column, is_object: Column) -> Column:
    """Why a record that Spark's parser has read does not count; null when it does."""

    # The parser replaces bytes that are not UTF-8 with U+FFFD, which would make different values one.
    def is_damaged(column: str) -> Column:
        return F.col(column).contains("\ufffd") & ~is_valid_utf8(text)

    reason = F.when(F.col("left_to_spark").isNull(), "tombstone").when(~is_object, explain_malformed(text))
    if shape.where is not None:
        for field in shape.where.fields:
            if field.is_json:
                reason = reason.when(is_damaged(names[field]), "invalid_utf8")
        reason = reason.when(~passes(shape.where, names), FILTERED)
    damaged = [is_damaged(names[field]) for field in shape.dimensions if field.is_json]
    return (
        reason.when(F.col("time_text").isNull(), "missing_ts")
        .when(F.col("time_read").isNull(), "bad_ts")
        .when(F.col("uid_read").isNull(), "missing_uid")
        .when(is_any([is_damaged("uid_read"), *damaged]), "invalid_utf8")
    )


def is_any(conditions: Sequence[Column]) -> Column:
    """Whether one of several conditions holds; a null one does not."""
    return reduce(or_, (F.coalesce(condition, F.lit(False)) for condition in conditions))


def list_dimensions(frame: DataFrame) -> list[str]:
    """The columns of dimensions of a frame of events, in order."""
    return [name for name in frame.columns if name.startswith("dimension_")]


def compare_arrival(reason: Column, max_future_seconds: int | None, max_age_seconds: int | None) -> Column:
    """The reason, or, where there is none, that the time is too far from the arrival time, `timestamp`."""
    time = F.timestamp_micros("time_read")
    # Kafka gives records of very old clients no time, -1: these can't be validated.
    arrived = F.col("timestamp") >= F.lit(0).cast("timestamp")
    if max_future_seconds is not None:
        latest = F.col("timestamp") + F.expr(f"INTERVAL {to_interval(max_future_seconds)}")
        reason = F.coalesce(reason, F.when(arrived & (time > latest), "ts_in_future"))
    if max_age_seconds is not None:
        earliest = F.col("timestamp") - F.expr(f"INTERVAL {to_interval(max_age_seconds)}")
        reason = F.coalesce(reason, F.when(arrived & (time < earliest), "ts_too_old"))
    return reason


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


def accept_events(parsed: DataFrame) -> DataFrame:
    """Keeps the countable events of `parse_events`: `event_time` TIMESTAMP, `uid` STRING, neither null; dimensions."""
    return parsed.where(F.col("reject_reason").isNull()).select("event_time", "uid", *list_dimensions(parsed))


def reject_events(parsed: DataFrame) -> DataFrame:
    """Keeps the rejected records of `parse_events`, with all their columns and `reject_reason`.

    Events outside the range that was asked for, and filtered ones, are left out: nothing is wrong with them.
    """
    return parsed.where(F.col("reject_reason").isNotNull() & ~F.col("reject_reason").isin("outside_range", FILTERED))
