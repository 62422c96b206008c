"""The Spark session of a job."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What only a driver of our own can set. By default an executor keeps 64 consumers: with more partitions every batch
# would make new ones.
OWN_SETTINGS = {"spark.kafka.consumer.cache.capacity": "1024"}
STOP_SECONDS = 10  # how long an abandoned batch may take to end


def is_on_databricks() -> bool:
    """Whether Databricks runs the session: then the JVM, its signals and its end are shared with other tasks."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def list_settings(state_partitions: int) -> dict[str, str]:
    """What a job sets in its session, name -> value: what the results depend on, and how its queries run."""
    return {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(state_partitions),
        # A time that no pattern fits is no time; by default Spark 3.5 ends the query over some.
        "spark.sql.legacy.timeParserPolicy": "CORRECTED",
        # An object where a text is expected, or a text in place of an object, costs that field only.
        "spark.sql.json.enablePartialResults": "true",
        # With more than 128 windows in a batch Spark would sort the events, and write each sketch again for each.
        "spark.sql.objectHashAggregate.sortBased.fallbackThreshold": "100000",
        # By default Spark waits for ever.
        "spark.sql.streaming.stopTimeout": f"{STOP_SECONDS}s",
    }


@contextmanager
def changed_setting(spark: SparkSession, name: str, value: str) -> Iterator[None]:
    """Sets a setting of the session for what is done inside; a query keeps those it was started with."""
    before = spark.conf.get(name, None)
    spark.conf.set(name, value)
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(name)
        else:
            spark.conf.set(name, before)


def create_session(app_name: str, state_partitions: int, settings: Mapping[str, str]) -> SparkSession:
    """A session with `list_settings`, and `settings` too, but for Databricks, which brings its own for Delta."""
    builder = SparkSession.builder.appName(app_name)
    own = {} if is_on_databricks() or "SPARK_REMOTE" in os.environ else OWN_SETTINGS
    for name, value in {**own, **list_settings(state_partitions), **({} if is_on_databricks() else settings)}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
