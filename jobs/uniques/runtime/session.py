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


def create_session(app_name: str, state_partitions: int, settings: Mapping[str, str]) -> SparkSession:
    """A session with what the results depend on: UTC, and the number of state partitions.

    `settings` are added everywhere but on Databricks, which brings its own settings for Delta.
    """
    builder = (
        SparkSession.builder.appName(app_name)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", state_partitions)
        # By default Spark waits for ever.
        .config("spark.sql.streaming.stopTimeout", f"{STOP_SECONDS}s")
    )
    if not is_on_databricks():
        for name, value in settings.items():
            builder = builder.config(name, value)
    return builder.getOrCreate()
