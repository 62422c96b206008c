"""Exactly-once output: one Kafka transaction holds the results of a batch and the number of batches written.

Spark's own sink writes from many executors and can only promise at least once. A batch has few results, so the driver
writes them, with one transactional producer. In the same transaction it commits an offset to a consumer group: the
mark, the number of batches that are written, as the offset of partition 0 of the output topic. When Spark repeats a
batch after a crash, the mark says whether it is written already.

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
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError

from uniques.errors import JobError, UsageError
from uniques.kafka.admin import JavaClient
from uniques.kafka.errors import explain_kafka_error
from uniques.kafka.topics import PRODUCER_PROPERTIES, write_topic_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pyspark.sql import DataFrame, SparkSession

    from uniques.kafka.properties import KafkaCluster

log = logging.getLogger("uniques")

KEEP_ALIVE_SECONDS = 10.0
READ_SECONDS = 60
CLOSE_SECONDS = 5
TAKE_OVER_SECONDS = 5.0  # a new instance has written its first mark by then
MAX_BLOCK_SECONDS = 120  # long enough for a broker to restart; Kafka's own delivery timeout is the same
FENCED = ("ProducerFencedException", "InvalidProducerEpochException")


class TransactionalWriter:
    """Writes the batches of one query to a topic, each exactly once; a context manager around the query's run."""

    def __init__(
        self,
        spark: SparkSession,
        cluster: KafkaCluster,
        topic: str,
        name: str,
        check_mark: Callable[[int | None], None],
        with_rejects: bool,
    ) -> None:
        """Fences off another instance of the same `name`, aborts its open transaction, and reads the mark.

        `name` is the name of producer and group for the life of a checkpoint. `check_mark` gets the number of batches
        that are written, None where Kafka has no mark; it raises UsageError when the checkpoint does not fit. Raises
        UsageError when the driver has no Kafka client, JobError when Kafka refuses or does not answer.
        """
        self._client = JavaClient(spark, "--exactly-once")
        self._cluster = cluster
        self._topic = topic
        self._with_rejects = with_rejects
        self._name = name
        now = datetime.now(timezone.utc)
        self._instance = f"{socket.gethostname()}, process {os.getpid()}, started {now:%Y-%m-%dT%H:%M:%SZ}"
        self._lock = threading.Lock()
        self._keep_alive_thread: threading.Thread | None = None
        self.failure: JobError | None = None
        kafka = self._client.kafka
        serializer = kafka.common.serialization.ByteArraySerializer._fqn
        settings = {name: value for name, value in PRODUCER_PROPERTIES.items() if name not in cluster.properties}
        settings |= {"transactional.id": self._name, "max.block.ms": f"{MAX_BLOCK_SECONDS}000"}
        settings |= {"key.serializer": serializer, "value.serializer": serializer}
        self._producer = kafka.clients.producer.KafkaProducer(self._client.properties(cluster, settings))
        self._admin = kafka.clients.admin.Admin.create(self._client.properties(cluster, {}))
        try:
            mark = self._take_over()
            check_mark(mark)
            self._done = mark or 0
            # From now on there is a mark, even before the first batch, and its note names this instance.
            self._commit([], self._done)
        except BaseException:
            self.close()
            raise

    def write_batch(self, records: DataFrame, batch: int) -> None:
        """Writes a batch, unless it is written already; for `foreachBatch`.

        Takes the columns of `records.add_topic`. Records with headers are rejected ones. There may be many, so the
        executors write them before the results, at least once.
        """
        written = batch < self._done
        # A batch that is written is computed too: Spark fails a query whose batch was not read to its end.
        if self._with_rejects:
            records.persist()
            if not written:
                write_topic_once(records.where("headers IS NOT NULL"), self._cluster)
        results = records.where("headers IS NULL").select("key", "value").collect()
        records.unpersist()
        if written:
            log.info("batch=%d was written before the restart, and is not written again", batch)
            return
        with self._lock:
            self._commit(sorted((bytes(row.key), bytes(row.value)) for row in results), batch + 1)

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

    def __enter__(self) -> TransactionalWriter:
        """Around a query: raises the reason of a failed write in place of Spark's error."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the clients."""
        self.close()
        if self.failure and isinstance(error, JobError):
            raise self.failure from error

    def close(self) -> None:
        """Ends the clients; aborts an open transaction."""
        patience = self._client.java.time.Duration.ofSeconds(CLOSE_SECONDS)
        self._producer.close(patience)
        self._admin.close(patience)

    def _take_over(self) -> int | None:
        try:
            self._producer.initTransactions()
            mark = self._read_mark()
        except Py4JError as error:
            raise self._explain(error) from error
        return mark[0] if mark else None

    def _commit_nothing(self) -> None:
        with self._lock, suppress(JobError):
            self._commit([], self._done)

    def _commit(self, records: list[tuple[bytes, bytes]], done: int) -> None:
        if self.failure:
            # Only a new start can find out whether the last transaction was committed.
            raise self.failure
        clients = self._client.kafka.clients
        try:
            self._producer.beginTransaction()
            # Write the mark first and wait for each record: both fail at once when the producer is fenced off, while
            # a commit may then wait until max.block.ms.
            mark = self._client.offsets({(self._topic, 0): done}, self._instance)
            self._producer.sendOffsetsToTransaction(mark, clients.consumer.ConsumerGroupMetadata(self._name))
            sent = [self._producer.send(clients.producer.ProducerRecord(self._topic, *record)) for record in records]
            self._producer.flush()
            for record in sent:
                record.get()
            self._producer.commitTransaction()
        except Py4JError as error:
            self.failure = self._explain(error)
            # Without the cause: Spark logs what is raised here, and the line says it all.
            raise self.failure from None
        self._done = done
        self._committed_at = time.monotonic()

    def _read_mark(self) -> tuple[int, str] | None:
        """The number of batches that are written, and the instance that wrote it; None without a mark."""
        # Wait for transactions that are being committed or aborted: they may change the mark.
        options = self._client.kafka.clients.admin.ListConsumerGroupOffsetsOptions().requireStable(True)
        found = self._admin.listConsumerGroupOffsets(self._name, options).partitionsToOffsetAndMetadata()
        marks = found.get(READ_SECONDS, self._client.java.util.concurrent.TimeUnit.SECONDS).values()
        # There are several marks after --output-topic was changed.
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
