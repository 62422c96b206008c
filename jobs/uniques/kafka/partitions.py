"""How far the partitions of topics reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from py4j.protocol import Py4JError

from uniques.errors import JobError
from uniques.kafka.admin import ANSWER_SECONDS, JavaClient, find_topics
from uniques.kafka.errors import explain_kafka_error
from uniques.kafka.topics import CONSUMER_PROPERTIES

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster
    from uniques.kafka.subscription import Partition, Subscription


class TopicEnds:
    """The ends of the partitions of topics, asked from the brokers each time, as the job's consumer would find them."""

    def __init__(self, spark: SparkSession, cluster: KafkaCluster, subscription: Subscription) -> None:
        """Raises UsageError, one line, when the driver has no Kafka client."""
        self._client = JavaClient(spark, subscription.flag)
        self._cluster = cluster
        self._subscription = subscription
        self._isolation = {**CONSUMER_PROPERTIES, **cluster.properties}["isolation.level"]
        self._admin = self._client.kafka.clients.admin.Admin.create(self._client.properties(cluster, {}))

    def read(self) -> dict[Partition, int]:
        """Partition -> the offset behind its last record, before the first transaction that is open.

        Unless the cluster's properties set `isolation.level` to `read_uncommitted`. Raises JobError, one line, when
        Kafka fails to say.
        """
        try:
            names = self._client.list_of(find_topics(self._client, self._admin, self._subscription))
            lines = self._client.calls.readEnds(self._admin, names, self._isolation.upper(), ANSWER_SECONDS)
        except Py4JError as error:
            raise JobError(explain_kafka_error(str(error), self._cluster, self._subscription.text)) from error
        ends = (line.split(" ") for line in lines.splitlines())
        return {(topic, int(partition)): int(offset) for topic, partition, offset in ends}

    def close(self) -> None:
        """Ends the client's threads."""
        self._admin.close(self._client.java.time.Duration.ofSeconds(0))
