"""Kafka's own Java client on the driver, for what Spark's source and sink don't do.

Spark's connector brings this client: no package has to be installed, and it takes the properties of `--kafka-config` as
they are, Java trust stores and JAAS lines included. Python calls it through py4j, which Spark Connect does not have: a
flag that needs the client then ends the job with one line.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaClass
from py4j.protocol import Py4JError

from uniques.errors import JobError, UsageError
from uniques.jvm import JavaNames, compile_java, jvm_of, list_items, make_list
from uniques.kafka.errors import CHECK_TIMEOUTS, describe_missing_right, explain_kafka_error
from uniques.kafka.topics import check_topic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster
    from uniques.kafka.subscription import Subscription

ANSWER_SECONDS = 60
CALLS = "KafkaCalls.java"
PACKAGE = "org.apache.kafka"
NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"  # of brokers before Kafka 2.8


class JavaClient:
    """The JVM's Kafka client: `kafka` is its package `org.apache.kafka`, `java` the package `java`."""

    def __init__(self, spark: SparkSession, flag: str) -> None:
        """Finds the client; raises UsageError, one line that names `flag`, when the driver has none."""
        jvm = jvm_of(spark)
        if jvm is None:
            raise UsageError(f"{flag} needs a classic Spark driver: Spark Connect gives no access to Kafka's client")
        self._jvm = jvm
        self.java: Any = self._jvm.java
        # Databricks has the client under another package name.
        for kafka in (self._jvm.org.apache.kafka, self._jvm.kafkashaded.org.apache.kafka):
            if isinstance(kafka.clients.admin.Admin, JavaClass):
                self.kafka: Any = kafka
                return
        raise UsageError(f"{flag} needs Kafka's client on the driver: start with the connector (--packages)")

    @property
    def calls(self) -> Any:
        """The object of KafkaCalls.java, for this client."""
        package = self.kafka.clients.admin.Admin._fqn.partition(".clients.")[0]
        return load_calls(self._jvm, package)

    def list_of(self, items: Iterable[Any]) -> Any:
        """A Java list. `java.util.List.of` takes no more than ten items from Python."""
        return make_list(self._jvm, items)

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


@lru_cache
def load_calls(jvm: JavaNames, package: str) -> Any:
    """The object of KafkaCalls.java for a Kafka client in `package`; one a JVM, because py4j knows methods by names."""
    source = resources.files(__package__).joinpath(CALLS).read_text(encoding="utf-8")
    compiled = compile_java(jvm, source.replace(PACKAGE, package))
    return compiled.getClassLoader().loadClass("uniques.KafkaCalls").newInstance()


@dataclass(frozen=True)
class TopicDescription:
    """What Kafka says of a topic; None where it does not say, or the job has no right to know.

    A topic that was deleted and created again has the same name and another `topic_id`. `timestamp_type` says what the
    arrival time of its records is: `LogAppendTime`, the broker's clock, or `CreateTime`, the producer's.
    """

    partitions: int
    topic_id: str | None
    timestamp_type: str | None


def check_topics(
    spark: SparkSession, cluster: KafkaCluster, rights: Sequence[tuple[str, str]]
) -> dict[str, TopicDescription]:
    """Checks that the cluster answers, has the topics, and lets the job use them; returns what it says of each topic.

    `rights` are pairs of a topic and READ or WRITE; without a right the first record would fail. It is not checked
    where a broker is too old to tell. Without a JVM (Spark Connect) Spark's source asks for the topics, and nothing is
    returned. Raises JobError with the reason in one line.
    """
    topics = list(dict(rights))
    if jvm_of(spark) is None:
        for topic in topics:
            check_topic(spark, cluster, topic)
        return {}
    client = JavaClient(spark, "--bootstrap-servers")
    with open_admin(client, cluster, topics[0]) as admin:
        options = client.kafka.clients.admin.DescribeTopicsOptions().includeAuthorizedOperations(True)
        found = admin.describeTopics(client.list_of(topics), options).topicNameValues()
        timestamp_types = ask_timestamp_types(client, admin, topics)
        described = {}
        for topic in topics:
            try:
                description = found[topic].get(ANSWER_SECONDS, client.java.util.concurrent.TimeUnit.SECONDS)
            except Py4JError as error:
                raise JobError(explain_kafka_error(str(error), cluster, topic)) from error
            operations = description.authorizedOperations()
            allowed = operations and {operation.name() for operation in list_items(operations)}
            for needed in (right for name, right in rights if name == topic):
                if allowed is not None and needed not in allowed:
                    raise JobError(describe_missing_right(needed, cluster, topic))
            topic_id = description.topicId().toString()
            described[topic] = TopicDescription(
                description.partitions().size(), None if topic_id == NO_TOPIC_ID else topic_id, timestamp_types(topic)
            )
    return described


def find_topics(client: JavaClient, admin: Any, subscription: Subscription) -> tuple[str, ...]:
    """The names of the topics that are read now; raises JobError, one line, when there are none."""
    if subscription.pattern is None:
        return subscription.names
    names = admin.listTopics().names().get(ANSWER_SECONDS, client.java.util.concurrent.TimeUnit.SECONDS)
    found = subscription.select(list_items(names))
    if not found:
        raise JobError(f"{subscription.flag} {subscription.pattern}: no topic has a name that matches")
    return found


def list_topics(spark: SparkSession, cluster: KafkaCluster, subscription: Subscription) -> tuple[str, ...]:
    """The names of the topics that are read now; raises JobError, one line, when there are none, or Kafka is away.

    Without a JVM (Spark Connect) nobody can say for a pattern: none.
    """
    if subscription.pattern is None or jvm_of(spark) is None:
        return subscription.select([])
    client = JavaClient(spark, subscription.flag)
    with open_admin(client, cluster, subscription.text) as admin:
        try:
            return find_topics(client, admin, subscription)
        except Py4JError as error:
            raise JobError(explain_kafka_error(str(error), cluster, subscription.text)) from error


@contextmanager
def open_admin(client: JavaClient, cluster: KafkaCluster, topic: str) -> Iterator[Any]:
    """An admin client, with little patience; raises JobError, one line, when its properties are of no use."""
    try:
        admin = client.kafka.clients.admin.Admin.create(client.properties(cluster, CHECK_TIMEOUTS))
    except Py4JError as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error
    try:
        yield admin
    finally:
        admin.close(client.java.time.Duration.ofSeconds(0))


def ask_timestamp_types(client: JavaClient, admin: Any, topics: Sequence[str]) -> Callable[[str], str | None]:
    """Asks for `message.timestamp.type` of topics; returns a function that waits for the answer about one of them."""
    config_resource = client.kafka.common.config.ConfigResource
    resources = {topic: config_resource(config_resource.Type.TOPIC, topic) for topic in topics}
    answers = admin.describeConfigs(client.list_of(resources.values())).values()

    def find(topic: str) -> str | None:
        try:
            config = answers[resources[topic]].get(ANSWER_SECONDS, client.java.util.concurrent.TimeUnit.SECONDS)
        except Py4JError:  # the job may not have the right to know
            return None
        entry = config.get("message.timestamp.type")
        return str(entry.value()) if entry else None

    return find
