"""The records that go to Kafka: their topic, and the headers of rejected ones."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

HEADERS = "array<struct<key: string, value: binary>>"  # as Spark's source and sink have them
# As Kafka's own tools print `timestampType`.
TIMESTAMP_TYPES = {0: "CreateTime", 1: "LogAppendTime"}
NO_TIMESTAMP_TYPE = "NoTimestampType"


def make_reject_records(rejected: DataFrame, topic: str) -> DataFrame:
    """Turns rows of `events.reject_events` into records for a topic: key, value and headers as they came, then ours.

    Our headers are the last ones, text, always in this order: `reason`, and `topic`, `partition`, `offset`,
    `arrival_time` (the record's timestamp, ISO 8601 UTC, milliseconds) and `timestamp_type` (`CreateTime`: by the
    producer's clock, `LogAppendTime`: by the broker's) of the record that was rejected. Spark's sink can't set a
    record's own timestamp. Takes the columns of Kafka's source, `headers` among them if they are to be kept; where
    they are missing (files), `reason` is the only header.
    """
    from_kafka = "offset" in rejected.columns
    headers = F.array(*(make_header(name, value) for name, value in describe_reject(from_kafka).items()))
    if "headers" in rejected.columns:
        headers = F.concat(F.coalesce("headers", F.array().cast(HEADERS)), headers)
    key = F.col("key") if from_kafka else F.lit(None).cast("binary")
    return rejected.select(
        F.lit(topic).alias("topic"),
        key.alias("key"),
        F.col("value").cast("binary").alias("value"),
        headers.alias("headers"),
    )


def describe_reject(from_kafka: bool) -> dict[str, Column]:
    """Our headers of a rejected record, in order: name -> value."""
    reason = {"reason": F.col("reject_reason")}
    if not from_kafka:
        return reason
    kind = F.lit(NO_TIMESTAMP_TYPE)
    for number, name in TIMESTAMP_TYPES.items():
        kind = F.when(F.col("timestampType") == number, name).otherwise(kind)
    time_format = {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"}
    return {
        **reason,
        "topic": F.col("topic"),
        "partition": F.col("partition"),
        "offset": F.col("offset"),
        "arrival_time": F.to_csv(F.struct("timestamp"), time_format),
        "timestamp_type": kind,
    }


def make_header(name: str, value: Column) -> Column:
    """A Kafka record header, as Spark's sink takes it."""
    return F.struct(F.lit(name).alias("key"), value.cast("string").cast("binary").alias("value"))


def add_topic(records: DataFrame, topic: str) -> DataFrame:
    """Adds to `key`, `value` records their topic, and no headers, so that they can be united with rejected records."""
    return records.select(
        F.lit(topic).alias("topic"),
        F.col("key").cast("binary").alias("key"),
        F.col("value").cast("binary").alias("value"),
        F.lit(None).cast(HEADERS).alias("headers"),
    )
