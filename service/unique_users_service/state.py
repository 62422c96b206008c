"""All rows that answers come from, at one moment. A state never changes; writers make another one.

Rows are kept by group and level in blocks of time. Blocks of minutes and hours before `loaded_from` are not in memory:
`Pages` reads them from the tables when a question needs them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from unique_users_service.calendar import Calendar
from unique_users_service.errors import GoneError, UnavailableError
from unique_users_service.rows import Parts, Rows
from unique_users_service.tables import (
    TOTAL,
    Key,
    Snapshot,
    TableError,
    inside,
    quote,
    read_minutes,
    read_periods,
    select_group,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

DAY_SECONDS = 86_400
# The largest first: a range is made of the largest rows that fit. Weeks cross months, so no range is made of them.
LEVELS = ("year", "month", "day", "hour", "minute")
PERIODS = ("hour", "day", "week", "month", "year")
# How long a block is. Levels that are not named here have one block, which is always in memory.
SPANS = {"minute": DAY_SECONDS, "hour": 32 * DAY_SECONDS}
# The shortest that a period can be. A range that is shorter holds none.
SHORTEST = {"year": 365 * DAY_SECONDS, "month": 28 * DAY_SECONDS, "day": 20 * 3600, "hour": 1800, "minute": 0}
WHOLE = 1 << 40
ALWAYS = -(1 << 40)
NO_ROWS = Rows()

Blocks = dict[int, Rows]
Series = dict[str, Blocks]


def span_of(level: str) -> int:
    """Seconds of a block."""
    return SPANS.get(level, WHOLE)


# When the question that this thread answers must be answered, by the monotonic clock.
ANSWER_BY: ContextVar[float] = ContextVar("ANSWER_BY", default=math.inf)


class Pages:
    """Blocks of older minutes and hours, read when they are needed; the least recently used ones go first."""

    def __init__(self, limit_bytes: int) -> None:
        """`limit_bytes`: about the memory that they may take."""
        self._limit = limit_bytes
        self._bytes = 0
        self._pages: OrderedDict[tuple[Key, str, int], tuple[int, Rows]] = OrderedDict()
        self._changed: dict[tuple[str, int], int] = {}
        self._lock = threading.Lock()

    def drop(self, level: str, block: int, version: int) -> None:
        """Rows of a block have changed in a version of the table."""
        self._changed[level, block] = version

    def clear(self, version: dict[str, int]) -> None:
        """Forgets all pages read of versions before these, by level."""
        with self._lock:
            for place, (read, rows) in list(self._pages.items()):
                if read < version[place[1]]:
                    del self._pages[place]
                    self._bytes -= rows.nbytes

    def get(self, snapshot: Snapshot, key: Key, level: str, block: int) -> Rows:
        """A block; raises UnavailableError where the table can't be read, or it is too late for the answer."""
        place = (key, level, block)
        with self._lock:
            version, rows = self._pages.get(place, (-1, NO_ROWS))
            if version >= self._changed.get((level, block), 0):
                self._pages.move_to_end(place)
                return rows
        if time.monotonic() > ANSWER_BY.get():
            raise UnavailableError(
                "the answer takes too long: it needs many older minutes; ask for a shorter range, or for full hours"
            )
        rows = read_block(snapshot, key, level, block)
        with self._lock:
            _, old = self._pages.pop(place, (0, None))
            self._bytes += rows.nbytes - (old.nbytes if old is not None else 0)
            self._pages[place] = (snapshot.version, rows)
            while self._bytes > self._limit and len(self._pages) > 1:
                _, (_, gone) = self._pages.popitem(last=False)
                self._bytes -= gone.nbytes
        return rows


def read_block(snapshot: Snapshot, key: Key, level: str, block: int) -> Rows:
    """A block of a table; raises UnavailableError where it can't be read."""
    span = span_of(level)
    stretch = [(block * span, block * span + span - 1)]
    group = select_group(snapshot.columns(), key)
    try:
        if level == "minute":
            return read_minutes(snapshot, f"{inside('window_start', stretch)} AND {group}").get(key, NO_ROWS)
        where = f"period = {quote(level)} AND {inside('period_start', stretch)} AND {group}"
        return read_periods(snapshot, where).get((key, level), NO_ROWS)
    except TableError as error:
        raise UnavailableError(str(error)) from error


@dataclass(frozen=True)
class State:
    """What is known at one moment.

    `number` rises from state to state. `snapshots`: the table of minutes and that of rollups, None where one is
    missing. `kept_from`: minutes before it were removed by retention. `newest`: the end of the newest final window.
    """

    number: int = 0
    calendar: Calendar = field(default_factory=Calendar)
    series: Mapping[Key, Series] = field(default_factory=dict)
    loaded_from: Mapping[str, int] = field(default_factory=lambda: {"minute": ALWAYS, "hour": ALWAYS})
    kept_from: int | None = None
    newest: int | None = None
    snapshots: tuple[Snapshot | None, Snapshot | None] = (None, None)
    pages: Pages = field(default_factory=lambda: Pages(0))

    @property
    def has_rollups(self) -> bool:
        """Whether there is a table of rollups."""
        return self.snapshots[1] is not None

    def block(self, key: Key, level: str, block: int) -> Rows:
        """A block of a group's rows; raises UnavailableError where it is not in memory and can't be read."""
        if block * span_of(level) >= self.loaded_from.get(level, ALWAYS):
            return self.series.get(key, {}).get(level, {}).get(block, NO_ROWS)
        snapshot = self.snapshots[0 if level == "minute" else 1]
        if snapshot is None or key not in self.series:
            return NO_ROWS
        return self.pages.get(snapshot, key, level, block)

    def find(self, key: Key, level: str, start: int, end: int) -> Iterator[tuple[Rows, int, int]]:
        """The rows of a level that lie in `[start, end)`: rows, and the positions `[first, last)` in them."""
        if end <= start:
            return
        span = span_of(level)
        if span == WHOLE:
            rows = self.series.get(key, {}).get(level, {}).get(0, NO_ROWS)
            first, last = rows.find_inside(start, end)
            if first < last:
                yield rows, first, last
            return
        known = self.series.get(key, {}).get(level, {})
        blocks: Sequence[int] = range(start // span, (end - 1) // span + 1)
        if self.loaded_from.get(level, ALWAYS) <= start and len(known) < len(blocks):
            blocks = [block for block in sorted(known) if start // span <= block <= (end - 1) // span]
        for block in blocks:
            rows = self.block(key, level, block)
            first, last = rows.find_inside(start, end)
            if first < last:
                yield rows, first, last

    def collect(self, key: Key, start: int, end: int) -> tuple[Parts, dict[str, int]]:
        """What a group's users in `[start, end)` are united from: the largest rows that fit, minutes at the edges.

        Returns the parts, and the number of rows by level. Raises GoneError where minutes are needed that are no longer
        kept.
        """
        parts, used = Parts(), dict.fromkeys(LEVELS, 0)
        self._fill(key, 0, start, end, parts, used)
        return parts, {level: number for level, number in used.items() if number}

    def _fill(self, key: Key, depth: int, start: int, end: int, parts: Parts, used: dict[str, int]) -> None:
        while end - start < SHORTEST[LEVELS[depth]]:
            depth += 1
        level = LEVELS[depth]
        if level == "minute" and self.has_rollups:
            self._fill_edges(key, start, end, parts, used)
            return
        at = start
        for rows, first, last in self.find(key, level, start, end):
            rows.add_parts(first, last, parts)
            used[level] += last - first
            if level == "minute":
                continue
            if rows.start[first] > at:
                self._fill(key, depth + 1, at, int(rows.start[first]), parts, used)
            for gap in (first + np.flatnonzero(rows.start[first + 1 : last] > rows.end[first : last - 1])).tolist():
                self._fill(key, depth + 1, int(rows.end[gap]), int(rows.start[gap + 1]), parts, used)
            at = int(rows.end[last - 1])
        if level != "minute" and at < end:
            self._fill(key, depth + 1, at, end, parts, used)

    def _fill_edges(self, key: Key, start: int, end: int, parts: Parts, used: dict[str, int]) -> None:
        """Adds the minutes of hours that `[start, end)` cuts; a full hour without a row has no minutes either."""
        first, last = self.calendar.bounds(start, "hour"), self.calendar.bounds(end, "hour")
        head = start if first[0] == start else min(first[1], end)
        tail = max(last[0], head)
        for low, high in ((start, head), (tail, end)):
            if low >= high:
                continue
            if self.kept_from is not None and low < self.kept_from:
                raise GoneError(
                    f"minutes before {self.calendar.format(self.kept_from)} are no longer kept: "
                    "let the range begin and end at a full hour"
                )
            for rows, begin, stop in self.find(key, "minute", low, high):
                rows.add_parts(begin, stop, parts)
                used["minute"] += stop - begin

    def row_of(self, key: Key, level: str, start: int, end: int) -> tuple[Rows, int] | None:
        """The row of a period that is exactly `[start, end)`, and its position; None where there is none."""
        for rows, first, last in self.find(key, level, start, end):
            if last - first == 1 and rows.start[first] == start and rows.end[first] == end:
                return rows, first
        return None

    def span(self, key: Key = TOTAL) -> tuple[int, int] | None:
        """The start of the first day and the end of the last window of a group; None where there are none."""
        levels = self.series.get(key, {})
        firsts = [int(rows.start[0]) for rows in levels.get("day", {}).values() if len(rows)]
        lasts = [int(rows.end[-1]) for rows in levels.get("minute", levels.get("day", {})).values() if len(rows)]
        return (min(firsts), max(lasts)) if firsts and lasts else None
