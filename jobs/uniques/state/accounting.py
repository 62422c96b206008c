"""Accounting that adds up: where every event that was read went.

    carried + read == counted + rejected + filtered + late + in open windows

holds after every batch of a run. `carried` are the events that an earlier run had read and not written yet; `filtered`
are those that `--where` leaves out. `counted` are in records, `in open windows` wait for one: that of an open window,
or a correction.
"""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from uniques.core.events import FILTERED, OUTCOMES, REJECT_REASONS
from uniques.core.observation import MAX_WINDOWS_A_BATCH

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Row

    from uniques.state.publishing import Sent

log = logging.getLogger("uniques")


# The observation of `observation.observe_events`, as a progress or an Observation gives it.
Observed: TypeAlias = "Row | Mapping[str, Any]"


def read_bins(bins: str | None) -> list[tuple[float, int]]:
    """What `histogram_numeric` counted, JSON, as (x, number)."""
    return [(bin_["x"], round(bin_["y"])) for bin_ in json.loads(bins or "[]")]


def read_histogram(bins: str | None) -> tuple[Counter[int], bool]:
    """What `histogram_numeric` counted, JSON, as x -> number; and whether it is exact (no different x share a bin)."""
    counts: Counter[int] = Counter()
    exact = True
    for x, number in read_bins(bins):
        counts[round(x)] += number
        # Merging equal x leaves fractions of about 1e-8.
        exact = exact and abs(x - round(x)) < 1e-3
    return counts, exact


class Accounting:
    """Where the events of one run went, in events."""

    def __init__(self, carried: int = 0) -> None:
        """Starts with the events that an earlier run left unwritten."""
        self.carried = carried
        self.read = 0
        self.counted = 0
        self.filtered = 0
        self.late = 0
        self.waiting = carried
        self.open_windows = 0
        self.records = 0
        self.last_window: tuple[int, int] | None = None  # the latest one written: its end, unix seconds, and its users
        self.corrections = 0
        self.corrected_events = 0
        self.rejected: Counter[str] = Counter()
        self.exact = True

    def add_read(self, observed: Observed, records: int | None = None) -> int:
        """Adds what was read, rejected and filtered of a batch; returns how many events it accepted.

        `records` is how many records the batch's offsets span at most, None where there are no offsets: when more
        were observed, Spark ran a task twice (it lost an executor) and observed its rows twice.
        """
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
            self.rejected[OUTCOMES[index]] += number
        self.filtered += self.rejected.pop(FILTERED, 0)
        accepted: int = observed["read"] - sum(reasons.values())
        return accepted

    def add_counted(self, observed: Observed, records: int | None = None) -> None:
        """Adds a batch whose accepted events are all counted, because nothing in it can be late."""
        self.counted += self.add_read(observed, records)

    def add_accepted(self, accepted: int, absorbed: int) -> None:
        """Adds the accepted events of a batch, of which Spark took `absorbed` into windows; the others were late."""
        late = accepted - absorbed
        if late < 0:
            # Spark observed fewer events than it counted: it did so in an attempt that it gave up.
            self.exact = False
            log.warning("warning: %s events observed, %s counted (exact: false)", accepted, absorbed)
        self.late += late
        self.waiting += absorbed

    def add_sent(self, events: int, records: int = 0, corrections: int = 0, corrected_events: int = 0) -> None:
        """Adds records that were written, and by how many events they raise what is in the output."""
        self.records += records
        self.counted += events
        self.waiting -= events
        self.corrections += corrections
        self.corrected_events += corrected_events

    def repeat(self, absorbed: int, sent: int) -> None:
        """Takes back what an earlier run did with a batch, before this run adds the batch again."""
        self.carried += sent - absorbed
        self.waiting += sent - absorbed

    def check_counted(self, events: int) -> None:
        """Compares with the `events` of all results, which no task that ran twice can change."""
        if events != self.counted:
            self.exact = False
            log.warning("warning: %s events observed, %s in the results: Spark ran tasks twice", self.counted, events)

    def totals(self) -> dict[str, int]:
        """The terms of the equation."""
        return {
            "carried": self.carried,
            "read": self.read,
            "counted": self.counted,
            "rejected": sum(self.rejected.values()),
            "filtered": self.filtered,
            "late": self.late,
            "in_open_windows": self.waiting,
        }

    def summary(self) -> dict[str, Any]:
        """The totals, the rejected ones by reason, the corrections, and whether the totals are exact."""
        reasons = {reason: self.rejected[reason] for reason in REJECT_REASONS if self.rejected[reason]}
        return {
            **self.totals(),
            "rejected_by_reason": reasons,
            "open_windows": self.open_windows,
            "corrections": self.corrections,
            "corrected_events": self.corrected_events,
            "exact": self.exact,
        }


class Done(NamedTuple):
    """What the driver did with `batch`, or between two batches (None).

    `absorbed` are the events that the batch brought, `open_windows` the windows that had events without a record
    afterwards, and `last_window` the latest one written: its end in unix seconds, and its unique users.
    """

    batch: int | None
    absorbed: int
    sent: Sent
    open_windows: int
    last_window: tuple[int, int] | None


class StepAccounting(Accounting):
    """The accounting of a stream whose windows the driver publishes.

    What the driver did is told in its order, from one thread; it counts once Spark has finished the batch, which
    another thread says. So the terms add up after every batch.
    """

    def __init__(self, carried: int, open_windows: int) -> None:
        """Starts with what an earlier run left unwritten: events, and windows."""
        super().__init__(carried)
        self.open_windows = open_windows
        self._done: deque[Done] = deque()
        self._finished = -1
        self._told = 0
        self._lock = threading.Lock()

    def add_done(self, done: Done) -> None:
        """Takes note; `settle` accounts for it."""
        self._done.append(done)

    def settle(self, finished: int | None = None, accepted: int = 0) -> None:
        """Accounts for what was done up to a batch that is finished, and between it and the next.

        `accepted` are the accepted events of that batch. Without a batch nothing more is finished than before.
        """
        with self._lock:
            if finished is not None:
                self._finished = finished
            while self._done:
                batch = self._done[0].batch
                if batch is not None and batch > self._finished:
                    break
                done = self._done.popleft()
                if batch is not None:
                    self.add_accepted(accepted, done.absorbed)
                    accepted = 0
                self._add(done)

    def settle_all(self) -> None:
        """Accounts for all that was written, also in batches that Spark did not report in time."""
        with self._lock:
            while self._done:
                self._add(self._done.popleft())

    def count_new_records(self) -> int:
        """The records written since this was asked before."""
        before, self._told = self._told, self.records
        return self._told - before

    def _add(self, done: Done) -> None:
        sent = done.sent
        self.add_sent(sent.events, len(sent.windows), sent.corrections, sent.corrected_events)
        self.open_windows = done.open_windows
        # A correction may be of an earlier window.
        if done.last_window and (self.last_window is None or done.last_window[0] >= self.last_window[0]):
            self.last_window = done.last_window


class WatermarkAccounting(Accounting):
    """The accounting of a query whose windows Spark closes by its watermark, as under Spark Connect.

    Windows are known by their end, in unix seconds, from the observation `windows`.
    """

    def __init__(self) -> None:
        """Starts with no open windows: Spark Connect reads no state."""
        super().__init__()
        self.open: Counter[int] = Counter()
        self._late_until = 0.0

    def add_batch(self, observed: Observed, watermark: float, records: int | None = None) -> None:
        """Adds a micro-batch: its observation, and the watermark its progress shows, in unix seconds.

        Spark drops the late events of a batch by the watermark of the batch before, and closes windows by its own.
        """
        self.add_read(observed, records)
        windows, exact = read_histogram(observed["windows"])
        self.exact = self.exact and exact and len(windows) < MAX_WINDOWS_A_BATCH
        for end, number in windows.items():
            if end <= self._late_until:
                self.late += number
            else:
                self.open[end] += number
        self.close_windows(watermark)

    def close_windows(self, watermark: float) -> None:
        """Counts the events of all windows that end at `watermark` or before."""
        for end in [end for end in self.open if end <= watermark]:
            self.counted += self.open.pop(end)
        self.waiting, self.open_windows = sum(self.open.values()), len(self.open)
        self._late_until = watermark
