"""The records that go to Kafka: their topic, and the headers of rejected ones."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F


def make_reject_records(rejected: DataFrame, topic: str) -> DataFrame:
    """Turns rows of `events.reject_events` into records for a topic: key and value as they came, the rest in headers.

    Headers are text: `reason`, and `topic`, `partition`, `offset`, `arrival_time` (ISO 8601 UTC, milliseconds) of the
    record that was rejected. Takes the columns of Kafka's source; where they are missing (files), so are the headers.
    """
    arrival = F.to_csv(F.struct("timestamp"), {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"})
    columns = {
        "topic": F.col("topic"),
        "partition": F.col("partition"),
        "offset": F.col("offset"),
        "arrival_time": arrival,
    }
    from_kafka = "offset" in rejected.columns
    headers = [make_header("reason", F.col("reject_reason"))]
    headers += [make_header(name, column) for name, column in columns.items()] if from_kafka else []
    key = F.col("key") if from_kafka else F.lit(None).cast("binary")
    return rejected.select(
        F.lit(topic).alias("topic"),
        key.alias("key"),
        F.col("value").cast("binary").alias("value"),
        F.array(*headers).alias("headers"),
    )


def make_header(name: str, value: Column) -> Column:
    """A Kafka record header, as Spark's sink takes it."""
    return F.struct(F.lit(name).alias("key"), value.cast("string").cast("binary").alias("value"))


def add_topic(records: DataFrame, topic: str) -> DataFrame:
    """Adds to `key`, `value` records the topic they go to, and no headers, so that rejected ones can join them."""
    return records.select(
        F.lit(topic).alias("topic"),
        F.col("key").cast("binary").alias("key"),
        F.col("value").cast("binary").alias("value"),
        F.lit(None).cast("array<struct<key: string, value: binary>>").alias("headers"),
    )
