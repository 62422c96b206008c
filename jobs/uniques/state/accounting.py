"""Accounting that adds up: where every event that was read went.

    carried + read == counted + rejected + late + in open windows

holds after every batch of a run; `carried` are the events in windows that were open when the run began.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, TypeAlias

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques.core.events import MAX_WINDOWS_A_BATCH, REJECT_REASONS
from uniques.state.checkpoint import last_batch
from uniques.state.sidecar import read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Row

log = logging.getLogger("uniques")


# The observation of `events.observe_events`, as a progress or an Observation gives it.
Observed: TypeAlias = "Row | Mapping[str, Any]"


def read_histogram(bins: str | None) -> tuple[Counter[int], bool]:
    """What `histogram_numeric` counted, JSON, as x -> number; and whether it is exact (no different x share a bin)."""
    counts: Counter[int] = Counter()
    exact = True
    for bin_ in json.loads(bins or "[]"):
        counts[round(bin_["x"])] += round(bin_["y"])
        # Merging equal x leaves fractions of about 1e-8.
        exact = exact and abs(bin_["x"] - round(bin_["x"])) < 1e-3
    return counts, exact


class Accounting:
    """Where the events of one run went, in events; windows are known by their end, in unix seconds."""

    def __init__(self, open_windows: Mapping[int, int] | None = None, late_until: float = 0.0) -> None:
        """Starts with the windows left open by the run before and the watermark its last batch used."""
        self.open: Counter[int] = Counter(open_windows or {})
        self.carried = sum(self.open.values())
        self.read = 0
        self.counted = 0
        self.late = 0
        self.rejected: Counter[str] = Counter()
        self.exact = True
        self._late_until = late_until

    def add_batch(self, observed: Observed | None, watermark: float, records: int | None = None) -> None:
        """Adds a micro-batch: its observation, and the watermark its progress shows, in unix seconds.

        Spark drops the late events of a batch by the watermark of the batch before, and closes windows by its own.
        `records` is how many records the batch's offsets span at most, None where there are no offsets: when more
        were observed, Spark ran a task twice (it lost an executor) and observed its rows twice.
        """
        if observed is not None:
            if records is not None and observed["read"] > records:
                self.exact = False
                log.warning(
                    "warning: %s records observed where the offsets span %s: Spark ran tasks twice, and the accounting "
                    "counts their events twice (exact: false); the results are right",
                    observed["read"],
                    records,
                )
            self.read += observed["read"]
            reasons, _ = read_histogram(observed["rejected"])
            for index, number in reasons.items():
                self.rejected[REJECT_REASONS[index]] += number
            if observed["windows"] is None:  # windows are not observed where none can close too early
                self.counted += observed["read"] - sum(reasons.values())
            windows, exact = read_histogram(observed["windows"])
            self.exact = self.exact and exact and len(windows) < MAX_WINDOWS_A_BATCH
            for end, number in windows.items():
                if end <= self._late_until:
                    self.late += number
                else:
                    self.open[end] += number
        self.close_windows(watermark)
        self._late_until = watermark

    def check_counted(self, events: int) -> None:
        """Compares with the `events` of all results, which no task that ran twice can change."""
        if events != self.counted:
            self.exact = False
            log.warning("warning: %s events observed, %s in the results: Spark ran tasks twice", self.counted, events)

    def close_windows(self, watermark: float) -> None:
        """Counts the events of all windows that end at `watermark` or before."""
        for end in [end for end in self.open if end <= watermark]:
            self.counted += self.open.pop(end)

    def totals(self) -> dict[str, int]:
        """The terms of the equation."""
        return {
            "carried": self.carried,
            "read": self.read,
            "counted": self.counted,
            "rejected": sum(self.rejected.values()),
            "late": self.late,
            "in_open_windows": sum(self.open.values()),
        }

    def summary(self) -> dict[str, Any]:
        """The totals, the rejected ones by reason, and whether they are exact."""
        reasons = {reason: self.rejected[reason] for reason in REJECT_REASONS if self.rejected[reason]}
        return {**self.totals(), "rejected_by_reason": reasons, "open_windows": len(self.open), "exact": self.exact}


def resume_accounting(spark: SparkSession, query_location: str) -> Accounting:
    """The accounting that goes on where a checkpoint stands: its open windows, read from Spark's own state.

    Empty for a checkpoint with no finished batch. Spark 3.5 can't read its state: there nothing is carried.
    """
    location = query_location.rstrip("/")
    last = last_batch(spark, f"{location}/commits")
    if last < 0:
        return Accounting()
    lines = read_lines(spark, f"{location}/offsets/{last}") or []
    metadata = json.loads(lines[1])
    watermark = metadata["batchWatermarkMs"] / 1000
    if spark.version.startswith("3."):
        log.info("Spark %s can't read its state: windows that an earlier run left open are not carried", spark.version)
        return Accounting(late_until=watermark)
    # The state reader needs a coordinator that Spark starts when streams are first asked for.
    _ = spark.streams.active
    state = spark.read.format("statestore").option("batchId", last).load(location)
    rows = state.select(F.unix_seconds("key.window.end").alias("end"), F.col("value.count").alias("events")).collect()
    return Accounting({row["end"]: row["events"] for row in rows}, watermark)
