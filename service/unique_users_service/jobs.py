"""What the main job says of itself: where every event went, its lag and its progress, from its metrics."""

from __future__ import annotations

import threading
import time
import urllib.request
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

PREFIX = "unique_users_"
EVENTS = f"{PREFIX}events_"
TIMEOUT_SECONDS = 2.0
KEEP_SECONDS = 1.0
MOST_BYTES = 4 << 20
GAUGES = {
    "open_windows": "open_windows",
    "corrections": "corrections",
    "rows_written": "records_written",
    "lag_records": "lag_records",
    "input_events_per_second": "input_events_per_second",
    "processed_events_per_second": "processed_events_per_second",
}
TIMES = ("progress", "watermark", "last_progress", "last_window_end")


class JobMetrics:
    """Reads the metrics of the main job, at most once a second; `problem` says why they can't be read."""

    def __init__(self, url: str | None) -> None:
        """`url`: of the job's /metrics; None: there is none."""
        self.url = url
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._last: dict[str, Any] | None = None
        self.problem: str | None = None

    def read(self) -> dict[str, Any] | None:
        """Where the events of the job's run went; None where the metrics can't be read."""
        if self.url is None:
            self.problem = "the service was started without --job-metrics"
            return None
        with self._lock:
            if time.monotonic() - self._read_at >= KEEP_SECONDS:
                try:
                    with urllib.request.urlopen(self.url, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - http(s) only
                        self._last = describe_job(answer.read(MOST_BYTES).decode())
                    self.problem = None
                except (OSError, ValueError) as error:
                    self._last, self.problem = None, f"{self.url} can't be read: {error}"
                self._read_at = time.monotonic()
            return self._last


def describe_job(text: str) -> dict[str, Any]:
    """Metrics in Prometheus' text format as an object; raises ValueError for what is none."""
    events: dict[str, float] = {}
    reasons: dict[str, dict[str, int]] = {}
    found: dict[str, Any] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name = sample.name.removesuffix("_total")
            if name.startswith(EVENTS):
                kind = name.removeprefix(EVENTS)
                events[kind] = events.get(kind, 0) + sample.value
                if reason := sample.labels.get("reason"):
                    reasons.setdefault(kind, {})[reason] = int(sample.value)
            elif name.removeprefix(PREFIX) in GAUGES:
                found[GAUGES[name.removeprefix(PREFIX)]] = sample.value
            elif name.removeprefix(PREFIX).removesuffix("_timestamp_seconds") in TIMES:
                found[name.removeprefix(PREFIX).removesuffix("_timestamp_seconds")] = sample.value
    if "read" not in events:
        raise ValueError("these are not the metrics of unique_users.py")
    by_reason = {f"{kind}_by_reason": dict(sorted(each.items())) for kind, each in reasons.items()}
    return {"events": {kind: int(value) for kind, value in events.items()}, **by_reason, **found}
