"""The Kafka source and the Kafka sink."""

from __future__ import annotations

from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.errors import JobError
from uniques.kafka.errors import CHECK_TIMEOUTS, explain_kafka_error
from uniques.kafka.reading import DEFAULT_READING, MAX_FETCH_BYTES, Reading

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.readwriter import DataStreamWriter

    from uniques.kafka.properties import KafkaCluster
    from uniques.kafka.subscription import Subscription

# Measured on 2 kB events: with Kafka's defaults (1 MiB a partition, 500 records a poll) the reader waits; Spark also
# sets the receive buffer to 64 KiB unless it is given.
FETCH_PROPERTIES = {
    "max.partition.fetch.bytes": str(MAX_FETCH_BYTES),
    "fetch.max.bytes": "67108864",
    "max.poll.records": "5000",
    # At the end of a partition the broker holds an answer back for so long, 500 ms by default, and Spark's question
    # about offsets waits behind it, one partition after the other. What a batch reads is there; nothing need wait.
    "fetch.max.wait.ms": "10",
    "receive.buffer.bytes": "1048576",
}
# What a producer took back is no event. Kafka's own default is read_uncommitted.
CONSUMER_PROPERTIES = {**FETCH_PROPERTIES, "isolation.level": "read_committed"}
# Results are few and small, and none may be lost. A rejected record may be as large as the broker accepted it.
PRODUCER_PROPERTIES = {
    "acks": "all",
    "compression.type": "lz4",
    "max.request.size": "134217728",
    "buffer.memory": "134217728",
}


def check_topic(spark: SparkSession, cluster: KafkaCluster, topic: str) -> None:
    """Checks before anything starts that the cluster answers and has the topic.

    For Spark Connect: it starts a query of Spark's Kafka source, which takes seconds; `admin.check_topics` does not.
    Raises JobError with the reason in one line.
    """
    # The check must not make the broker create the topic.
    options = cluster.options({**CHECK_TIMEOUTS, "allow.auto.create.topics": "false"})
    probe = (
        spark.read.format("kafka")
        .options(**options)
        .option("subscribe", topic)
        .option("fetchOffset.numRetries", "1")
        # An empty range: Spark asks for offsets and reads no record.
        .option("startingTimestamp", str(2**62))
        .option("startingOffsetsByTimestampStrategy", "latest")
        .load()
    )
    try:
        probe.isEmpty()
    except (PySparkException, Py4JError) as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error


def read_topic(
    spark: SparkSession,
    cluster: KafkaCluster,
    subscription: Subscription,
    starting_offsets: str,
    max_offsets_per_trigger: int,
    from_time: int | None = None,
    with_headers: bool = False,
    reading: Reading = DEFAULT_READING,
) -> DataFrame:
    """A stream of the records of topics with Spark's Kafka columns (`value` BINARY, `timestamp`, `partition`, …).

    `with_headers` adds `headers`, null for a record that has none; it costs, where records have many.

    Only a new checkpoint uses `starting_offsets` (`earliest`, `latest`), or in its place `from_time`: the first record
    that arrived then or later, unix seconds. A batch advances by at most `max_offsets_per_trigger` offsets; `reading`
    says in how many tasks, and how much a consumer fetches at once. The query fails when retention removed records
    before they were read.

    Reads committed records only, up to the first transaction that is open, unless the cluster's properties set
    `isolation.level` to `read_uncommitted`.
    """
    source = (
        spark.readStream.format("kafka")
        .options(**cluster.options({**CONSUMER_PROPERTIES, "max.partition.fetch.bytes": str(reading.fetch_bytes)}))
        .option(*subscription.option)
        .option("startingOffsets", starting_offsets)
        .option("maxOffsetsPerTrigger", max_offsets_per_trigger)
        .option("failOnDataLoss", "true")
        .option("includeHeaders", with_headers)
    )
    if from_time is not None:
        # A partition where nothing arrived since then starts at its end.
        source = source.option("startingTimestamp", from_time * 1000).option(
            "startingOffsetsByTimestampStrategy", "latest"
        )
    return reading.join_partitions(reading.set_options(source).load())


def write_topic(records: DataFrame, cluster: KafkaCluster) -> DataStreamWriter:
    """A writer, not yet started, of records with `topic`, `key`, `value` and optional `headers`: at least once."""
    return records.writeStream.format("kafka").options(**cluster.options(PRODUCER_PROPERTIES))


def write_topic_once(records: DataFrame, cluster: KafkaCluster) -> None:
    """Writes the records of a static frame, as `write_topic` does for a stream."""
    records.write.format("kafka").options(**cluster.options(PRODUCER_PROPERTIES)).save()
