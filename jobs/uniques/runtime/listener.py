"""What a person sees while the job runs: one line a batch, and a summary at the end."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
    StreamingQueryProgress,
)

from uniques.kafka.offsets import count_advance, count_lag, count_records
from uniques.runtime.progress_text import take_progress_as_text
from uniques.times import describe_time, parse_progress_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter

    from uniques.state.accounting import Accounting

log = logging.getLogger("uniques")


@dataclass(frozen=True)
class Published:
    """What a batch published: `records` written, progress `reached` in unix seconds (0 before there is any), and
    `open_windows`, which have events that no record has yet.
    """

    records: int
    reached: float = 0.0
    open_windows: int = 0


class Follower(Protocol):
    """Who takes the batches that Spark has finished."""

    @property
    def accounting(self) -> Accounting:
        """Where their events went."""

    def add_batch(self, progress: StreamingQueryProgress) -> Published:
        """Adds a batch; returns what was published with it."""


@dataclass(frozen=True)
class BatchProgress:
    """One micro-batch in the job's terms; counts are rows, times are unix seconds, 0 before there is one.

    `progress` is how far event time is read, `watermark` what Spark forgets windows by. `lag` and `advance` are offsets
    of the input topic: behind the batch, and of the batch itself (0 when not known).
    """

    batch: int
    events: int
    seconds: float
    progress: float
    watermark: float
    lag: int
    advance: int
    open_windows: int
    rows_written: int

    def line(self) -> str:
        """The batch as one line of `name=value`."""
        rate = self.events / self.seconds if self.seconds else 0.0
        return (
            f"batch={self.batch} events={self.events} events/s={rate:.0f} seconds={self.seconds:.1f} "
            f"progress={describe_reached(self.progress)} watermark={describe_reached(self.watermark)} lag={self.lag} "
            f"open_windows={self.open_windows} rows_written={self.rows_written}"
        )


def describe_reached(seconds: float) -> str:
    """A time as ISO 8601 in UTC, `-` where there is none yet."""
    return describe_time(int(seconds)) if seconds else "-"


def describe_batch(progress: StreamingQueryProgress, published: Published = Published(0)) -> BatchProgress:
    """Reads the progress of a query with the observation of `observation.observe_events`."""
    observed = progress.observedMetrics.get("events")
    return BatchProgress(
        batch=progress.batchId,
        events=observed["read"] if observed else 0,
        seconds=progress.durationMs.get("triggerExecution", 0) / 1000,
        progress=published.reached,
        watermark=parse_progress_time(progress.eventTime.get("watermark")),
        lag=max(count_lag(source) for source in progress.sources),  # --rejects-topic reads the topic twice
        advance=max(count_advance(source) for source in progress.sources),
        open_windows=published.open_windows,
        rows_written=published.records,
    )


def span_offsets(progress: StreamingQueryProgress) -> int | None:
    """How many records the offsets of a batch span at most, None without a Kafka source.

    Transaction markers and compaction leave offsets without a record, so there may be fewer. With --rejects-topic the
    query reads the topic twice, with the same offsets.
    """
    spans = [
        count_records(source.startOffset, source.endOffset)
        for source in progress.sources
        if source.description.startswith("Kafka")
    ]
    return max(spans, default=None)


@contextmanager
def add_listeners(spark: SparkSession, listeners: Sequence[StreamingQueryListener]) -> Iterator[None]:
    """Registers the listeners, in order, for what is done inside."""
    with ExitStack() as stack:
        for listener in listeners:
            take_progress_as_text(spark, listener)
            spark.streams.addListener(listener)
            stack.callback(spark.streams.removeListener, listener)
        yield


def describe_totals(totals: dict[str, int]) -> str:
    """An accounting's totals as one line of `name=value`."""
    return " ".join(f"{name}={number}" for name, number in totals.items())


class LagListener(StreamingQueryListener):
    """Logs after every batch how far behind its topic a query is."""

    def __init__(self, name: str) -> None:
        """`name` of the query: others may run in the session."""
        self._name = name

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Nothing is read yet."""

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Logs the batch's lag, in records."""
        if event.progress.name == self._name:
            batch = describe_batch(event.progress)
            log.info("batch=%s lag=%s", batch.batch, batch.lag)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing is behind."""

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The job says why it ended."""


class ProgressListener(StreamingQueryListener):
    """Keeps the accounting, and logs a line for every batch that did something.

    When nothing happens a line comes every 10 s, Spark's idle interval. Spark calls it on a thread of its own, after
    the batch; `wait_until_ended` waits for its last call.
    """

    def __init__(self, follower: Follower, bounded: bool = False) -> None:
        """`follower` gets the batches of the runs that start from now on; `last_batch` is the latest of them.

        With `bounded` the input has an end, and a line says how many seconds are left until it is read.
        """
        self._follower = follower
        self.last_batch: BatchProgress | None = None
        self._bounded = bounded
        self._began = time.monotonic()
        self._advanced = 0
        self._runs: set[str] = set()
        self._awaited: set[str] = set()
        self._ended: set[str] = set()
        self._ending = threading.Condition()

    @property
    def accounting(self) -> Accounting:
        """Where the events went."""
        return self._follower.accounting

    def start(self, writer: DataStreamWriter) -> StreamingQuery:
        """Starts a query whose end `wait_until_ended` waits for."""
        query = writer.start()
        self._awaited.add(str(query.runId))
        return query

    def onQueryStarted(self, event: QueryStartedEvent) -> None:  # noqa: N802
        """Says that the query runs; Spark calls this before the query's start returns, Spark Connect at some time."""
        self._runs.add(str(event.runId))
        log.info("started query %s, run %s", event.name, event.runId)

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Adds the batch to the accounting and logs it."""
        progress = event.progress
        if str(progress.runId) not in self._runs:
            return
        batch = self.last_batch = describe_batch(progress, self._follower.add_batch(progress))
        if batch.events or batch.rows_written:
            # Offsets, as the lag is: markers of transactions have them too. The first batch has only its events.
            self._advanced += batch.advance or batch.events
            left = f" left_s={self.estimate_left(batch.lag):.0f}" if self._bounded and batch.lag else ""
            log.info("%s%s | total %s", batch.line(), left, describe_totals(self.accounting.totals()))

    def estimate_left(self, lag: int) -> float:
        """Seconds until `lag` offsets are read, at the rate so far."""
        return lag * (time.monotonic() - self._began) / max(1, self._advanced)

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Says that nothing arrives."""
        if str(event.runId) in self._runs:
            log.info("idle: no new events")

    def onQueryTerminated(self, event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The last call of a run; why it ended, `run_until_stopped` says."""
        with self._ending:
            self._ended.add(str(event.runId))
            self._ending.notify_all()

    def wait_until_ended(self, timeout_seconds: float = 10.0) -> None:
        """Returns when all batches of all runs are in the accounting; warns when Spark does not report them in time."""
        with self._ending:
            if not self._ending.wait_for(lambda: self._awaited <= self._ended, timeout_seconds):
                log.warning("Spark did not report the last batches in time: the summary lacks them")
