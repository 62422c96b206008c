"""Rows of a table in memory: windows or periods in order of time, each with its sketch."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from unique_users_service.sketches import EMPTY, NOTHING, Parsed, Sketch, unite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from unique_users_service.sketches import Coupons, Registers

    Longs = NDArray[np.int64]

ROW_BYTES = 50  # of the numbers of a row


def no_longs() -> Longs:
    """No numbers."""
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class Rows:
    """Rows in order of `start`, none of them twice. Nobody changes one: readers hold it while writers make another.

    `start`, `end` in unix seconds; `revision` and `final` as in the records, of periods 0 and as in the table;
    `coupons`: those of row i are at `offsets[i:i + 2]`; `registers[i]`: None where a row has coupons.
    """

    start: Longs = field(default_factory=no_longs)
    end: Longs = field(default_factory=no_longs)
    events: Longs = field(default_factory=no_longs)
    minutes: Longs = field(default_factory=no_longs)
    revision: Longs = field(default_factory=no_longs)
    final: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, np.bool_))
    lg_k: NDArray[np.uint8] = field(default_factory=lambda: np.empty(0, np.uint8))
    offsets: Longs = field(default_factory=lambda: np.zeros(1, np.int64))
    coupons: Coupons = field(default_factory=lambda: EMPTY)
    registers: list[Registers | None] = field(default_factory=list)

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.start)

    @classmethod
    def of(cls, numbers: Sequence[Longs], final: NDArray[np.bool_], sketches: Parsed) -> Rows:
        """Rows of `numbers`, that is start, end, events, minutes and revision, with their sketches."""
        start, end, events, minutes, revision = numbers
        return cls(start, end, events, minutes, revision, final, *sketches)

    @property
    def nbytes(self) -> int:
        """About the memory they take."""
        dense = sum(each.nbytes + 112 for each in self.registers if each is not None)
        return 1_000 + ROW_BYTES * len(self) + 8 * len(self) + self.coupons.nbytes + dense

    def take(self, chosen: Longs) -> Rows:
        """The rows at these positions, in that order."""
        counts = (self.offsets[1:] - self.offsets[:-1])[chosen]
        offsets = np.concatenate(([0], np.cumsum(counts)))
        places = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], counts) + np.arange(offsets[-1])
        return Rows(
            self.start[chosen],
            self.end[chosen],
            self.events[chosen],
            self.minutes[chosen],
            self.revision[chosen],
            self.final[chosen],
            self.lg_k[chosen],
            offsets,
            self.coupons[places],
            [self.registers[index] for index in chosen.tolist()],
        )

    def slice(self, first: int, last: int) -> Rows:
        """The rows at positions `[first, last)`."""
        return self.take(np.arange(first, last))

    def find_inside(self, start: int, end: int) -> tuple[int, int]:
        """The positions `[first, last)` of the rows that lie in `[start, end)` entirely."""
        first = int(self.start.searchsorted(start))
        last = int(self.start.searchsorted(end))
        while last > first and self.end[last - 1] > end:
            last -= 1
        return first, last

    def add_parts(self, first: int, last: int, parts: Parts) -> None:
        """Adds the rows at positions `[first, last)` to what is united."""
        if first == last:
            return
        parts.lg_k = min(parts.lg_k, int(self.lg_k[first:last].min()))
        parts.events += int(self.events[first:last].sum())
        parts.final &= bool(self.final[first:last].all())
        low, high = self.offsets[first], self.offsets[last]
        if high > low:
            parts.coupons.append(self.coupons[low:high])
        parts.registers.extend(each for each in self.registers[first:last] if each is not None)

    @cached_property
    def corrected(self) -> Longs:
        """The positions of the windows that were corrected."""
        return np.flatnonzero(self.revision > 0)

    def sketch_of(self, index: int) -> Sketch:
        """The sketch of one row."""
        parts = Parts()
        self.add_parts(index, index + 1, parts)
        return parts.unite()


@dataclass
class Parts:
    """What is to be united: sketches, the smallest lg_k, events, and whether all rows are final."""

    coupons: list[Coupons] = field(default_factory=list)
    registers: list[Registers] = field(default_factory=list)
    lg_k: int = 99
    events: int = 0
    final: bool = True

    def unite(self) -> Sketch:
        """The union."""
        return NOTHING if self.lg_k == 99 else unite(self.lg_k, self.coupons, self.registers)


def sort_rows(rows: Rows) -> Rows:
    """Rows that came in any order, in order, without those whose sketch is none. Of equal starts the last one stays."""
    if (rows.lg_k > 0).all() and (np.diff(rows.start) > 0).all():
        return rows
    order = np.argsort(rows.start, kind="stable")
    order = order[rows.lg_k[order] > 0]
    sorted_ = rows.start[order]
    last = np.ones(len(order), np.bool_)
    last[:-1] = sorted_[1:] != sorted_[:-1]
    return rows.take(order[last])


def join_rows(pieces: Sequence[Rows]) -> Rows:
    """Rows of several pieces, in order of time; of equal starts that of the last piece stays."""
    pieces = [piece for piece in pieces if len(piece)]
    if len(pieces) <= 1:
        return pieces[0] if pieces else Rows()
    offsets: list[Longs] = [np.zeros(1, np.int64)]
    at = 0
    for piece in pieces:
        offsets.append(piece.offsets[1:] + at)
        at += int(piece.offsets[-1])
    numbers = [
        np.concatenate([getattr(piece, name) for piece in pieces])
        for name in ("start", "end", "events", "minutes", "revision")
    ]
    final = np.concatenate([piece.final for piece in pieces])
    lg_k = np.concatenate([piece.lg_k for piece in pieces])
    coupons = np.concatenate([piece.coupons for piece in pieces])
    registers = [each for piece in pieces for each in piece.registers]
    return sort_rows(Rows.of(numbers, final, Parsed(lg_k, np.concatenate(offsets), coupons, registers)))


def merge_rows(old: Rows, new: Rows) -> Rows:
    """`old` with each row of `new` that is new, or valid in place of the old one.

    The highest revision is valid, of equal ones that with the most events, of equal ones the new one; as
    `core.rollups.rank_minute` has it.
    """
    if not len(old) or not len(new):
        return new if len(new) else old
    found = np.searchsorted(old.start, new.start)
    inside = np.minimum(found, len(old) - 1)
    same = (found < len(old)) & (old.start[inside] == new.start)
    revision, events = old.revision[inside], old.events[inside]
    older = (new.revision < revision) | ((new.revision == revision) & (new.events < events))
    taken = np.flatnonzero(~(same & older))
    return join_rows([old, new.take(taken)]) if len(taken) else old


def split_rows(rows: Rows, span: int) -> dict[int, Rows]:
    """The rows by `start // span`."""
    blocks = rows.start // span
    edges = np.flatnonzero(np.diff(blocks)) + 1
    firsts = [0, *edges.tolist()] if len(rows) else []
    lasts = [*edges.tolist(), len(rows)]
    return {int(blocks[first]): rows.slice(first, last) for first, last in zip(firsts, lasts, strict=False)}
