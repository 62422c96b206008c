"""Finds out that a topic lost events which were read already, and may have others in their place.

With unclean leader election a broker that lacks the newest events can become the leader of a partition. Its log is
shorter, and grows again: the offsets that were read then belong to other events, which would be skipped. Spark notices
only while the log is shorter. Each election has a number, the leader epoch; here the job keeps the epoch in which it
read, and asks the new leader where that epoch ended, as Kafka's own consumer does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniques.kafka.partitions import TopicEnds
    from uniques.kafka.subscription import Partition

RETRY_SECONDS = 1.0
ANSWER_SECONDS = 10
TRUNCATED = "LogTruncationException"


class TruncationCheck:
    """Follows how far partitions are read; raises UsageError, one line, when one has lost what was read of it."""

    def __init__(self, ends: TopicEnds) -> None:
        """Asks with the client of `ends`, which stays open as long as this is in use."""
        self._client = ends.client
        self._admin = ends.admin
        self._cluster = ends.cluster
        self._subscription = ends.subscription
        # Of each partition an epoch, and an offset up to which events of that epoch, or of earlier ones, were read.
        self._known: dict[Partition, tuple[int, int]] = {}
        self._asked: dict[Partition, int] = {}
        self._running: Any = None
        self._not_before = 0.0

    def check(self, positions: Mapping[Partition, int]) -> None:
        """Call it again and again, with the next offset of each partition. Waits for Kafka only after an election.

        A question is on its way most of the time: while a partition has no leader there is no answer, so what was read
        before the election is known when the answer comes.
        """
        if self._running is not None:
            if not self._running.isDone():
                return
            self._take_answer()
        if positions and dict(positions) != self._asked and time.monotonic() >= self._not_before:
            self._ask(positions)

    def _ask(self, positions: Mapping[Partition, int]) -> None:
        self._asked = dict(positions)
        lines = "\n".join(f"{topic} {partition}" for topic, partition in positions)
        self._running = self._client.calls.askEnds(self._admin, lines)

    def _take_answer(self) -> None:
        running, self._running = self._running, None
        try:
            lines = self._client.calls.readEpochs(running)
        except Py4JError:
            # Kafka is away, or a topic is: the query says so. What is known stays, to be compared with later.
            self._asked, self._not_before = {}, time.monotonic() + RETRY_SECONDS
            return
        for line in lines.splitlines():
            topic, number, epoch = line.split(" ")
            partition = topic, int(number)
            known = self._known.get(partition)
            if known is not None and known[0] != int(epoch) and not self._is_held(partition, known):
                continue
            self._known[partition] = int(epoch), self._asked[partition]

    def _is_held(self, partition: Partition, known: tuple[int, int]) -> bool:
        """Whether the leader has what was read; False when it does not say. Raises UsageError when it has not."""
        kafka, epoch, offset = self._client.kafka, *known
        deserializer = kafka.common.serialization.ByteArrayDeserializer._fqn
        settings = {
            "auto.offset.reset": "none",
            "enable.auto.commit": "false",
            "key.deserializer": deserializer,
            "value.deserializer": deserializer,
        }
        java_partition = kafka.common.TopicPartition(*partition)
        partitions, wait = (
            self._client.list_of([java_partition]),
            self._client.java.time.Duration.ofSeconds(ANSWER_SECONDS),
        )
        consumer = None
        try:
            consumer = kafka.clients.consumer.KafkaConsumer(self._client.properties(self._cluster, settings))
            consumer.assign(partitions)
            # It compares only once it knows the leader, so it has to ask the leader for something else before.
            consumer.seekToBeginning(partitions)
            consumer.position(java_partition, wait)
            there = self._client.java.util.Optional.of(epoch)
            consumer.seek(java_partition, kafka.clients.consumer.OffsetAndMetadata(offset, there, ""))
            consumer.position(java_partition, wait)
        except Py4JError as error:
            if TRUNCATED in str(error):
                raise UsageError(self._describe(partition, offset)) from None
            return False
        finally:
            if consumer is not None:
                consumer.close()
        return True

    def _describe(self, partition: Partition, offset: int) -> str:
        topic, number = partition
        return (
            f"{self._subscription.flag} {topic}: events of partition {number} that were read, before offset {offset}, "
            "are gone, and others stand in their place: a broker that lacked them became the leader (unclean leader "
            "election); take another --checkpoint-location, which starts with what there is"
        )
