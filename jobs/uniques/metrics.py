"""The counters and gauges of both jobs for Prometheus; needs the package prometheus_client, on the driver only.

Names and labels are stable: README lists them, and the dashboard and alerts in `docker/monitoring/` use them.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pyspark.sql.streaming.listener import StreamingQueryListener

from uniques import __version__
from uniques.accounting import parse_time
from uniques.events import REJECT_REASONS
from uniques.lifecycle import JobError
from uniques.progress import count_lag, describe_batch
from uniques.rollups import BEFORE_KEPT_MINUTES, MINUTE_REJECT_REASONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric
    from pyspark.sql.streaming.listener import (
        QueryIdleEvent,
        QueryProgressEvent,
        QueryStartedEvent,
        QueryTerminatedEvent,
        StreamingQueryProgress,
    )

    from uniques.progress import ProgressListener

PREFIX, ROLLUP_PREFIX = "unique_users", "rollup_users"
BATCH_SECONDS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

GAUGES = {
    "input_events_per_second": "Events that arrived between the last batch and the one before, per second.",
    "processed_events_per_second": "Events of the last batch per second of its duration.",
    "lag_records": "Records in the input topic behind those that the last batch read.",
    "state_rows": "Rows in Spark's state store.",
    "state_memory_bytes": "Memory of Spark's state store.",
    "watermark_timestamp_seconds": "Event time up to which windows are closed.",
    "last_window_users": "Unique users in the latest window that was written.",
    "last_window_end_timestamp_seconds": "End of that window.",
}


class MetricsListener(StreamingQueryListener, Collector):
    """Shows what a ProgressListener has booked; to be added to the session after that one.

    Spark calls it on one thread, Prometheus' server on others: what the latter shows is replaced as a whole.
    """

    def __init__(self, listener: ProgressListener, registry: CollectorRegistry) -> None:
        """Registers itself, the duration of batches, and the driver's process in `registry`."""
        self._listener = listener
        self._batch_seconds = Histogram(
            f"{PREFIX}_batch_duration_seconds", "How long batches took.", buckets=BATCH_SECONDS, registry=registry
        )
        self._rows_written = 0
        self._gauges: dict[str, float] = {}
        self._families: list[Metric] = []
        self._update()
        ProcessCollector(registry=registry)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus gets: the state after the last batch."""
        yield from self._families

    def onQueryStarted(self, _event: QueryStartedEvent) -> None:  # noqa: N802
        """The query runs."""
        self._update()

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Takes over a batch."""
        progress = event.progress
        batch = describe_batch(progress)
        self._batch_seconds.observe(batch.seconds)
        self._rows_written += batch.rows_written
        self._gauges["input_events_per_second"] = read_input_rate(progress)
        self._gauges["processed_events_per_second"] = batch.events / batch.seconds if batch.seconds else 0.0
        self._gauges["lag_records"] = batch.lag
        self._gauges["state_rows"] = sum(operator.numRowsTotal for operator in progress.stateOperators)
        self._gauges["state_memory_bytes"] = sum(operator.memoryUsedBytes for operator in progress.stateOperators)
        watermark = parse_time(progress.eventTime.get("watermark"))
        if watermark:
            self._gauges["watermark_timestamp_seconds"] = watermark
        written = progress.observedMetrics.get("results")
        if written is not None and written["last_window_end"] is not None:
            self._gauges["last_window_users"] = written["last_window_users"]
            self._gauges["last_window_end_timestamp_seconds"] = written["last_window_end"]
        self._update()

    def onQueryIdle(self, _event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing arrives, which is progress too: the query lives."""
        self._gauges.update(input_events_per_second=0.0, processed_events_per_second=0.0)
        self._update()

    def onQueryTerminated(self, _event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The last batch stays on show until the process ends."""

    def _update(self) -> None:
        """Makes what `collect` gives."""
        summary = self._listener.ledger.summary()
        rejected = CounterMetricFamily(f"{PREFIX}_events_rejected", "Records that are no events.", labels=["reason"])
        for reason in REJECT_REASONS:
            rejected.add_metric([reason], summary["rejected_by_reason"].get(reason, 0))
        self._families = [
            make_info(PREFIX),
            CounterMetricFamily(f"{PREFIX}_events_read", "Records that were read.", summary["read"]),
            CounterMetricFamily(f"{PREFIX}_events_counted", "Events in windows that are closed.", summary["counted"]),
            rejected,
            CounterMetricFamily(f"{PREFIX}_events_late", "Events whose window was closed.", summary["late"]),
            GaugeMetricFamily(
                f"{PREFIX}_events_in_open_windows", "Events in windows that are open.", summary["in_open_windows"]
            ),
            GaugeMetricFamily(f"{PREFIX}_open_windows", "Windows that are open.", summary["open_windows"]),
            CounterMetricFamily(f"{PREFIX}_rows_written", "Records that were written.", self._rows_written),
            make_last_progress(PREFIX),
            *(
                GaugeMetricFamily(f"{PREFIX}_{name}", text, self._gauges[name])
                for name, text in GAUGES.items()
                if name in self._gauges
            ),
        ]


class RollupMetrics(StreamingQueryListener, Collector):
    """Shows what the second job has done: its totals, and how far behind its topic it is."""

    def __init__(self, totals: Mapping[str, int], registry: CollectorRegistry) -> None:
        """`totals` are those of `rollup_users.Keeper`, as they stand after a batch."""
        self._totals = totals
        self._batch_seconds = Histogram(
            f"{ROLLUP_PREFIX}_batch_duration_seconds",
            "How long batches took.",
            buckets=BATCH_SECONDS,
            registry=registry,
        )
        self._lag = 0
        self._families: list[Metric] = []
        self._update()
        ProcessCollector(registry=registry)
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus gets: the state after the last batch."""
        yield from self._families

    def onQueryStarted(self, _event: QueryStartedEvent) -> None:  # noqa: N802
        """The query runs."""
        self._update()

    def onQueryProgress(self, event: QueryProgressEvent) -> None:  # noqa: N802
        """Takes over a batch."""
        self._batch_seconds.observe(event.progress.durationMs.get("triggerExecution", 0) / 1000)
        self._lag = max(count_lag(source) for source in event.progress.sources)
        self._update()

    def onQueryIdle(self, _event: QueryIdleEvent) -> None:  # noqa: N802
        """Nothing arrives, which is progress too: the query lives."""
        self._update()

    def onQueryTerminated(self, _event: QueryTerminatedEvent) -> None:  # noqa: N802
        """The last batch stays on show until the process ends."""

    def _update(self) -> None:
        """Makes what `collect` gives."""
        rejected = CounterMetricFamily(f"{ROLLUP_PREFIX}_records_rejected", "Records left out.", labels=["reason"])
        for reason in (*MINUTE_REJECT_REASONS, BEFORE_KEPT_MINUTES):
            rejected.add_metric([reason], self._totals.get(reason, 0))
        self._families = [
            make_info(ROLLUP_PREFIX),
            CounterMetricFamily(f"{ROLLUP_PREFIX}_records_read", "Records that were read.", self._totals["read"]),
            rejected,
            CounterMetricFamily(f"{ROLLUP_PREFIX}_windows_merged", "Windows of batches.", self._totals["windows"]),
            CounterMetricFamily(f"{ROLLUP_PREFIX}_rows_renewed", "Rows of periods made anew.", self._totals["rollups"]),
            GaugeMetricFamily(f"{ROLLUP_PREFIX}_lag_records", "Records behind those of the last batch.", self._lag),
            make_last_progress(ROLLUP_PREFIX),
        ]


def make_info(prefix: str) -> Metric:
    """The job's version, as a label."""
    info = GaugeMetricFamily(f"{prefix}_info", "The job that runs.", labels=["version"])
    info.add_metric([__version__], 1)
    return info


def make_last_progress(prefix: str) -> Metric:
    """Now, in unix seconds."""
    text = "When the query was last seen to live."
    return GaugeMetricFamily(f"{prefix}_last_progress_timestamp_seconds", text, time.time())


def read_input_rate(progress: StreamingQueryProgress) -> float:
    """Rows a second that came from Kafka; with --rejects-topic the topic is read twice, and counts once."""
    rates = [source.inputRowsPerSecond for source in progress.sources if source.description.startswith("Kafka")]
    # Spark says NaN or infinity for a batch that followed at once.
    return next((rate for rate in rates if 0 <= rate < float("inf")), 0.0)


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
