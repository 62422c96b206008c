"""Commits the offsets that were read to a consumer group, so that Kafka's own tools show the lag."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
)

from uniques.kafka.admin import JavaClient
from uniques.kafka.errors import explain_kafka_error
from uniques.kafka.offsets import read_offsets

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster

log = logging.getLogger("uniques")

LAST_COMMIT_SECONDS = 5


class GroupCommitter(StreamingQueryListener):
    """Commits the offsets that the query has read to a consumer group after every batch.

    The job never reads these offsets. It does not wait for a commit, and warns when one fails: no count depends on it.
    While nothing arrives, the last commit is repeated every 10 s, so that the group does not expire.
    """

    def __init__(self, spark: SparkSession, cluster: KafkaCluster, group: str) -> None:
        """Raises UsageError when the driver has no client."""
        self._client = JavaClient(spark, "--consumer-group")
        self._cluster = cluster
        self._group = group
        self._admin = self._client.kafka.clients.admin.Admin.create(self._client.properties(cluster, {}))
        self._offsets: dict[tuple[str, int], int] = {}
        self._running: Any = None
        self._warned = False

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Nothing is read yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Commits the end of the batch."""
        for source in event.progress.sources:
            if source.description.startswith("Kafka"):
                self._offsets.update(read_offsets(source.endOffset))
        self._commit()

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802, ARG002
        """Keeps the group alive."""
        self._commit()

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802, ARG002
        """Waits for the last commit, up to LAST_COMMIT_SECONDS."""
        if self._running is not None:
            self._check(LAST_COMMIT_SECONDS)

    def close(self) -> None:
        """Ends the client's threads."""
        self._admin.close(self._client.java.time.Duration.ofSeconds(LAST_COMMIT_SECONDS))

    def _commit(self) -> None:
        if self._running is not None:
            if not self._running.isDone():
                return  # the broker has not answered yet; the next batch commits later offsets
            self._check(0)
        if self._offsets:
            offsets = self._client.offsets(self._offsets)
            self._running = self._admin.alterConsumerGroupOffsets(self._group, offsets).all()

    def _check(self, wait_seconds: int) -> None:
        running, self._running = self._running, None
        try:
            running.get(wait_seconds, self._client.java.util.concurrent.TimeUnit.SECONDS)
            self._warned = False
        except Py4JError as error:
            if not self._warned:
                topic = ", ".join(sorted({topic for topic, _ in self._offsets}))
                reason = explain_kafka_error(str(error), self._cluster, topic, None)
                log.warning("warning: offsets are not committed to --consumer-group %s: %s", self._group, reason)
            self._warned = True
