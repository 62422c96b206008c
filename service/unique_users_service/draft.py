"""The next state in the making: takes rows in, and renews the periods that hold them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from unique_users_service.rows import Parts, Rows, join_rows, merge_rows, sort_rows, split_rows
from unique_users_service.sketches import Parsed
from unique_users_service.state import ALWAYS, NO_ROWS, Series, State, span_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unique_users_service.rows import Longs
    from unique_users_service.tables import Key

# The smaller period that each is united from, in the order in which they are renewed; as `core.rollups` has it.
PARTS = {"day": "hour", "week": "day", "month": "day", "year": "month"}


class Draft:
    """Rows of a state that can be changed. The state it began with stays as it is.

    `derived`: periods, by group, level and start, that were united here from their parts because the table has not
    followed yet. They stay until the table has a row with the same events and minutes.
    """

    def __init__(self, state: State, derived: set[tuple[Key, str, int]]) -> None:
        """`state`: what to begin with."""
        self._state = state
        self._series: dict[Key, Series] = dict(state.series)
        self._own: set[tuple[Key, str]] = set()
        self.derived = derived
        self.newest = state.newest

    def finish(self) -> State:
        """The state, with the next number."""
        return replace(self._state, number=self._state.number + 1, series=self._series, newest=self.newest)

    def add_block(self, key: Key, level: str, rows: Rows) -> None:
        """Takes rows that are not there yet, as they were read."""
        for block, piece in split_rows(rows, span_of(level)).items():
            blocks = self._blocks(key, level)
            blocks[block] = join_rows([blocks.get(block, NO_ROWS), piece])
        if level == "minute":
            self._see_newest(rows)

    def add_minutes(self, key: Key, rows: Rows) -> Longs:
        """Merges windows, the valid one of each; returns the starts of those that changed something."""
        self._see_newest(rows)
        changed: list[Longs] = []
        for block, piece in split_rows(rows, span_of("minute")).items():
            if block * span_of("minute") < self._state.loaded_from["minute"]:
                continue
            blocks = self._blocks(key, "minute")
            old = blocks.get(block, NO_ROWS)
            new = merge_rows(old, piece)
            if new is not old:
                blocks[block] = new
                changed.append(piece.start)
        return np.concatenate(changed) if changed else np.empty(0, np.int64)

    def add_periods(self, key: Key, level: str, rows: Rows) -> None:
        """Takes rows of the table of rollups, but for those that were renewed here from newer parts."""
        taken = np.ones(len(rows), np.bool_)
        for index, start in enumerate(rows.start.tolist()):
            place = (key, level, start)
            if place not in self.derived:
                continue
            found = self._find(key, level, start)
            if found is None:
                continue
            mine, at = found
            if mine.events[at] == rows.events[index] and mine.minutes[at] == rows.minutes[index]:
                self.derived.discard(place)
            else:
                taken[index] = False
        for block, piece in split_rows(rows.take(np.flatnonzero(taken)), span_of(level)).items():
            if block * span_of(level) >= self._state.loaded_from.get(level, ALWAYS):
                blocks = self._blocks(key, level)
                blocks[block] = join_rows([blocks.get(block, NO_ROWS), piece])

    def renew(self, key: Key, starts: Iterable[int]) -> None:
        """Unites anew all periods that hold windows with these starts, from what is in memory."""
        calendar = self._state.calendar
        changed: set[tuple[int, int]] = set()
        done: tuple[int, int] = (0, 0)
        for start in sorted(starts):
            if not done[0] <= start < done[1]:
                done = calendar.bounds(start, "hour")
                changed.add(done)
        rows = {"hour": self._unite(key, "hour", "minute", changed)}
        for period, part in PARTS.items():
            bounds = {calendar.bounds(start, period) for start in rows[part]}
            rows[period] = self._unite(key, period, part, bounds)

    def check(self, key: Key) -> None:
        """Renews the hours that do not fit their minutes: the table of rollups is behind that of minutes."""
        minutes = self._series.get(key, {}).get("minute", {})
        hours = join_rows(list(self._series.get(key, {}).get("hour", {}).values()))
        if not len(hours):
            self.renew(key, [start for rows in minutes.values() for start in rows.start.tolist()])
            return
        behind: list[int] = []
        events, number = np.zeros(len(hours)), np.zeros(len(hours))
        for rows in minutes.values():
            place = np.searchsorted(hours.start, rows.start, "right") - 1
            inside = (place >= 0) & (rows.start < hours.end[place])
            behind += rows.start[~inside].tolist()
            events += np.bincount(place[inside], rows.events[inside], len(hours))
            number += np.bincount(place[inside], minlength=len(hours))
        # Hours before that have only a part of their minutes in memory.
        first = max(self._state.loaded_from["minute"], self._state.kept_from or ALWAYS)
        differs = (hours.start >= first) & (number > 0) & ((events != hours.events) | (number != hours.minutes))
        self.renew(key, behind + hours.start[differs].tolist())

    def _unite(self, key: Key, level: str, part: str, bounds: Iterable[tuple[int, int]]) -> list[int]:
        """Unites the rows of the smaller level to rows of `bounds`, where all of them are in memory."""
        made: list[Rows] = []
        loaded = max(self._state.loaded_from.get(part, ALWAYS), self._state.loaded_from.get(level, ALWAYS))
        if part == "minute" and self._state.kept_from is not None:
            loaded = max(loaded, self._state.kept_from)
        for start, end in sorted(bounds):
            if start < loaded:
                continue
            parts, number = Parts(), 0
            for rows, first, last in self._find_all(key, part, start, end):
                rows.add_parts(first, last, parts)
                number += int(rows.minutes[first:last].sum())
            if not number:
                continue
            sketch = parts.unite()
            final = parts.final and not self._state.has_rollups and end <= (self.newest or 0)
            old = self._find(key, level, start)
            if old is not None:
                final |= bool(old[0].final[old[1]])
            numbers = [np.array([value], np.int64) for value in (start, end, parts.events, number, 0)]
            offsets = np.array([0, len(sketch.coupons)], np.int64)
            parsed = Parsed(np.array([sketch.lg_k], np.uint8), offsets, sketch.coupons, [sketch.registers])
            made.append(Rows.of(numbers, np.array([final]), parsed))
            self.derived.add((key, level, start))
        for block, piece in split_rows(sort_rows(join_rows(made)), span_of(level)).items():
            blocks = self._blocks(key, level)
            blocks[block] = join_rows([blocks.get(block, NO_ROWS), piece])
        return [int(rows.start[0]) for rows in made]

    def _find(self, key: Key, level: str, start: int) -> tuple[Rows, int] | None:
        rows = self._series.get(key, {}).get(level, {}).get(start // span_of(level), NO_ROWS)
        at = int(np.searchsorted(rows.start, start))
        return (rows, at) if at < len(rows) and rows.start[at] == start else None

    def _find_all(self, key: Key, level: str, start: int, end: int) -> Iterable[tuple[Rows, int, int]]:
        blocks = self._series.get(key, {}).get(level, {})
        span = span_of(level)
        for block in range(start // span, (end - 1) // span + 1):
            rows = blocks.get(block, NO_ROWS)
            first, last = rows.find_inside(start, end)
            if first < last:
                yield rows, first, last

    def _blocks(self, key: Key, level: str) -> dict[int, Rows]:
        """The blocks of a level, which may be changed."""
        if (key, level) not in self._own:
            if (key, "") not in self._own:
                self._series[key] = dict(self._series.get(key, {}))
                self._own.add((key, ""))
            self._series[key][level] = dict(self._series[key].get(level, {}))
            self._own.add((key, level))
        return self._series[key][level]

    def _see_newest(self, rows: Rows) -> None:
        final = rows.end[rows.final]
        if len(final):
            self.newest = max(self.newest or 0, int(final.max()))
