"""How far the partitions of topics reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        self.client = JavaClient(spark, subscription.flag)
        self.cluster = cluster
        self.subscription = subscription
        self._isolation = {**CONSUMER_PROPERTIES, **cluster.properties}["isolation.level"]
        self.admin: Any = self.client.kafka.clients.admin.Admin.create(self.client.properties(cluster, {}))

    def read(self) -> dict[Partition, int]:
        """Partition -> the offset behind its last record, before the first transaction that is open.

        Unless the cluster's properties set `isolation.level` to `read_uncommitted`. Raises JobError, one line, when
        Kafka fails to say.
        """
        try:
            names = self.client.list_of(find_topics(self.client, self.admin, self.subscription))
            lines = self.client.calls.readEnds(self.admin, names, self._isolation.upper(), ANSWER_SECONDS)
        except Py4JError as error:
            raise JobError(explain_kafka_error(str(error), self.cluster, self.subscription.text)) from error
        ends = (line.split(" ") for line in lines.splitlines())
        return {(topic, int(partition)): int(offset) for topic, partition, offset in ends}

    def close(self) -> None:
        """Ends the client's threads."""
        self.admin.close(self.client.java.time.Duration.ofSeconds(0))
