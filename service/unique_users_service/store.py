"""Keeps the state up to date: reads the tables, follows their versions, and takes records from Kafka that are newer."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from unique_users_service.calendar import Calendar, find_zone
from unique_users_service.draft import Draft
from unique_users_service.rows import Rows, merge_rows
from unique_users_service.state import ALWAYS, DAY_SECONDS, NO_ROWS, SPANS, Pages, State
from unique_users_service.tables import (
    KEPT_FROM,
    TIMEZONE,
    WEEK_START,
    Key,
    Place,
    Snapshot,
    Stretch,
    TableError,
    inside,
    quote,
    read_minutes,
    read_periods,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger("unique_users_service")

MINUTES_SHARE, HOURS_SHARE, PAGES_SHARE = 0.5, 0.3, 0.2
FAR = 1 << 36
# Records from Kafka that the table does not have yet: so many are kept at most.
MOST_RECORDS = 50_000
WIDE_SECONDS = 2 * DAY_SECONDS


@dataclass(frozen=True)
class Budget:
    """How much memory rows may take, about, in bytes."""

    total: int = 256 << 20

    @property
    def minutes(self) -> int:
        """For minutes."""
        return int(self.total * MINUTES_SHARE)

    @property
    def hours(self) -> int:
        """For hours."""
        return int(self.total * HOURS_SHARE)

    @property
    def pages(self) -> int:
        """For minutes and hours that are read again."""
        return int(self.total * PAGES_SHARE)


class Store:
    """The one writer of the state; `state` may be read by any thread at any time."""

    def __init__(self, minutes: Place, rollups: Place, budget: Budget | None = None, quiet: bool = False) -> None:
        """Reads nothing yet: see `refresh`. `quiet`: logs nothing."""
        self._log_level = logging.DEBUG if quiet else logging.INFO
        self._places = (minutes, rollups)
        self._budget = budget or Budget()
        self._lock = threading.RLock()
        self._derived: set[tuple[Key, str, int]] = set()
        self._records: dict[tuple[Key, int], Rows] = {}
        self._listeners: list[Callable[[State], None]] = []
        self.state = State(pages=Pages(self._budget.pages))
        self.problem: str | None = "the tables were not read yet"
        self.refreshed_at: float | None = None

    def listen(self, call: Callable[[State], None]) -> None:
        """Calls back with each new state, on the thread that made it."""
        self._listeners.append(call)

    def refresh(self) -> bool:
        """Takes over what is new in the tables; returns whether there is a new state.

        What can't be read leaves the state as it is; `problem` then says why, in one line.
        """
        with self._lock:
            before = self.state
            try:
                self._refresh()
                self.problem = None
            except Exception as error:  # whatever a table holds, the last state stays and the next look may be better
                if not isinstance(error, TableError):
                    log.exception("the tables can't be taken over")
                if self.problem != str(error):
                    log.log(self._log_level, "warning: %s", error)
                self.problem = str(error) if isinstance(error, TableError) else f"{type(error).__name__}: {error}"
            if self.problem is None or self.state is not before:
                self.refreshed_at = time.time()
            if self.state is before:
                return False
            self._announce()
            return True

    def add_records(self, records: Iterable[tuple[Key, Rows]]) -> bool:
        """Takes windows from Kafka; returns whether they changed anything."""
        with self._lock:
            draft = Draft(self.state, set(self._derived))
            changed = False
            for key, rows in records:
                for index in range(len(rows)):
                    row = rows.slice(index, index + 1)
                    place = (key, int(row.start[0]))
                    self._records[place] = merge_rows(self._records.get(place, NO_ROWS), row)
                starts = draft.add_minutes(key, rows)
                draft.renew(key, starts.tolist())
                changed |= len(starts) > 0
            for place in sorted(self._records, key=lambda place: place[1])[: max(0, len(self._records) - MOST_RECORDS)]:
                del self._records[place]
            if changed:
                self._derived = draft.derived
                self._replace(draft.finish())
            return changed

    def set_final(self, key: Key, level: str, start: int) -> None:
        """Kafka says that a period is final."""
        with self._lock:
            blocks = self.state.series.get(key, {}).get(level, {})
            rows = blocks.get(start // SPANS.get(level, FAR), NO_ROWS)
            at = int(np.searchsorted(rows.start, start))
            if at == len(rows) or rows.start[at] != start or rows.final[at]:
                return
            draft = Draft(self.state, self._derived)
            draft.add_block(key, level, replace(rows.slice(at, at + 1), final=np.array([True])))
            self._replace(draft.finish())

    def newest_record(self) -> int | None:
        """When the newest record was written that the table of minutes has, unix seconds; None where it has none."""
        snapshot = self.state.snapshots[0]
        if snapshot is None:
            return None
        try:
            batch = next(snapshot.select(["to_unixtime(max(written_at)) AS at"], "true"))
        except TableError:
            return None
        newest: int | None = batch.column("at").to_pylist()[0]
        return newest

    def _replace(self, state: State) -> None:
        self.state = state
        self._announce()

    def _announce(self) -> None:
        for call in self._listeners:
            call(self.state)

    def _refresh(self) -> None:
        # Rollups first: the job writes minutes before the rows that are made of them, so these minutes are no older.
        rollups, problem = self._open(1)
        minutes, other = self._open(0)
        problem = other or problem
        old = self.state.snapshots
        if minutes is None and rollups is None:
            raise TableError(problem or "there are no tables")
        if same(minutes, old[0]) and same(rollups, old[1]):
            if problem:
                raise TableError(problem)
            return
        changes = self._find_changes(minutes, rollups)
        if changes is None:
            self._load(minutes, rollups)
        else:
            self._follow(minutes, rollups, *changes)
        if problem:
            raise TableError(problem)

    def _open(self, index: int) -> tuple[Snapshot | None, str | None]:
        """A table, or that of the state while it can't be opened, and why it can't."""
        try:
            return self._places[index].open(), None
        except TableError as error:
            return self.state.snapshots[index], str(error)

    def _find_changes(
        self, minutes: Snapshot | None, rollups: Snapshot | None
    ) -> tuple[list[Stretch], list[Stretch]] | None:
        """Where rows of both tables are new; None when they must be read anew."""
        found: list[list[Stretch]] = []
        for new, old, column in zip(
            (minutes, rollups), self.state.snapshots, ("window_start", "period_start"), strict=True
        ):
            if new is None or old is None:
                if new is not old:
                    return None
                found.append([])
                continue
            changes = new.find_changes(old, column)
            if changes is None or read_calendar(new) != read_calendar(old) or read_kept(new) != read_kept(old):
                return None
            found.append(changes)
        return found[0], found[1]

    def _load(self, minutes: Snapshot | None, rollups: Snapshot | None) -> None:
        """Reads both tables, the newest rows first, as many as there is room for."""
        began = time.monotonic()
        calendar = read_calendar(rollups) if rollups else Calendar()
        try:
            find_zone(calendar.timezone)
        except ValueError as error:
            raise TableError(f"{self._places[1].flag} {self._places[1].path}: {error}") from error
        kept = read_kept(minutes) if minutes else None
        base = State(self.state.number, calendar, {}, {"minute": ALWAYS, "hour": ALWAYS}, kept, None)
        draft = Draft(base, set())
        loaded = dict(base.loaded_from)
        if rollups:
            for (key, level), rows in read_periods(rollups, "period <> 'hour'").items():
                draft.add_block(key, level, rows)
            loaded["hour"] = load_newest(draft, rollups, "hour", self._budget.hours)
        if minutes:
            loaded["minute"] = load_newest(draft, minutes, "minute", self._budget.minutes)
        pages = Pages(self._budget.pages)
        state = replace(draft.finish(), loaded_from=loaded, snapshots=(minutes, rollups), pages=pages)
        draft = Draft(state, set())
        for key in list(state.series):
            draft.check(key)
        for (key, start), row in self._records.items():
            if len(draft.add_minutes(key, row)):
                draft.renew(key, [start])
        self.state, self._derived = replace(draft.finish(), number=self.state.number + 1), draft.derived
        log.log(
            self._log_level,
            "read the tables in %.1f s: %s",
            time.monotonic() - began,
            ", ".join(
                f"{place.path} version {table.version}"
                for place, table in zip(self._places, (minutes, rollups), strict=True)
                if table
            ),
        )

    def _follow(
        self, minutes: Snapshot | None, rollups: Snapshot | None, new_minutes: list[Stretch], new_periods: list[Stretch]
    ) -> None:
        """Takes over the rows that are new since the last versions."""
        state = replace(self.state, snapshots=(minutes, rollups))
        draft, read = Draft(state, set(self._derived)), {}
        if minutes and new_minutes:
            where = inside("window_start", new_minutes)
            span = SPANS["minute"]
            for first, last in new_minutes:
                for block in range(first // span, min(last, state.loaded_from["minute"] - 1) // span + 1):
                    state.pages.drop("minute", block, minutes.version)
            if state.loaded_from["minute"] > ALWAYS:
                where += f" AND {inside('window_start', [(state.loaded_from['minute'], FAR)])}"
            read = read_minutes(minutes, where)
            for key, rows in read.items():
                draft.renew(key, draft.add_minutes(key, rows).tolist())
        if rollups and new_periods:
            span = SPANS["hour"]
            for first, last in new_periods:
                for block in range(first // span, min(last, state.loaded_from["hour"] - 1) // span + 1):
                    state.pages.drop("hour", block, rollups.version)
            for (key, level), rows in read_periods(rollups, inside("period_start", new_periods)).items():
                draft.add_periods(key, level, rows)
        self.state, self._derived = draft.finish(), draft.derived
        for key, rows in read.items():
            self._forget_records(key, rows)

    def _forget_records(self, key: Key, rows: Rows) -> None:
        """Forgets the records from Kafka that the table has by now, or newer ones."""
        for index, start in enumerate(rows.start.tolist()):
            record = self._records.get((key, start))
            if record is not None and (record.revision[0], record.events[0]) <= (
                rows.revision[index],
                rows.events[index],
            ):
                del self._records[key, start]


def load_newest(draft: Draft, snapshot: Snapshot, level: str, budget: int) -> int:
    """Reads minutes or hours, the newest first, until the budget is used; returns the time from which all are read."""
    column, more = ("window_start", "true") if level == "minute" else ("period_start", f"period = {quote(level)}")
    span = SPANS[level]
    edges = next(snapshot.select([f"to_unixtime({of}({column})) AS {of}" for of in ("min", "max")], more))
    lowest, highest = edges.column("min").to_pylist()[0], edges.column("max").to_pylist()[0]
    if lowest is None:
        return ALWAYS
    upper, at, blocks = FAR, int(highest) // span + 1, 1
    while True:
        lower = (at - blocks) * span
        where = f"{inside(column, [(lower, upper - 1)])} AND {more}"
        read = 0
        if level == "minute":
            for key, rows in read_minutes(snapshot, where).items():
                draft.add_block(key, level, rows)
                read += rows.nbytes
        else:
            for (key, _), rows in read_periods(snapshot, where).items():
                draft.add_block(key, level, rows)
                read += rows.nbytes
        budget -= read
        at, upper = at - blocks, lower
        if lower <= lowest:
            return ALWAYS
        room = int(budget / max(read / blocks, 1))
        blocks = min(2 * blocks, room, at - int(lowest) // span + 1)
        if blocks < 1:
            return lower


def same(new: Snapshot | None, old: Snapshot | None) -> bool:
    """Whether two versions of a table are one."""
    if new is None or old is None:
        return new is old
    return new.version == old.version and new.identity == old.identity


def read_calendar(snapshot: Snapshot) -> Calendar:
    """The calendar of a table of rollups."""
    properties = snapshot.properties
    return Calendar(properties.get(TIMEZONE, "UTC"), properties.get(WEEK_START, "monday"))


def read_kept(snapshot: Snapshot) -> int | None:
    """The time before which minutes were removed; None when all are there."""
    text = snapshot.properties.get(KEPT_FROM)
    return int(text) if text else None
