"""What the service says of itself to Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

if TYPE_CHECKING:
    from unique_users_service.service import Service

DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
GAUGES = {
    "state_number": "Rises with each change of the data.",
    "rows": "Rows in memory.",
    "rows_bytes": "About the memory of these rows.",
    "last_refresh_timestamp_seconds": "When the tables were last looked at with success.",
    "final_until_timestamp_seconds": "The end of the newest final window.",
    "tables_readable": "Whether both tables could be read.",
    "kafka_readable": "Whether Kafka could be read; 0 without --bootstrap-servers.",
    "records_taken": "Records of windows from Kafka.",
}


class ServiceMetrics:
    """The metrics of one service."""

    def __init__(self, service: Service) -> None:
        """Registers all metrics."""
        self.registry = CollectorRegistry()
        prefix = "unique_users_service"
        registry = self.registry
        ProcessCollector(registry=registry)
        self.requests = Counter(f"{prefix}_requests", "Requests.", ["path", "status"], registry=registry)
        self.seconds = Histogram(
            f"{prefix}_request_duration_seconds",
            "How long answers took.",
            ["path"],
            buckets=DURATIONS,
            registry=registry,
        )
        self.viewers = Gauge(f"{prefix}_viewers", "Pages that are kept up to date.", registry=registry)
        self._service = service
        self._gauges = {name: Gauge(f"{prefix}_{name}", text, registry=registry) for name, text in GAUGES.items()}
        self._rejected = Gauge(f"{prefix}_records_rejected", "Such that were left out.", ["reason"], registry=registry)

    def write(self) -> bytes:
        """All metrics as text."""
        service, state = self._service, self._service.state
        rows = [rows for series in state.series.values() for blocks in series.values() for rows in blocks.values()]
        values = {
            "state_number": state.number,
            "rows": sum(map(len, rows)),
            "rows_bytes": sum(each.nbytes for each in rows),
            "last_refresh_timestamp_seconds": service.store.refreshed_at or 0,
            "final_until_timestamp_seconds": state.newest or 0,
            "tables_readable": service.store.problem is None,
            "kafka_readable": service.topics is not None and service.topics.problem is None,
            "records_taken": service.topics.taken if service.topics else 0,
        }
        for name, value in values.items():
            self._gauges[name].set(value)
        for reason, number in (service.topics.rejected if service.topics else {}).items():
            self._rejected.labels(reason).set(number)
        return generate_latest(self.registry)
