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


class Key(NamedTuple):
    """What a record is of: a window by its start in unix seconds, or a `group` of it, a JSON object.

    `other`: all groups of a breakdown that have no name. The text of a window itself is empty.
    """

    start: int
    group: str = ""
    other: bool = False

    def accounts_for_events(self, size: int) -> bool:
        """Whether it is one of the windows that each event is in exactly one of: those laid end to end since 1970.

        Groups are parts of a window, and hopping windows overlap. `size` of the windows, in seconds.
        """
        return not self.group and self.start % size == 0


class Change(NamedTuple):
    """A window, or a group of it, that a batch changed: its start in unix seconds, and all that it holds now.

    `newest` is the latest event time in the window, in unix seconds; `sketch` is in base64; `group` and `other` are as
    in `Key`, null for the window itself.
    """

    start: int
    unique_users: int
    events: int
    newest: float
    sketch: str | None = None
    group: str | None = None
    other: bool = False

    @property
    def key(self) -> Key:
        """What it is a change of."""
        return Key(self.start, self.group or "", self.other)


@dataclass
class Window:
    """A window that Spark keeps, or a group of it, and what was sent of it: `revision` -1 before its first record."""

    key: Key
    unique_users: int
    events: int
    sketch: str | None = None
    revision: int = -1
    sent_events: int = 0
    sent_at: float = 0.0
    final: bool = False

    @property
    def start(self) -> int:
        """When the window starts, in unix seconds."""
        return self.key.start

    @property
    def is_total(self) -> bool:
        """Whether it is a window, not a group of one."""
        return not self.key.group

    @property
    def changed(self) -> bool:
        """Whether events came after the last record."""
        return self.events != self.sent_events


class Sent(NamedTuple):
    """What a step sends: windows in order of time, with the revision and the counts of the record each gets.

    A window comes before its groups. `events` is by how many the events in the output grow, `corrections` how many
    windows are corrected, and `corrected_events` how many events came by that.
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
        self.windows: dict[Key, Window] = {}
        self._open: set[Key] = set()  # not final
        self._corrected: set[Key] = set()  # final, and changed since

    def load(self, windows: Iterable[Window]) -> None:
        """Takes over the windows of an earlier run."""
        for window in windows:
            self.windows[window.key] = window
            self._note(window)

    def absorb(self, changes: Iterable[Change]) -> dict[Key, Seen]:
        """Takes over what a batch changed; returns what is new in each window and each group.

        A batch that is repeated changes nothing.
        """
        seen = {}
        for change in changes:
            key = change.key
            window = self.windows.get(key)
            if window is None:
                window = self.windows[key] = Window(key, 0, 0)
            if change.events > window.events:
                seen[key] = Seen(change.events - window.events, change.newest)
                window.unique_users, window.events, window.sketch = change.unique_users, change.events, change.sketch
                self._note(window)
        return seen

    def send_due(self, until: float, now: float, flush: bool = False) -> Sent:
        """The records that are due: of windows that progress `until` has passed, and corrections.

        `now`, unix seconds, decides which corrections have waited long enough; with `flush` none waits.
        """
        due = []
        events = corrections = corrected_events = 0
        for window in self._list_candidates(until):
            if window.final:
                if not flush and now - window.sent_at < self._interval:
                    continue
                if window.key.accounts_for_events(self._size):
                    corrections += 1
                    corrected_events += window.events - window.sent_events
            elif window.start + self._size + self._wait <= until:
                window.final = True
            elif not window.changed:
                continue
            if window.key.accounts_for_events(self._size):
                events += window.events - window.sent_events
            window.revision += 1
            window.sent_events, window.sent_at = window.events, now
            self._note(window)
            due.append(window)
        return Sent(due, events, corrections, corrected_events)

    def forget(self, watermark: float) -> list[Key]:
        """Drops the windows that end at `watermark` or before, which Spark does not change any more; their keys."""
        ended = [
            key
            for key, window in self.windows.items()
            if key.start + self._size <= watermark and window.final and not window.changed
        ]
        for key in ended:
            del self.windows[key]
        return ended

    def waiting_events(self) -> int:
        """Events that no record has yet."""
        return sum(window.events - window.sent_events for window in self._list_unsent())

    def waiting_windows(self) -> int:
        """Windows with such events."""
        return len(self._list_unsent())

    def next_end(self) -> int | None:
        """The end of the earliest window that is not published; None when all are."""
        return min(self._open).start + self._size if self._open else None

    def _list_candidates(self, until: float) -> list[Window]:
        """In order: the final windows that changed, the ones to be published, and with running counts all others."""
        ended = until - self._size - self._wait
        keys = [key for key in self._open if self._running_counts or key.start <= ended]
        return [self.windows[key] for key in sorted([*keys, *self._corrected])]

    def _list_unsent(self) -> list[Window]:
        """The windows that account for events which no record has yet."""
        keys = [key for key in self._open | self._corrected if key.accounts_for_events(self._size)]
        return [self.windows[key] for key in keys if self.windows[key].changed]

    def _note(self, window: Window) -> None:
        for keys, belongs in ((self._open, not window.final), (self._corrected, window.final and window.changed)):
            (keys.add if belongs else keys.discard)(window.key)


def make_record(window: Window, size: int, counter: Counter) -> tuple[bytes, bytes]:
    """Key and value of a window's record, as `counts.make_records` makes them of a frame; `size` in seconds."""
    counter = counter if window.is_total else counter.of_groups
    key = start = describe_time(window.start)
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
    if not window.is_total:
        key += f" {window.key.group}"
        value["group"] = json.loads(window.key.group)
        if window.key.other:
            key += " other"
            value["other"] = True
    return key.encode(), json.dumps(value, separators=(",", ":")).encode()
