"""The Spark session of a job."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from collections.abc import Mapping

STOP_SECONDS = 10  # how long an abandoned batch may take to end


def is_on_databricks() -> bool:
    """Whether Databricks runs the session: then the JVM, its signals and its end are shared with other tasks."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def list_settings(state_partitions: int) -> dict[str, str]:
    """What a job sets in its session, name -> value: what the results depend on, and how its queries run."""
    return {
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": str(state_partitions),
        # A watermark that moved needs no batch of its own: the next one forgets the windows.
        "spark.sql.streaming.noDataMicroBatches.enabled": "false",
        # By default Spark waits for ever.
        "spark.sql.streaming.stopTimeout": f"{STOP_SECONDS}s",
    }


def create_session(app_name: str, state_partitions: int, settings: Mapping[str, str]) -> SparkSession:
    """A session with `list_settings`, and `settings` too, but for Databricks, which brings its own for Delta."""
    builder = SparkSession.builder.appName(app_name)
    for name, value in {**list_settings(state_partitions), **({} if is_on_databricks() else settings)}.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
