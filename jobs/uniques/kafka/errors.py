"""What Kafka's errors mean, each in one line that says what to do: one table for start, running query and writers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uniques.errors import JobError, UsageError

if TYPE_CHECKING:
    from uniques.kafka.properties import KafkaCluster

CHECK_TIMEOUT_SECONDS = 10
CHECK_TIMEOUTS = {
    "default.api.timeout.ms": f"{CHECK_TIMEOUT_SECONDS}000",
    "request.timeout.ms": f"{CHECK_TIMEOUT_SECONDS}000",
}

LOST_RECORDS = "Some data may have been lost"
NO_ANSWER = "{kafka} did not answer{wait}: is it running, and do --bootstrap-servers and the security settings match?"
# A sign in a message or trace, and the line for it. `{kafka}` is "Kafka at host:port", or "Kafka" where the servers are
# not known; `{topic}` is "topic 'in'", or "a topic of the job".
KAFKA_ERRORS = {
    LOST_RECORDS: "events of the input topic are gone before they were read: retention removed them, the topic was "
    "deleted and created again, or a broker that lacked them became the leader (unclean leader election); take another "
    "--checkpoint-location, which starts with what there is",
    "UnknownTopicOrPartitionException": "{topic} does not exist on {kafka}: create it, then start the job again",
    "No resolvable bootstrap urls": "{kafka} can't be found: check --bootstrap-servers",
    "SaslAuthenticationException": "{kafka} refused the login: check the credentials in --kafka-config",
    "SslAuthenticationException": "the TLS handshake with {kafka} failed: check the trust and key store in "
    "--kafka-config",
    "Failed to load SSL keystore": "a trust or key store of --kafka-config can't be opened: check its path, password "
    "and type",
    # Java's own words about it may quote the password.
    "JAAS": "sasl.jaas.config of --kafka-config can't be read: check its quotes and the semicolon",
    "TopicAuthorizationException": "{kafka} does not let the job use {topic}: check the ACLs of the topic",
    "GroupAuthorizationException": "{kafka} does not let the job commit offsets: give it the right (kafka-acls --add "
    "--allow-principal User:NAME --operation Read --group GROUP; exactly-once delivery has groups that begin with "
    "unique_users-: --resource-pattern-type prefixed), or --delivery at-least-once",
    "TransactionalIdAuthorizationException": "{kafka} does not let the job write transactions: give it the right "
    "(kafka-acls --add --allow-principal User:NAME --operation Write --operation Describe --transactional-id "
    "unique_users- --resource-pattern-type prefixed), or --delivery at-least-once",
    "ClusterAuthorizationException": "{kafka} does not let the job write to any topic: check the ACLs of the topics",
    "UnknownMemberIdException": "consumers on {kafka} use the consumer group: give the job a group of its own",
    # Kafka's producer says the same of a topic that is not there and of a cluster that is not there.
    "not present in metadata": "{kafka} did not describe {topic}{wait}: is it running, and does the topic exist?",
    "kafka.common.errors.TimeoutException": NO_ANSWER,
}
TOPIC_IN_MESSAGE = re.compile(r"Not authorized to access topics: \[(.+?)\]|Topic (\S+) not present in metadata")


def name_kafka(cluster: KafkaCluster | None) -> str:
    """How messages name a cluster: by its servers, where they are known."""
    return f"Kafka at {cluster.bootstrap_servers}" if cluster else "Kafka"


def find_kafka_error(
    message: str, cluster: KafkaCluster | None = None, topic: str | None = None, wait_seconds: int | None = None
) -> JobError | None:
    """The error for a message or trace that has a sign of KAFKA_ERRORS; None for any other.

    `topic` is the one in use, where the message does not name it. `wait_seconds` is how long Kafka was waited for. The
    error is a UsageError where the next start would fail in the same way.
    """
    sign = next((sign for sign in KAFKA_ERRORS if sign in message), None)
    if sign is None:
        return None
    named = TOPIC_IN_MESSAGE.search(message)
    if named:
        topic = named[1] or named[2]
    line = KAFKA_ERRORS[sign].format(
        kafka=name_kafka(cluster),
        topic=f"topic {topic!r}" if topic else "a topic of the job",
        wait=f" in {wait_seconds} s" if wait_seconds else "",
    )
    return UsageError(line) if sign == LOST_RECORDS else JobError(line)


def explain_kafka_error(
    message: str, cluster: KafkaCluster, topic: str, wait_seconds: int | None = CHECK_TIMEOUT_SECONDS
) -> str:
    """One line for what Spark or Kafka's client said when Kafka was asked: from KAFKA_ERRORS, or else its own words."""
    # Only Kafka was waited for: a future's timeout, which is Java's own, means the same as Kafka's.
    message = message.replace(
        "java.util.concurrent.TimeoutException", "org.apache.kafka.common.errors.TimeoutException"
    )
    known = find_kafka_error(message, cluster, topic, wait_seconds)
    if known:
        return str(known)
    # Through py4j the client's own words come behind a line about the call.
    said = re.findall(r"kafka\.common\.\S+: (.+)", message)
    return f"{name_kafka(cluster)}, topic {topic!r}: {said[-1] if said else message.splitlines()[0]}"


def describe_missing_right(right: str, cluster: KafkaCluster, topic: str) -> str:
    """The line for a topic that the job may not read or write; `right` is READ or WRITE."""
    return (
        f"{name_kafka(cluster)} does not let the job {right.lower()} topic {topic!r}: give it the right (kafka-acls "
        f"--add --allow-principal User:NAME --operation {right.capitalize()} --topic {topic})"
    )
