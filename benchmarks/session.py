"""The Spark session of a benchmark module."""

from __future__ import annotations

import os
import sys

from pyspark.sql import SparkSession


def start_session(name: str, memory: str, cores: int = 2) -> SparkSession:
    """A local session, as the job sets one up, whose driver has so much memory; the caller stops it.

    All modules of one run share a JVM: the first one's memory is everybody's.
    """
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # which has what Python stages need
    spark = (
        SparkSession.builder.master(f"local[{cores}]")
        .appName(name)
        .config("spark.driver.memory", memory)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", str(cores))
        # A query leaves its consumers, with what they fetched, in the cache: for five minutes, unless told otherwise.
        .config("spark.kafka.consumer.cache.timeout", "10s")
        .config("spark.kafka.consumer.cache.evictorThreadRunInterval", "5s")
        .config("spark.kafka.consumer.fetchedData.cache.timeout", "10s")
        .config("spark.kafka.consumer.fetchedData.cache.evictorThreadRunInterval", "5s")
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def choose_memory(quick: bool) -> str:
    """What a module that measures in the runner's own process gives its driver."""
    return "2g" if quick else "6g"
