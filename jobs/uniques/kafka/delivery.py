"""Where the records of a stream go: exactly once, or at least once.

Exactly once: one Kafka transaction holds the records of a step and the number of transactions written.

Spark's own sink writes from many executors and can only promise at least once. A step has few results, so the driver
writes them, with one transactional producer. In the same transaction it commits an offset to a consumer group: the
mark, the number of transactions that are written, as the offset of partition 0 of the output topic. When a step is
repeated after a crash, the mark says whether it is written already.

Producer and group have one name, which is made once for a checkpoint and kept beside it. Kafka lets only the latest
producer of a name write: a second instance on the same checkpoint fences off the first.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Protocol

from py4j.protocol import Py4JError

from uniques.errors import JobError, UsageError
from uniques.jvm import list_items
from uniques.kafka.errors import explain_kafka_error
from uniques.kafka.sender import CLOSE_SECONDS, MAX_BLOCK_SECONDS, RecordSender

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster

log = logging.getLogger("uniques")

FLAG = "--delivery exactly-once"
KEEP_ALIVE_SECONDS = 10.0
READ_SECONDS = 60
TAKE_OVER_SECONDS = 5.0  # a new instance has written its first mark by then
FENCED = ("ProducerFencedException", "InvalidProducerEpochException")


class Writer(Protocol):
    """Where records go; `written` is the number of steps with records that are there, None where that is not known."""

    written: int | None
    exactly_once: bool

    def write(self, records: Sequence[tuple[bytes, bytes]], number: int) -> None:
        """Writes records, key and value, as those of step `number` among the steps with records; raises JobError."""

    def keep_alive(self) -> None:
        """Called again and again; raises JobError when the writer can't go on."""

    def close(self) -> None:
        """Ends the writer."""


class TransactionalWriter:
    """Writes the records of one checkpoint to a topic, each exactly once."""

    exactly_once = True

    def __init__(self, spark: SparkSession, cluster: KafkaCluster, topic: str, name: str) -> None:
        """Fences off another instance of the same `name`, aborts its open transaction, and reads the mark.

        `name` is the name of producer and group for the life of a checkpoint. `written` is then the number of
        transactions that Kafka has, None where it has no mark. Raises UsageError when the driver has no Kafka client,
        JobError when Kafka refuses or does not answer.
        """
        self._sender = RecordSender(spark, cluster, topic, FLAG, transactional_id=name)
        self._client = self._sender.client
        self._cluster = cluster
        self._topic = topic
        self._name = name
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._instance = f"{socket.gethostname()}, process {os.getpid()}, started {now}"
        self._lock = threading.Lock()
        self._keep_alive_thread: threading.Thread | None = None
        self._committed_at = time.monotonic()
        self.failure: JobError | None = None
        self._admin = self._client.kafka.clients.admin.Admin.create(self._client.properties(cluster, {}))
        try:
            self.written = self._take_over()
        except BaseException:
            self.close()
            raise

    def write(self, records: Sequence[tuple[bytes, bytes]], number: int) -> None:
        """Writes records, key and value, as transaction `number`; none leave a mark only. Raises JobError."""
        with self._lock:
            self._commit(records, number)

    def keep_alive(self) -> None:
        """Writes an empty transaction when the last one is KEEP_ALIVE_SECONDS old; call it again and again.

        An idle instance notices in this way that another one took over. Kafka also forgets a producer and a group that
        are idle for a week. Does not wait for the transaction; raises the JobError of an earlier one.
        """
        if self.failure:
            raise self.failure
        idle = time.monotonic() - self._committed_at >= KEEP_ALIVE_SECONDS
        if idle and not (self._keep_alive_thread and self._keep_alive_thread.is_alive()):
            self._keep_alive_thread = threading.Thread(target=self._commit_nothing, daemon=True)
            self._keep_alive_thread.start()

    def close(self) -> None:
        """Ends the clients; aborts an open transaction."""
        self._sender.close()
        self._admin.close(self._client.java.time.Duration.ofSeconds(CLOSE_SECONDS))

    def _take_over(self) -> int | None:
        try:
            self._sender.producer.initTransactions()
            mark = self._read_mark()
        except Py4JError as error:
            raise self._explain(error) from error
        return mark[0] if mark else None

    def _commit_nothing(self) -> None:
        with self._lock, suppress(JobError):
            self._commit([], self.written or 0)

    def _commit(self, records: Sequence[tuple[bytes, bytes]], number: int) -> None:
        if self.failure:
            # Only a new start can find out whether the last transaction was committed.
            raise self.failure
        try:
            self._sender.commit(records, self._name, {(self._topic, 0): number}, self._instance)
        except Py4JError as error:
            self.failure = self._explain(error)
            # Without the cause: Spark logs what is raised here, and the line says it all.
            raise self.failure from None
        self.written = number
        self._committed_at = time.monotonic()

    def _read_mark(self) -> tuple[int, str] | None:
        """The number of transactions that are written, and the instance that wrote it; None without a mark."""
        # Wait for transactions that are being committed or aborted: they may change the mark.
        options = self._client.kafka.clients.admin.ListConsumerGroupOffsetsOptions().requireStable(True)
        found = self._admin.listConsumerGroupOffsets(self._name, options).partitionsToOffsetAndMetadata()
        entries = found.get(READ_SECONDS, self._client.java.util.concurrent.TimeUnit.SECONDS).entrySet()
        # There are several marks after --output-topic was changed.
        marks = [entry.getValue() for entry in list_items(entries)]
        return max(((mark.offset(), mark.metadata()) for mark in marks), default=None)

    def _explain(self, error: Py4JError) -> JobError:
        message = str(error)
        if not any(sign in message for sign in FENCED):
            return JobError(explain_kafka_error(message, self._cluster, self._topic, MAX_BLOCK_SECONDS))
        deadline = time.monotonic() + TAKE_OVER_SECONDS
        while time.monotonic() < deadline:
            with suppress(Py4JError):
                mark = self._read_mark()
                if mark and mark[1] != self._instance:
                    # A new start would fence off the other instance.
                    return UsageError(f"another instance took this checkpoint over ({mark[1]}): this one ends")
            time.sleep(TAKE_OVER_SECONDS / 10)
        return JobError(
            "Kafka aborted a transaction that was open for longer than transaction.timeout.ms, as when the job is "
            "paused: start the job again; it continues where it was"
        )


class AtLeastOnceWriter:
    """Writes the records of a checkpoint without transactions: after a crash the last step comes again, equal."""

    written: int | None = None
    exactly_once = False

    def __init__(self, spark: SparkSession, cluster: KafkaCluster, topic: str) -> None:
        """Raises UsageError when the driver has no Kafka client."""
        self._sender = RecordSender(spark, cluster, topic, "--output-topic")
        self._cluster = cluster
        self._topic = topic

    def write(self, records: Sequence[tuple[bytes, bytes]], number: int) -> None:  # noqa: ARG002
        """Writes records, key and value; raises JobError."""
        try:
            self._sender.send(records)
        except Py4JError as error:
            raise JobError(explain_kafka_error(str(error), self._cluster, self._topic, MAX_BLOCK_SECONDS)) from None

    def keep_alive(self) -> None:
        """Nothing to keep: Kafka's client goes on by itself."""

    def close(self) -> None:
        """Ends the producer."""
        self._sender.close()
