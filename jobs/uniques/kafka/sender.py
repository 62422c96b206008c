"""The driver's producer: sends results, which are few, with Kafka's own client, many records in one call."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from uniques.kafka.admin import JavaClient
from uniques.kafka.topics import PRODUCER_PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster

CLOSE_SECONDS = 5
MAX_BLOCK_SECONDS = 120  # long enough for a broker to restart; Kafka's own delivery timeout is the same


class RecordSender:
    """A producer for one topic; with a `transactional_id` it writes in transactions. Raises what py4j raises."""

    def __init__(
        self,
        spark: SparkSession,
        cluster: KafkaCluster,
        topic: str,
        flag: str,
        transactional_id: str | None = None,
    ) -> None:
        """Makes the producer; raises UsageError, one line that names `flag`, when the driver has no Kafka client."""
        self.client = JavaClient(spark, flag)
        self._topic = topic
        kafka = self.client.kafka
        serializer = kafka.common.serialization.ByteArraySerializer._fqn
        settings = {name: value for name, value in PRODUCER_PROPERTIES.items() if name not in cluster.properties}
        settings |= {"max.block.ms": f"{MAX_BLOCK_SECONDS}000"}
        settings |= {"key.serializer": serializer, "value.serializer": serializer}
        if transactional_id:
            settings["transactional.id"] = transactional_id
        self.producer: Any = kafka.clients.producer.KafkaProducer(self.client.properties(cluster, settings))

    def send(self, records: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns once Kafka has all records."""
        self.client.calls.send(self.producer, self._topic, pack_records(records))

    def commit(
        self, records: Sequence[tuple[bytes, bytes]], group: str, offsets: Mapping[tuple[str, int], int], note: str
    ) -> None:
        """Sends the records and commits the offsets of a consumer group, with a note, in one transaction."""
        metadata = self.client.kafka.clients.consumer.ConsumerGroupMetadata(group)
        marks = self.client.offsets(dict(offsets), note)
        self.client.calls.commit(self.producer, self._topic, pack_records(records), marks, metadata)

    def close(self) -> None:
        """Ends the producer; aborts an open transaction."""
        self.producer.close(self.client.java.time.Duration.ofSeconds(CLOSE_SECONDS))


def pack_records(records: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Records, key and value, one after the other: before each part its length, 4 bytes, the highest first."""
    return b"".join(struct.pack(">i", len(part)) + part for record in records for part in record)
