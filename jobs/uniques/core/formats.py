"""Other formats than JSON: a step before `events.parse_events`, which turns the bytes of a record into a JSON text.

`value` becomes that text, and `record_value` keeps the bytes, until `restore_values` takes the text away again. The
functions of `uniques.schemas` decide what can be read; here is where they get their bytes from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from pyspark.sql import Column
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pyspark.sql import DataFrame

# From a BINARY column to the STRING of a JSON object; null where the bytes are none of the schema.
Decode: TypeAlias = Callable[[Column], Column]

MAGIC = b"\x00"
HEAD_BYTES = 5  # the magic byte, and the id of the schema: 4 bytes, the highest first
MAX_ID = 2**31 - 1


class Schema(NamedTuple):
    """A schema as a registry or a file has it: `files` are names and texts, each behind those that it refers to."""

    files: tuple[tuple[str, str], ...]


def decode_values(records: DataFrame, decode: Decode) -> DataFrame:
    """Reads the bytes in `value` (BINARY) as one schema; adds what `restore_values` takes away again.

    `unreadable` STRING is the reject reason of a record that can't be read, else null.
    """
    kept = records.withColumn("record_value", F.col("value")).withColumn("value", decode(F.col("value")))
    is_bad = F.col("record_value").isNotNull() & F.col("value").isNull()
    return kept.withColumn("unreadable", F.when(is_bad, "bad_bytes"))


def decode_framed(
    records: DataFrame, decoders: Mapping[int, Decode], absent: Collection[int], note: Decode | None = None
) -> DataFrame:
    """Reads values in Confluent's wire format, each with the schema of its id; adds the same as `decode_values`.

    `absent` are ids without a schema, whose values are rejected as `unknown_schema`. So are values of any other id,
    and `note` is called with these: a function of a BIGINT column whose result, a STRING, is null.
    """
    value = F.col("record_value")
    schema_id = F.when(is_framed(value), F.conv(F.hex(F.substring(value, 2, 4)), 16, 10).cast("bigint"))
    kept = records.withColumn("record_value", F.col("value")).withColumn("schema_id", schema_id)
    found, payload = F.col("schema_id"), strip_head(value)
    text = F.when(found.isNull(), None)
    for number, decode in decoders.items():
        text = text.when(found == number, decode(payload))
    if note is not None:
        text = text.when(found.between(1, MAX_ID) & ~found.isin(list(absent)), note(found))
    kept = kept.withColumn("value", text)
    reason = (
        F.when(value.isNull() | F.col("value").isNotNull(), None)
        .when(found.isNull() | found.isin(list(decoders)), "bad_bytes")
        .otherwise("unknown_schema")
    )
    return kept.withColumn("unreadable", reason).drop("schema_id")


def strip_frames(records: DataFrame) -> DataFrame:
    """Takes JSON out of Confluent's wire format, where it needs no schema; adds the same as `decode_values`."""
    value = F.col("record_value")
    kept = records.withColumn("record_value", F.col("value"))
    kept = kept.withColumn("value", F.when(is_framed(value), strip_head(value)))
    return kept.withColumn("unreadable", F.when(value.isNotNull() & F.col("value").isNull(), "bad_bytes"))


def is_framed(value: Column) -> Column:
    """Whether a BINARY column begins as Confluent's wire format does."""
    return (F.length(value) >= HEAD_BYTES) & (F.substring(value, 1, 1) == F.lit(MAGIC))


def strip_head(value: Column) -> Column:
    """What follows the id of the schema, BINARY."""
    return F.substring(value, HEAD_BYTES + 1, MAX_ID)


def restore_values(validated: DataFrame) -> DataFrame:
    """Gives the rows of `events.parse_events` their bytes back as `value`, and what can't be read its reason."""
    restored = validated.withColumns(
        {"value": F.col("record_value"), "reject_reason": F.coalesce("unreadable", "reject_reason")}
    )
    return restored.drop("record_value", "unreadable")
