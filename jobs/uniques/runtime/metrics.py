"""The counters and gauges of both jobs for Prometheus; needs the package prometheus_client, on the driver only.

Names and labels are stable: docs/reference lists them, and the dashboard and alerts in `docker/monitoring/` use them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pyspark.sql.streaming.listener import (
    QueryIdleEvent,
    QueryProgressEvent,
    QueryStartedEvent,
    QueryTerminatedEvent,
    StreamingQueryListener,
    StreamingQueryProgress,
)

from uniques import __version__
from uniques.core.events import REJECT_REASONS
from uniques.core.rollups import MINUTE_REJECT_REASONS
from uniques.errors import JobError
from uniques.runtime.listener import BatchProgress, ProgressListener, describe_batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

BATCH_SECONDS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
GAUGES = {
    "input_events_per_second": "Events that arrived between the last batch and the one before, per second.",
    "processed_events_per_second": "Events of the last batch per second of its duration.",
    "lag_records": "Offsets in the input topic behind those that the last batch read; 0 when all is read.",
    "state_rows": "Rows in Spark's state store.",
    "state_memory_bytes": "Memory of Spark's state store.",
    "progress_timestamp_seconds": "Event time up to which the topic is read; windows are published by it.",
    "watermark_timestamp_seconds": "Event time up to which windows can't be corrected any more.",
    "last_window_users": "Unique users in the latest window that was written.",
    "last_window_end_timestamp_seconds": "End of that window.",
}


class QueryMetrics(StreamingQueryListener, Collector):
    """Shows a query of this session; a subclass says what, in `make_families`.

    Spark calls it on one thread, Prometheus' server on others: what the latter shows is replaced as a whole.
    """

    def __init__(self, prefix: str, registry: CollectorRegistry) -> None:
        """Registers itself, the duration of batches, and the driver's process in `registry`.

        `prefix`: of every name, and the name of the query.
        """
        self.prefix = prefix
        self._batch_seconds = Histogram(
            f"{prefix}_batch_duration_seconds", "How long batches took.", buckets=BATCH_SECONDS, registry=registry
        )
        self._families: list[Metric] = []
        self._update()
        ProcessCollector(registry=registry)
        registry.register(self)

    def make_families(self) -> list[Metric]:
        """What is shown besides batches, process, version and time."""
        raise NotImplementedError

    def take_batch(self, progress: StreamingQueryProgress, batch: BatchProgress) -> None:
        """Takes over what a batch says."""
        raise NotImplementedError

    def read_batch(self, progress: StreamingQueryProgress) -> BatchProgress:
        """The batch in the job's terms."""
        return describe_batch(progress)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus gets: the state after the last batch."""
        yield from self._families

    def onQueryStarted(self, _event: QueryStartedEvent) -> None:  # noqa: N802
        """The query runs."""
        self._update()

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Takes over a batch; other queries of the session are none of its business."""
        if event.progress.name != self.prefix:
            return
        batch = self.read_batch(event.progress)
        self._batch_seconds.observe(batch.seconds)
        self.take_batch(event.progress, batch)
        self._update()

    def onQueryIdle(self, _event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing arrives, which is progress too: the query lives."""
        self._update()

    def onQueryTerminated(self, _event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The last batch stays on show until the process ends."""

    def _update(self) -> None:
        """Makes what `collect` gives."""
        info = GaugeMetricFamily(f"{self.prefix}_info", "The job that runs.", labels=["version"])
        info.add_metric([__version__], 1)
        alive = GaugeMetricFamily(
            f"{self.prefix}_last_progress_timestamp_seconds", "When the query was last seen to live.", time.time()
        )
        self._families = [info, *self.make_families(), alive]


class MetricsListener(QueryMetrics):
    """Shows the accounting of a ProgressListener; add it to the session after that one."""

    def __init__(self, listener: ProgressListener, registry: CollectorRegistry) -> None:
        """See `QueryMetrics`."""
        self._listener = listener
        self._gauges: dict[str, float] = {}
        super().__init__("unique_users", registry)

    def read_batch(self, progress: StreamingQueryProgress) -> BatchProgress:
        """The batch as the ProgressListener, which Spark calls first, has described it."""
        return self._listener.last_batch or describe_batch(progress)

    def take_batch(self, progress: StreamingQueryProgress, batch: BatchProgress) -> None:
        """Takes over what the accounting does not hold."""
        self._gauges["input_events_per_second"] = read_input_rate(progress, batch.events)
        self._gauges["processed_events_per_second"] = batch.events / batch.seconds if batch.seconds else 0.0
        self._gauges["lag_records"] = batch.lag
        self._gauges["state_rows"] = sum(operator.numRowsTotal for operator in progress.stateOperators)
        self._gauges["state_memory_bytes"] = sum(operator.memoryUsedBytes for operator in progress.stateOperators)
        if batch.progress:
            self._gauges["progress_timestamp_seconds"] = batch.progress
        if batch.watermark:
            self._gauges["watermark_timestamp_seconds"] = batch.watermark

    def onQueryIdle(self, event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing arrives, which is progress too: the query lives."""
        self._gauges.update(input_events_per_second=0.0, processed_events_per_second=0.0)
        super().onQueryIdle(event)

    def make_families(self) -> list[Metric]:
        """The accounting, and the gauges that are known."""
        accounting, gauges = self._listener.accounting, dict(self._gauges)
        prefix, summary = self.prefix, accounting.summary()
        if accounting.last_window:
            gauges["last_window_end_timestamp_seconds"], gauges["last_window_users"] = accounting.last_window
        late = summary["late"]
        rejected = CounterMetricFamily(f"{prefix}_events_rejected", "Records that are no events.", labels=["reason"])
        for reason in REJECT_REASONS:
            rejected.add_metric([reason], summary["rejected_by_reason"].get(reason, 0))
        filtered = summary["filtered"]
        return [
            CounterMetricFamily(f"{prefix}_events_read", "Records that were read.", summary["read"]),
            CounterMetricFamily(f"{prefix}_events_counted", "Events in records that were written.", summary["counted"]),
            rejected,
            CounterMetricFamily(f"{prefix}_events_filtered", "Events that --where leaves out.", filtered),
            CounterMetricFamily(
                f"{prefix}_events_late", "Events that came when their window could not be corrected any more.", late
            ),
            GaugeMetricFamily(
                f"{prefix}_events_in_open_windows", "Events that no record has yet.", summary["in_open_windows"]
            ),
            GaugeMetricFamily(f"{prefix}_open_windows", "Windows with such events.", summary["open_windows"]),
            CounterMetricFamily(f"{prefix}_corrections", "Corrections that were written.", summary["corrections"]),
            CounterMetricFamily(
                f"{prefix}_events_corrected", "Events that came by a correction.", summary["corrected_events"]
            ),
            CounterMetricFamily(f"{prefix}_rows_written", "Records that were written.", accounting.records),
            *(
                GaugeMetricFamily(f"{prefix}_{name}", text, gauges[name])
                for name, text in GAUGES.items()
                if name in gauges
            ),
        ]


class RollupMetrics(QueryMetrics):
    """Shows the totals of the rollup job, and its lag."""

    def __init__(self, totals: Mapping[str, int], registry: CollectorRegistry) -> None:
        """See `QueryMetrics`; `totals` are those of `RollupUpdater`, as they are after a batch."""
        self._totals = totals
        self._lag = 0
        super().__init__("rollup_users", registry)

    def take_batch(self, _progress: StreamingQueryProgress, batch: BatchProgress) -> None:
        """Takes over the lag."""
        self._lag = batch.lag

    def make_families(self) -> list[Metric]:
        """The totals and the lag."""
        prefix, totals = self.prefix, self._totals
        rejected = CounterMetricFamily(f"{prefix}_records_rejected", "Records left out.", labels=["reason"])
        for reason in MINUTE_REJECT_REASONS:
            rejected.add_metric([reason], totals.get(reason, 0))
        return [
            CounterMetricFamily(f"{prefix}_records_read", "Records that were read.", totals["read"]),
            rejected,
            CounterMetricFamily(f"{prefix}_windows_merged", "Windows of batches.", totals["windows"]),
            CounterMetricFamily(f"{prefix}_rows_renewed", "Rows of periods recomputed.", totals["rollups"]),
            GaugeMetricFamily(f"{prefix}_lag_records", "Offsets behind those of the last batch.", self._lag),
        ]


def read_input_rate(progress: StreamingQueryProgress, events: int) -> float:
    """Events a second that came from Kafka, of a batch of `events`.

    With --rejects-topic the query uses its source twice, and Spark counts each row twice: hence the share.
    """
    for source in progress.sources:
        # Spark says NaN or infinity for a batch that followed at once.
        if source.description.startswith("Kafka") and 0 <= source.inputRowsPerSecond < float("inf"):
            return source.inputRowsPerSecond * events / source.numInputRows if source.numInputRows else 0.0
    return 0.0


@contextmanager
def serve_metrics(address: tuple[str, int], listener: ProgressListener) -> Iterator[MetricsListener]:
    """Serves the metrics at `http://host:port/metrics`; raises JobError, one line, when that can't be listened on."""
    registry = CollectorRegistry()
    with serve_registry(address, registry):
        yield MetricsListener(listener, registry)


@contextmanager
def serve_rollup_metrics(address: tuple[str, int], totals: Mapping[str, int]) -> Iterator[RollupMetrics]:
    """The same for the second job."""
    registry = CollectorRegistry()
    with serve_registry(address, registry):
        yield RollupMetrics(totals, registry)


@contextmanager
def serve_registry(address: tuple[str, int], registry: CollectorRegistry) -> Iterator[None]:
    """Serves a registry; raises JobError, one line, when the address can't be listened on."""
    host, port = address
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise JobError(f"--metrics-port {host}:{port} can't be listened on: {error.strerror}") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
