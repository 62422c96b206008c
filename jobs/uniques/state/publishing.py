"""Publishing: which records of windows are due, as final ones, as corrections, or as running counts.

A window is published once progress has passed its end by the wait (`--watermark`). Spark keeps it for longer
(`--allowed-lateness`): events that come meanwhile change it, and a correction is due. Each record of a window has the
next `revision`. Pure Python: no Spark, no clock, no files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from uniques.state.progress import Seen
from uniques.times import describe_time

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uniques.core.counts import Counter


class Change(NamedTuple):
    """A window that a batch changed: its start in unix seconds, and all that it holds now.

    `newest` is the latest event time in it, in unix seconds; `sketch` is in base64.
    """

    start: int
    unique_users: int
    events: int
    newest: float
    sketch: str | None = None


@dataclass
class Window:
    """A window that Spark keeps, and what was sent of it: `revision` -1 before its first record."""

    start: int
    unique_users: int
    events: int
    sketch: str | None = None
    revision: int = -1
    sent_events: int = 0
    sent_at: float = 0.0
    final: bool = False

    @property
    def changed(self) -> bool:
        """Whether events came after the last record."""
        return self.events != self.sent_events


class Sent(NamedTuple):
    """What a step sends: windows in order of time, with the revision and the counts of the record each gets.

    `events` is by how many the events in the output grow, `corrections` how many records are corrections, and
    `corrected_events` how many events came by them.
    """

    windows: list[Window]
    events: int = 0
    corrections: int = 0
    corrected_events: int = 0


class Publishing:
    """The windows that Spark keeps; durations in seconds.

    `wait` is how long after its end, in progress, a window is published; `interval` how long a window waits between
    two corrections. With `running_counts` a window has a record for every batch that changed it, before it is final.
    """

    def __init__(self, size: int, wait: int, interval: int, running_counts: bool = False) -> None:
        """`size` of the windows."""
        self._size = size
        self._wait = wait
        self._interval = interval
        self._running_counts = running_counts
        self.windows: dict[int, Window] = {}
        self._open: set[int] = set()  # not final
        self._corrected: set[int] = set()  # final, and changed since

    def load(self, windows: Iterable[Window]) -> None:
        """Takes over the windows of an earlier run."""
        for window in windows:
            self.windows[window.start] = window
            self._note(window)

    def absorb(self, changes: Iterable[Change]) -> dict[int, Seen]:
        """Takes over what a batch changed; returns what is new in each window.

        A batch that is repeated changes nothing.
        """
        seen = {}
        for change in changes:
            window = self.windows.get(change.start)
            if window is None:
                window = self.windows[change.start] = Window(change.start, 0, 0)
            if change.events > window.events:
                seen[change.start] = Seen(change.events - window.events, change.newest)
                window.unique_users, window.events, window.sketch = change.unique_users, change.events, change.sketch
                self._note(window)
        return seen

    def send_due(self, until: float, now: float, flush: bool = False) -> Sent:
        """The records that are due: of windows that progress `until` has passed, and corrections.

        `now`, unix seconds, decides which corrections have waited long enough; with `flush` none waits.
        """
        due = []
        events = corrections = corrected_events = 0
        for start in sorted(self._open | self._corrected):
            window = self.windows[start]
            if window.final:
                if not flush and now - window.sent_at < self._interval:
                    continue
                corrections += 1
                corrected_events += window.events - window.sent_events
            elif start + self._size + self._wait <= until:
                window.final = True
            elif not (self._running_counts and window.changed):
                continue
            events += window.events - window.sent_events
            window.revision += 1
            window.sent_events, window.sent_at = window.events, now
            self._note(window)
            due.append(window)
        return Sent(due, events, corrections, corrected_events)

    def forget(self, watermark: float) -> list[int]:
        """Drops the windows that end at `watermark` or before, which Spark does not change any more; their starts."""
        ended = [
            start
            for start, window in self.windows.items()
            if start + self._size <= watermark and window.final and not window.changed
        ]
        for start in ended:
            del self.windows[start]
        return ended

    def waiting_events(self) -> int:
        """Events that no record has yet."""
        return sum(self.windows[start].events - self.windows[start].sent_events for start in self._unsent())

    def waiting_windows(self) -> int:
        """Windows with such events."""
        return len(self._unsent())

    def next_end(self) -> int | None:
        """The end of the earliest window that is not published; None when all are."""
        return min(self._open) + self._size if self._open else None

    def _unsent(self) -> list[int]:
        return [start for start in self._open | self._corrected if self.windows[start].changed]

    def _note(self, window: Window) -> None:
        for group, belongs in ((self._open, not window.final), (self._corrected, window.final and window.changed)):
            (group.add if belongs else group.discard)(window.start)


def make_record(window: Window, size: int, counter: Counter) -> tuple[bytes, bytes]:
    """Key and value of a window's record, as `counts.make_records` makes them of a frame; `size` in seconds."""
    start = describe_time(window.start)
    value = {
        "window_start": start,
        "window_end": describe_time(window.start + size),
        "unique_users": window.unique_users,
        "events": window.events,
        "counter": counter.name,
        "relative_error": round(counter.relative_error, 4),
        "final": window.final,
        "revision": window.revision,
    }
    if counter.with_sketch:
        value["sketch"] = window.sketch
    return start.encode(), json.dumps(value, separators=(",", ":")).encode()
