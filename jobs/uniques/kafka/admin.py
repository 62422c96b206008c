"""Kafka's own Java client on the driver, for what Spark's source and sink don't do.

It is the client that Spark's connector brings, so it takes the properties of `--kafka-config` as they are, a Java
trust store and a JAAS line too, and no package has to be installed for it. Python reaches it through py4j, which Spark
Connect does not have: the flags that need it say so in one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaClass
from py4j.protocol import Py4JError

from uniques.errors import JobError, UsageError
from uniques.jvm import gateway_of
from uniques.kafka.errors import CHECK_TIMEOUTS, explain_kafka_error

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster

ANSWER_SECONDS = 60
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of brokers before Kafka 2.8


class JavaClient:
    """The JVM's Kafka client: `kafka` is its package `org.apache.kafka`, `java` the package `java`."""

    def __init__(self, spark: SparkSession, flag: str) -> None:
        """Finds it; raises UsageError, one line, when the driver has none. `flag` is what needs it."""
        gateway = gateway_of(spark)
        if gateway is None:
            raise UsageError(f"{flag} needs a classic Spark driver: Spark Connect gives no access to Kafka's client")
        self.java: Any = gateway.jvm.java
        # Databricks ships the client under another name.
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
        """`(topic, partition) -> offset` as the Java map that commits take, with a note to each."""
        found = self.java.util.HashMap()
        for (topic, partition), offset in offsets.items():
            metadata = self.kafka.clients.consumer.OffsetAndMetadata(offset, note)
            found.put(self.kafka.common.TopicPartition(topic, partition), metadata)
        return found


def check_rights(spark: SparkSession, cluster: KafkaCluster, rights: list[tuple[str, str]]) -> None:
    """Makes sure that the job may use topics, which otherwise shows with the first record: `(topic, READ or WRITE)`.

    Raises JobError with the reason in one line. Where there is no JVM to ask (Spark Connect), and where brokers are too
    old to say, nothing is checked.
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
                raise JobError(
                    f"Kafka at {cluster.bootstrap_servers}: not allowed to {right.lower()} topic {topic!r}; check its "
                    "ACLs"
                )
    except Py4JError as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error
    finally:
        admin.close(client.java.time.Duration.ofSeconds(0))


def find_topic_id(spark: SparkSession, cluster: KafkaCluster, topic: str) -> str | None:
    """The id Kafka gave a topic when it was created; None where the driver has no client, or the broker no ids.

    A topic that is deleted and made anew has another one under the same name.
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
