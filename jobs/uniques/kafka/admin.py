"""Kafka's own Java client on the driver, for what Spark's source and sink don't do.

Spark's connector brings this client: no package has to be installed, and it takes the properties of `--kafka-config` as
they are, Java trust stores and JAAS lines included. Python calls it through py4j, which Spark Connect does not have: a
flag that needs the client then ends the job with one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaClass
from py4j.protocol import Py4JError

from uniques.errors import JobError, UsageError
from uniques.jvm import gateway_of
from uniques.kafka.errors import CHECK_TIMEOUTS, describe_missing_right, explain_kafka_error

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster

ANSWER_SECONDS = 60
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of brokers before Kafka 2.8


class JavaClient:
    """The JVM's Kafka client: `kafka` is its package `org.apache.kafka`, `java` the package `java`."""

    def __init__(self, spark: SparkSession, flag: str) -> None:
        """Finds the client; raises UsageError, one line that names `flag`, when the driver has none."""
        gateway = gateway_of(spark)
        if gateway is None:
            raise UsageError(f"{flag} needs a classic Spark driver: Spark Connect gives no access to Kafka's client")
        self.java: Any = gateway.jvm.java
        # Databricks has the client under another package name.
        for kafka in (gateway.jvm.org.apache.kafka, gateway.jvm.kafkashaded.org.apache.kafka):
            if isinstance(kafka.clients.admin.Admin, JavaClass):
                self.kafka: Any = kafka
                return
        raise UsageError(f"{flag} needs Kafka's client on the driver: start with the connector (--packages)")

    def properties(self, cluster: KafkaCluster, settings: dict[str, str]) -> Any:
        """Client properties as a Java map: those of the cluster, and `settings`, which win."""
        properties = self.java.util.HashMap()
        for name, value in {**cluster.properties, "bootstrap.servers": cluster.bootstrap_servers, **settings}.items():
            properties.put(name, value)
        return properties

    def offsets(self, offsets: dict[tuple[str, int], int], note: str = "") -> Any:
        """`(topic, partition) -> offset` as the Java map that a commit takes; `note` is stored with each offset."""
        found = self.java.util.HashMap()
        for (topic, partition), offset in offsets.items():
            metadata = self.kafka.clients.consumer.OffsetAndMetadata(offset, note)
            found.put(self.kafka.common.TopicPartition(topic, partition), metadata)
        return found


def check_rights(spark: SparkSession, cluster: KafkaCluster, rights: list[tuple[str, str]]) -> None:
    """Checks that the job has its rights before it starts, `(topic, READ or WRITE)`; without, the first record fails.

    Raises JobError with the reason in one line. Checks nothing without a JVM (Spark Connect), and where a broker is too
    old to tell.
    """
    if gateway_of(spark) is None:
        return
    client = JavaClient(spark, "--output-topic")
    admin_package = client.kafka.clients.admin
    admin = admin_package.Admin.create(client.properties(cluster, CHECK_TIMEOUTS))
    options = admin_package.DescribeTopicsOptions().includeAuthorizedOperations(True)
    try:
        for topic, right in rights:
            found = admin.describeTopics(client.java.util.List.of(topic), options).allTopicNames().get()
            allowed = found.get(topic).authorizedOperations()
            if allowed is not None and right not in {operation.name() for operation in allowed}:
                raise JobError(describe_missing_right(right, cluster, topic))
    except Py4JError as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error
    finally:
        admin.close(client.java.time.Duration.ofSeconds(0))


def find_topic_id(spark: SparkSession, cluster: KafkaCluster, topic: str) -> str | None:
    """The id that Kafka gave a topic when it was created; None where the driver has no client, or the broker no ids.

    A topic that was deleted and created again has the same name and another id.
    """
    try:
        client = JavaClient(spark, "")
    except UsageError:
        return None
    admin = client.kafka.clients.admin.Admin.create(client.properties(cluster, CHECK_TIMEOUTS))
    try:
        names = client.java.util.List.of(topic)
        seconds = client.java.util.concurrent.TimeUnit.SECONDS
        topics = admin.describeTopics(names).allTopicNames().get(ANSWER_SECONDS, seconds)
        topic_id: str = topics[topic].topicId().toString()
    except Py4JError as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error
    finally:
        admin.close(client.java.time.Duration.ofSeconds(0))
    return None if topic_id == NO_TOPIC_ID else topic_id
