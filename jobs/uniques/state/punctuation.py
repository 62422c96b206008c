"""Punctuation: times in files beside the checkpoint that move Spark's watermark, which events do not.

The query has a second source: rows with a time and no user, from files that the job writes as progress goes on. Nothing
is written to the input topic, and the counts leave punctuation out (`counts.count_unique_users`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.state.sidecar import beside, open_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

FOLDER = "punctuation"


def write_punctuation(spark: SparkSession, location: str, seconds: list[int]) -> None:
    """Adds times, unix seconds, to the punctuation of a checkpoint; none makes the folder that the source reads."""
    folder = open_folder(spark, beside(location, FOLDER))
    if seconds:
        folder.add("".join(f"{second}\n" for second in seconds))
    else:
        folder.make()


def read_punctuation(spark: SparkSession, location: str) -> DataFrame:
    """A stream of punctuation as events: `event_time` TIMESTAMP, `uid` STRING, always null.

    Every query has it from the start, because Spark does not let sources be added to a checkpoint.
    """
    files = spark.readStream.option("cleanSource", "delete").text(beside(location, FOLDER))
    return files.select(
        F.expr("try_cast(value AS BIGINT)").cast("timestamp").alias("event_time"),
        F.lit(None).cast("string").alias("uid"),
    )
