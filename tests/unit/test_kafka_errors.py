"""One event, the same words: at start, in a query that runs, and in what the driver writes itself."""

from __future__ import annotations

import pytest
from uniques.errors import EXIT_FAILED, EXIT_USAGE
from uniques.kafka.errors import KAFKA_ERRORS, explain_kafka_error, find_kafka_error
from uniques.kafka.properties import KafkaCluster
from uniques.runtime.failures import explain_failure

CLUSTER = KafkaCluster("broker-1:9092", {"ssl.key.password": "hunter2"})
KAFKA = "Kafka at broker-1:9092"
ERRORS = "org.apache.kafka.common.errors"
CHECK = "is it running, and do --bootstrap-servers and the security settings match?"
CALL = "An error occurred while calling o12.get.\n: java.util.concurrent.ExecutionException: "


@pytest.mark.parametrize(
    ("message", "at_start", "running"),
    [
        (
            f"{ERRORS}.TopicAuthorizationException: Not authorized to access topics: [clicks]",
            f"{KAFKA} does not let the job use topic 'clicks': check the ACLs of the topic",
            "Kafka does not let the job use topic 'clicks': check the ACLs of the topic",
        ),
        (
            f"{ERRORS}.UnknownTopicOrPartitionException: This server does not host this topic-partition.",
            f"topic 'in' does not exist on {KAFKA}: create it, then start the job again",
            "a topic of the job does not exist on Kafka: create it, then start the job again",
        ),
        (
            "kafkashaded.org.apache.kafka.common.errors.SaslAuthenticationException: Authentication failed",
            f"{KAFKA} refused the login: check the credentials in --kafka-config",
            "Kafka refused the login: check the credentials in --kafka-config",
        ),
        (
            f"{ERRORS}.TimeoutException: Expiring 1 record(s) for out-0:120000 ms has passed",
            f"{KAFKA} did not answer in 10 s: {CHECK}",
            f"Kafka did not answer: {CHECK}",
        ),
        (
            f"{ERRORS}.TimeoutException: Topic out not present in metadata after 120000 ms.",
            f"{KAFKA} did not describe topic 'out' in 10 s: is it running, and does the topic exist?",
            "Kafka did not describe topic 'out': is it running, and does the topic exist?",
        ),
    ],
)
def test_the_same_event_has_the_same_words_at_start_and_later(message: str, at_start: str, running: str) -> None:
    assert explain_kafka_error(CALL + message, CLUSTER, "in") == at_start
    error = explain_failure(f"[STREAM_FAILED] Query [id = 1] terminated\nCaused by: {message}\n\tat x.Y.z(Y.java:1)")
    assert (str(error), error.status) == (f"the query failed: {running}", EXIT_FAILED)


def test_every_sign_has_a_line_without_a_gap() -> None:
    for sign in KAFKA_ERRORS:
        for cluster, topic in ((CLUSTER, "in"), (None, None)):
            error = find_kafka_error(f"x {sign} y\nz", cluster, topic)
            assert error is not None
            assert not set("{}\n") & set(str(error))
            assert "hunter2" not in str(error)
            assert error.status == (EXIT_USAGE if "Some data may have been lost" in sign else EXIT_FAILED)


def test_what_java_says_of_a_login_line_is_not_shown() -> None:
    message = CALL + "java.lang.IllegalArgumentException: JAAS config entry not terminated by semi-colon: hunter2"
    assert "hunter2" not in explain_kafka_error(message, CLUSTER, "in")
    assert "hunter2" not in str(explain_failure(message))


def test_a_timeout_of_spark_itself_is_not_kafkas() -> None:
    message = "java.util.concurrent.TimeoutException: Futures timed out after [300 seconds]"
    assert str(explain_failure(message)) == f"the query failed: {message}"
    assert explain_kafka_error(CALL + message, CLUSTER, "in", 5).startswith(f"{KAFKA} did not answer in 5 s: ")


def test_what_is_in_no_table_keeps_the_clients_own_words() -> None:
    message = CALL + f"{ERRORS}.PolicyViolationException: too many partitions\n\tat x.Y.z(Y.java:1)"
    assert explain_kafka_error(message, CLUSTER, "in") == f"{KAFKA}, topic 'in': too many partitions"
