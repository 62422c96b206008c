"""Punctuation: times in files beside the checkpoint that move the watermark where no event does.

Spark's watermark moves with events only. A second source gives it what it needs: punctuation, rows with a time and no
user, from files that the job itself writes beside the checkpoint once nothing has arrived for a while. The customer's
topic is never written to, and the counts leave punctuation out (`counts.count_unique_users`).
"""

from __future__ import annotations

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


def punctuation_location(location: str) -> str:
    """The folder for the times that close idle windows."""
    return f"{location.rstrip('/')}/punctuation"


def write_punctuation(spark: SparkSession, location: str, seconds: list[int]) -> None:
    """Adds times, unix seconds, to the punctuation of a checkpoint; none makes the folder that the source reads."""
    rows = spark.createDataFrame([(str(second),) for second in seconds], "value STRING")
    rows.coalesce(1).write.mode("append").text(punctuation_location(location))


def read_punctuation(spark: SparkSession, location: str) -> DataFrame:
    """A stream of punctuation as events: `event_time` TIMESTAMP, `uid` STRING, always null.

    It belongs to the plan of every checkpoint, because Spark does not let sources be added later.
    """
    files = spark.readStream.option("cleanSource", "delete").text(punctuation_location(location))
    return files.select(
        F.expr("try_cast(value AS BIGINT)").cast("timestamp").alias("event_time"),
        F.lit(None).cast("string").alias("uid"),
    )
