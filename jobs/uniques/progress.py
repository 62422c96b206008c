"""What a person sees while the job runs: one line a batch."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql.streaming.listener import StreamingQueryListener

if TYPE_CHECKING:
    from pyspark.sql.streaming.listener import (
        QueryIdleEvent,
        QueryProgressEvent,
        QueryStartedEvent,
        QueryTerminatedEvent,
        StreamingQueryProgress,
    )

log = logging.getLogger("uniques")


@dataclass(frozen=True)
class BatchProgress:
    """One micro-batch in the job's terms; counts are rows, `watermark` is ISO 8601 UTC or `-` before the first one."""

    batch: int
    events: int
    accepted: int
    seconds: float
    watermark: str
    lag: int
    open_windows: int
    rows_written: int

    def line(self) -> str:
        """The batch as one line of `name=value`."""
        rate = self.events / self.seconds if self.seconds else 0.0
        return (
            f"batch={self.batch} events={self.events} rejected={self.events - self.accepted} "
            f"events/s={rate:.0f} seconds={self.seconds:.1f} watermark={self.watermark} lag={self.lag} "
            f"open_windows={self.open_windows} rows_written={self.rows_written}"
        )


def count_lag(source: Any) -> int:
    """Records in the source topic behind those that this batch read; 0 for a source that is not Kafka."""
    if not source.description.startswith("Kafka"):
        return 0
    end, latest = (json.loads(text) if text else {} for text in (source.endOffset, source.latestOffset))
    return sum(
        max(0, offset - end.get(topic, {}).get(partition, 0))
        for topic, partitions in latest.items()
        for partition, offset in partitions.items()
    )


def describe_batch(progress: StreamingQueryProgress) -> BatchProgress:
    """Reads a StreamingQueryProgress of a query over `parse_events`."""
    observed = progress.observedMetrics.get("events")
    watermark = progress.eventTime.get("watermark", "")
    return BatchProgress(
        batch=progress.batchId,
        events=observed.read if observed else 0,
        accepted=observed.accepted if observed else 0,
        seconds=progress.durationMs.get("triggerExecution", 0) / 1000,
        watermark="-" if not watermark or watermark.startswith("1970-01-01T00:00:00.000") else watermark,
        lag=sum(count_lag(source) for source in progress.sources),
        open_windows=sum(operator.numRowsTotal for operator in progress.stateOperators),
        rows_written=max(0, progress.sink.numOutputRows),
    )


class ProgressListener(StreamingQueryListener):
    """Logs a line for every batch that did something, and one every 10 s (Spark's idle interval) otherwise."""

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Says that the query runs."""
        log.info("started query %s, run %s", event.name, event.runId)

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Logs the batch."""
        batch = describe_batch(event.progress)
        if batch.events or batch.rows_written:
            log.info(batch.line())

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: ARG002, N802
        """Says that nothing arrives."""
        log.info("idle: no new events")

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: ARG002, N802
        """Says that the query ended; why, `run_until_stopped` says."""
        log.info("query ended")
