"""The two edges: Kafka source and Kafka sink, with the client properties both use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from uniques.lifecycle import JobError, UsageError, gateway_of

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming.readwriter import DataStreamWriter

# Measured on 2 kB events: Kafka's defaults (1 MiB a partition, 500 records a poll) leave the reader waiting; Spark
# also shrinks the receive buffer to 64 KiB unless it is set.
FETCH_PROPERTIES = {
    "max.partition.fetch.bytes": "16777216",
    "fetch.max.bytes": "67108864",
    "max.poll.records": "5000",
    "receive.buffer.bytes": "1048576",
}
# Results are few and small; what counts is that none is lost. A rejected event may be as large as the broker took it.
PRODUCER_PROPERTIES = {
    "acks": "all",
    "compression.type": "lz4",
    "max.request.size": "134217728",
    "buffer.memory": "134217728",
}

# Spark sets these itself and refuses to start when they are given.
RESERVED_PROPERTIES = {
    "auto.offset.reset",
    "enable.auto.commit",
    "interceptor.classes",
    "key.deserializer",
    "key.serializer",
    "value.deserializer",
    "value.serializer",
}

CHECK_TIMEOUT_MS = "10000"
CHECK_TIMEOUTS = {"default.api.timeout.ms": CHECK_TIMEOUT_MS, "request.timeout.ms": CHECK_TIMEOUT_MS}

CONNECTOR = "org.apache.spark:spark-sql-kafka-0-10"
CONNECTOR_JAR = re.compile(r"/(?:[^/!]*_)?spark-sql-kafka-0-10_(2\.\d+)-(\d+\.\d+)\.\d[^/!]*\.jar")


@dataclass(frozen=True)
class KafkaCluster:
    """Where Kafka is and how to speak to it: `bootstrap_servers` and Kafka client `properties` (TLS, SASL, tuning)."""

    bootstrap_servers: str
    properties: dict[str, str] = field(default_factory=dict, repr=False)

    def options(self, defaults: dict[str, str]) -> dict[str, str]:
        """Options for Spark's Kafka source and sink; `properties` win over `defaults`."""
        merged = {**defaults, **self.properties, "bootstrap.servers": self.bootstrap_servers}
        return {f"kafka.{name}": value for name, value in merged.items()}


def parse_client_properties(text: str) -> dict[str, str]:
    """Reads Kafka client properties in Java's format: `name=value`, `#` comments, `\\` at a line's end continues it.

    Raises ValueError, one line, for a line that is no property and for properties that Spark keeps to itself.
    """
    properties = {}
    for line in re.sub(r"\\\r?\n[ \t]*", "", text).splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        name, separator, value = (part.strip() for part in stripped.partition("="))
        if not separator or not name:
            # Not the line itself: it may hold a password.
            raise ValueError("every line must be name=value, a # comment or empty")
        if name in RESERVED_PROPERTIES:
            raise ValueError(f"{name} is set by Spark and can't be changed")
        properties[name] = value
    return properties


def read_client_properties(path: Path) -> dict[str, str]:
    """`parse_client_properties` of a file; raises ValueError, one line, also when it can't be read."""
    try:
        return parse_client_properties(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"can't be read ({getattr(error, 'strerror', None) or error})") from error


def check_connector(spark: SparkSession) -> None:
    """Makes sure that Spark's Kafka connector is there and made for this Spark and its Scala.

    Raises UsageError with one line. Where there is no JVM to ask (Spark Connect) nothing is checked.
    """
    gateway = gateway_of(spark)
    if gateway is None:
        return
    # The loader that --jars and --packages add to, which py4j's threads share.
    loader = gateway.jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = loader.getResource("org/apache/spark/sql/kafka010/KafkaSourceProvider.class")
    scala = gateway.jvm.scala.util.Properties.versionNumberString()
    complaint = judge_connector(found and found.toString(), spark.version, scala)
    if complaint:
        raise UsageError(complaint)


def judge_connector(url: str | None, spark_version: str, scala_version: str) -> str | None:
    """What is wrong with the Kafka connector in the jar that `url` names, in one line; None when nothing is.

    Spark's own versions of one minor fit each other, and vendors' versions (`3.5.6-amzn-2`) those of Apache. A jar
    under another name than Apache's is taken as it is: vendors build the connector in.
    """
    release = re.match(r"\d+\.\d+\.\d+", spark_version)
    spark_minor, scala = ".".join(spark_version.split(".")[:2]), ".".join(scala_version.split(".")[:2])
    remedy = f"give spark-submit --packages {CONNECTOR}_{scala}:{release[0] if release else spark_version}"
    if url is None:
        return f"this Spark {spark_version} has no Kafka connector: {remedy}"
    jar = CONNECTOR_JAR.search(url)
    if jar is None or jar.groups() == (scala, spark_minor):
        return None
    return (
        f"the Kafka connector is for Spark {jar[2]} and Scala {jar[1]}, but this is Spark {spark_version} with Scala "
        f"{scala}: {remedy}"
    )


def check_topic(spark: SparkSession, cluster: KafkaCluster, topic: str) -> None:
    """Makes sure, before anything starts, that the cluster answers and has the topic.

    Raises JobError with the reason in one line. Uses Spark's own Kafka source, so that what is checked is what will
    be used, and no other client is needed on the driver.
    """
    # Asking for a topic must not make a broker create it.
    options = cluster.options({**CHECK_TIMEOUTS, "allow.auto.create.topics": "false"})
    probe = (
        spark.read.format("kafka")
        .options(**options)
        .option("subscribe", topic)
        .option("fetchOffset.numRetries", "1")
        # An empty range: offsets are asked for, no record is read.
        .option("startingTimestamp", str(2**62))
        .option("startingOffsetsByTimestampStrategy", "latest")
        .load()
    )
    try:
        probe.isEmpty()
    except (PySparkException, Py4JError) as error:
        raise JobError(explain_kafka_error(str(error), cluster, topic)) from error


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


def read_topic(
    spark: SparkSession,
    cluster: KafkaCluster,
    topic: str,
    starting_offsets: str,
    max_offsets_per_trigger: int,
    from_time: int | None = None,
) -> DataFrame:
    """A stream of a topic's records with Spark's Kafka columns (`value` BINARY, `timestamp`, `partition`, …).

    `starting_offsets` (`earliest`, `latest`), or else `from_time` (the first record that arrived then or later, unix
    seconds) matters only for a new checkpoint; a batch holds at most `max_offsets_per_trigger` records. Retention that
    removed unread records ends the query rather than skip them.
    """
    source = (
        spark.readStream.format("kafka")
        .options(**cluster.options(FETCH_PROPERTIES))
        .option("subscribe", topic)
        .option("startingOffsets", starting_offsets)
        .option("maxOffsetsPerTrigger", max_offsets_per_trigger)
        .option("failOnDataLoss", "true")
    )
    if from_time is not None:
        # A partition where nothing arrived since starts at its end.
        source = source.option("startingTimestamp", from_time * 1000).option(
            "startingOffsetsByTimestampStrategy", "latest"
        )
    return source.load()


def write_topic(records: DataFrame, cluster: KafkaCluster) -> DataStreamWriter:
    """A writer, not yet started, of records with `topic`, `key`, `value` and perhaps `headers`: at least once."""
    return records.writeStream.format("kafka").options(**cluster.options(PRODUCER_PROPERTIES))


def write_topic_once(records: DataFrame, cluster: KafkaCluster) -> None:
    """Writes the records of a static frame, as `write_topic` does for a stream."""
    records.write.format("kafka").options(**cluster.options(PRODUCER_PROPERTIES)).save()


def make_reject_records(rejected: DataFrame, topic: str) -> DataFrame:
    """Turns rows of `events.reject_events` into records for a topic: key and value as they came, the rest in headers.

    Headers are text: `reason`, and `topic`, `partition`, `offset`, `arrival_time` (ISO 8601 UTC, milliseconds) of the
    record that was rejected. Takes the columns of Kafka's source; where they are missing (files), so are the headers.
    """
    arrival = F.to_csv(F.struct("timestamp"), {"timeZone": "UTC", "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSS'Z'"})
    columns = {
        "topic": F.col("topic"),
        "partition": F.col("partition"),
        "offset": F.col("offset"),
        "arrival_time": arrival,
    }
    from_kafka = "offset" in rejected.columns
    headers = [make_header("reason", F.col("reject_reason"))]
    headers += [make_header(name, column) for name, column in columns.items()] if from_kafka else []
    key = F.col("key") if from_kafka else F.lit(None).cast("binary")
    return rejected.select(
        F.lit(topic).alias("topic"),
        key.alias("key"),
        F.col("value").cast("binary").alias("value"),
        F.array(*headers).alias("headers"),
    )


def make_header(name: str, value: Column) -> Column:
    """A Kafka record header, as Spark's sink takes it."""
    return F.struct(F.lit(name).alias("key"), value.cast("string").cast("binary").alias("value"))


def address_records(records: DataFrame, topic: str) -> DataFrame:
    """Adds to `key`, `value` records the topic they go to, and no headers, so that rejected ones can join them."""
    return records.select(
        F.lit(topic).alias("topic"),
        F.col("key").cast("binary").alias("key"),
        F.col("value").cast("binary").alias("value"),
        F.lit(None).cast("array<struct<key: string, value: binary>>").alias("headers"),
    )
