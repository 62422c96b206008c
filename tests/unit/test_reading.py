"""In how many tasks a topic is read, and with how much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.kafka.reading import MAX_FETCH_BYTES, MIB, MIN_FETCH_BYTES, plan_reading, size_fetches

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

GIB = 1_024 * MIB


@pytest.mark.parametrize(
    ("heap_bytes", "partitions", "fetch_bytes"),
    [
        (GIB, 1, MAX_FETCH_BYTES),
        (GIB, 2, MAX_FETCH_BYTES),
        (16 * GIB, 64, MAX_FETCH_BYTES),
        (GIB, 10_000, MIN_FETCH_BYTES),
    ],
)
def test_fetches_stay_between_what_is_fast_and_what_is_possible(
    heap_bytes: int, partitions: int, fetch_bytes: int
) -> None:
    assert size_fetches(heap_bytes, partitions) == fetch_bytes


@pytest.mark.parametrize("partitions", [8, 16, 64, 256, 1_000])
def test_all_consumers_take_a_fifth_of_the_heap_at_most(partitions: int) -> None:
    assert 3 * partitions * size_fetches(GIB, partitions) <= GIB / 5


def test_tasks_follow_the_cores(spark: SparkSession) -> None:
    cores = spark.sparkContext.defaultParallelism
    assert plan_reading(spark, partitions=64).tasks == cores
    assert plan_reading(spark, partitions=64, tasks=7).tasks == 7
    records = spark.range(0, 640, 1, numPartitions=64).toDF("value")
    joined = plan_reading(spark, partitions=64, tasks=7).join_partitions(records)
    assert joined.rdd.getNumPartitions() == 7
    assert joined.count() == 640
