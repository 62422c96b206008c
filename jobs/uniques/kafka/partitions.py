"""How far the partitions of a topic reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from py4j.protocol import Py4JError

from uniques.errors import JobError
from uniques.kafka.admin import ANSWER_SECONDS, JavaClient
from uniques.kafka.errors import explain_kafka_error
from uniques.kafka.topics import CONSUMER_PROPERTIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster


class TopicEnds:
    """The ends of a topic's partitions, asked from the brokers each time, as the job's consumer would find them."""

    def __init__(self, spark: SparkSession, cluster: KafkaCluster, topic: str, flag: str) -> None:
        """Raises UsageError, one line that names `flag`, when the driver has no Kafka client."""
        self._client = JavaClient(spark, flag)
        self._cluster = cluster
        self._topic = topic
        self._isolation = {**CONSUMER_PROPERTIES, **cluster.properties}["isolation.level"]
        self._admin = self._client.kafka.clients.admin.Admin.create(self._client.properties(cluster, {}))

    def read(self) -> dict[int, int]:
        """Partition -> the offset behind its last record, before the first transaction that is open.

        Unless the cluster's properties set `isolation.level` to `read_uncommitted`. Raises JobError, one line, when
        Kafka fails to say.
        """
        seconds = self._client.java.util.concurrent.TimeUnit.SECONDS
        names = self._client.java.util.List.of(self._topic)
        latest = self._client.kafka.clients.admin.OffsetSpec.latest()
        level = self._client.kafka.common.IsolationLevel.valueOf(self._isolation.upper())
        options = self._client.kafka.clients.admin.ListOffsetsOptions(level)
        asked = self._client.java.util.HashMap()
        try:
            topics = self._admin.describeTopics(names).allTopicNames().get(ANSWER_SECONDS, seconds)
            for partition in topics[self._topic].partitions():
                asked.put(self._client.kafka.common.TopicPartition(self._topic, partition.partition()), latest)
            ends = self._admin.listOffsets(asked, options).all().get(ANSWER_SECONDS, seconds)
            return {partition.partition(): ends[partition].offset() for partition in asked.keySet()}
        except Py4JError as error:
            raise JobError(explain_kafka_error(str(error), self._cluster, self._topic)) from error

    def close(self) -> None:
        """Ends the client's threads."""
        self._admin.close(self._client.java.time.Duration.ofSeconds(0))
