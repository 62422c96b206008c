"""In how many tasks a topic is read, and with how much memory.

Spark makes a task, and keeps a consumer, for every partition of a topic. A consumer holds up to three times what it
fetches at once: what is being read, what is fetched ahead, and a copy of the records. So tasks follow the cores here,
and fetches the memory, however many partitions there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.readwriter import DataStreamReader

MIB = 1 << 20
# Measured on 2 kB events: more fetches no faster.
MAX_FETCH_BYTES = 16 * MIB
# What is less makes requests the cost. A record that is larger is fetched all the same.
MIN_FETCH_BYTES = 64 << 10
COPIES = 3
# Of the heap, for all consumers of an executor.
CONSUMERS_SHARE = 0.2


@dataclass(frozen=True)
class Reading:
    """How a topic is read: in `tasks`, None for one a partition, with `fetch_bytes` a consumer at once."""

    tasks: int | None = None
    partitions: int | None = None
    fetch_bytes: int = MAX_FETCH_BYTES

    def set_options(self, source: DataStreamReader) -> DataStreamReader:
        """Has Spark split partitions when there are fewer than tasks."""
        if self.tasks and self.partitions and self.partitions < self.tasks:
            return source.option("minPartitions", self.tasks)
        return source

    def join_partitions(self, records: DataFrame) -> DataFrame:
        """Has a task read several partitions when there are more than tasks."""
        return records.coalesce(self.tasks) if self.tasks else records


DEFAULT_READING = Reading()


def plan_reading(spark: SparkSession, partitions: int | None, tasks: int | None = None) -> Reading:
    """How to read a topic with so many partitions, None where nobody knows.

    `tasks` None: one for each core that the executors have now. Where executors come and go, or Python reaches no JVM,
    Spark's own way stays, a task a partition.
    """
    jvm = jvm_of(spark)
    if jvm is None or partitions is None:
        return Reading(tasks, partitions)
    context = spark.sparkContext
    if tasks is None and context.getConf().get("spark.dynamicAllocation.enabled", "false") != "true":
        tasks = context.defaultParallelism
    return Reading(tasks, partitions, size_fetches(find_heap_bytes(spark, jvm), partitions))


def size_fetches(heap_bytes: int, partitions: int) -> int:
    """How many bytes a consumer may fetch at once, when one executor reads all partitions."""
    fair = int(CONSUMERS_SHARE * heap_bytes / (COPIES * max(partitions, 1)))
    return max(MIN_FETCH_BYTES, min(MAX_FETCH_BYTES, fair))


def find_heap_bytes(spark: SparkSession, jvm: Any) -> int:
    """The heap of an executor; of the driver where it does the work itself."""
    settings = spark.sparkContext.getConf()
    if settings.get("spark.master", "local").startswith("local"):
        return int(jvm.java.lang.Runtime.getRuntime().maxMemory())
    memory = settings.get("spark.executor.memory", "1g")
    return int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(memory))
