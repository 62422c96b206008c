"""What Kafka's errors mean, each in one line with the way out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniques.kafka.properties import KafkaCluster

CHECK_TIMEOUT_MS = "10000"
CHECK_TIMEOUTS = {"default.api.timeout.ms": CHECK_TIMEOUT_MS, "request.timeout.ms": CHECK_TIMEOUT_MS}


def explain_kafka_error(message: str, cluster: KafkaCluster, topic: str) -> str:
    """One line for a person out of what Spark and the Kafka client said."""
    where = f"Kafka at {cluster.bootstrap_servers}"
    known = {
        "UnknownTopicOrPartitionException": f"topic {topic!r} does not exist on {where}: create it first",
        "No resolvable bootstrap urls": f"{where} can't be found: check --bootstrap-servers",
        "SaslAuthenticationException": f"{where} refused the login: check the credentials in --kafka-config",
        "SslAuthenticationException": f"{where}: the TLS handshake failed; check the trust and key store in "
        "--kafka-config",
        "Failed to load SSL keystore": f"{where}: a trust or key store of --kafka-config can't be opened; check its "
        "path, password and type",
        # What Java says of it may quote the password.
        "JAAS": f"{where}: sasl.jaas.config of --kafka-config can't be read; check its quotes and the semicolon",
        "TopicAuthorizationException": f"{where}: not allowed to use topic {topic!r}; check its ACLs",
        "GroupAuthorizationException": f"{where}: not allowed to commit offsets to that group; check its ACLs",
        "TransactionalIdAuthorizationException": f"{where}: not allowed to write transactions; check the ACLs of the "
        "transactional id",
        "UnknownMemberIdException": f"{where}: consumers use that group; give the job one of its own",
        "TimeoutException": f"{where} did not answer in {int(CHECK_TIMEOUT_MS) // 1000} s: is it running, and do "
        "--bootstrap-servers and the security settings match?",
    }
    for sign, explanation in known.items():
        if sign in message:
            return explanation
    # Through py4j the client's own words come behind a line about the call.
    said = re.findall(r"org\.apache\.kafka\.common\.\S+: (.+)", message)
    return f"{where}, topic {topic!r}: {said[-1] if said else message.splitlines()[0]}"


# What Kafka refuses a query that runs, when rights or credentials are changed under it: a sign in the trace, a line.
KAFKA_REFUSALS = {
    "TopicAuthorizationException": "Kafka does not let it use the topic {topics}: check its ACLs",
    "ClusterAuthorizationException": "Kafka does not let it write to any topic: check the ACLs",
    "SaslAuthenticationException": "Kafka refused the login: check the credentials in --kafka-config",
    "SslAuthenticationException": "the TLS handshake failed: check the trust and key store in --kafka-config",
}
