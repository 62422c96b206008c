"""The whole main job in a benchmark's own process and session, with each of its batches looked at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pyspark.sql.streaming.listener import StreamingQueryListener
from uniques.apps import count
from uniques.runtime.listener import add_listeners
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.listener import (
        QueryIdleEvent,
        QueryProgressEvent,
        QueryStartedEvent,
        QueryTerminatedEvent,
        StreamingQueryProgress,
    )

LISTENER_SECONDS = 30.0


class BatchWatcher(StreamingQueryListener):
    """Calls `take` with every batch that read events; `events` is how many they were."""

    def __init__(self) -> None:
        """Nothing is read yet."""
        self.events = 0

    def take(self, progress: StreamingQueryProgress, events: int) -> None:
        """Looks at a batch, which read so many events."""
        raise NotImplementedError

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Hands a batch over."""
        observed = event.progress.observedMetrics.get("events")
        if observed and observed["read"]:
            self.take(event.progress, observed["read"])
            self.events += observed["read"]

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Nothing to see yet."""

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing to see."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """Nothing to see any more."""


def drain(spark: SparkSession, flags: Sequence[str], events: int, watcher: BatchWatcher) -> None:
    """Runs the job with these flags over a topic with so many events, until all are read and the watcher has them."""
    settings = count.parse_settings([*flags, "--trigger", "available-now"])
    # As the job's own listener is added: PySpark's way would take a good part of what is measured.
    with add_listeners(spark, [watcher]):
        count.run(spark, settings, StopSignal())
        # Spark calls listeners after the batch, on a thread of its own.
        deadline = time.monotonic() + LISTENER_SECONDS
        while watcher.events < events and time.monotonic() < deadline:
            time.sleep(0.1)
