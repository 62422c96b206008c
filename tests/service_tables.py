"""Tables as the rollup job writes them, made without it and without Spark, and what the answers must be."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from datasketches import hll_sketch, hll_union, tgt_hll_type
from deltalake import DeltaTable, write_deltalake
from deltalake import Schema as DeltaSchema

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

LG_K = 12
TIME = pa.timestamp("us", "UTC")
MINUTES = pa.schema(
    [
        ("window_start", TIME),
        ("window_end", TIME),
        ("unique_users", pa.int64()),
        ("events", pa.int64()),
        ("final", pa.bool_()),
        ("revision", pa.int64()),
        ("written_at", TIME),
        ("offset", pa.int64()),
        ("sketch", pa.binary()),
    ]
)
ROLLUPS = pa.schema(
    [
        ("period", pa.string()),
        ("period_start", TIME),
        ("period_end", TIME),
        ("name", pa.string()),
        ("unique_users", pa.int64()),
        ("relative_error", pa.float64()),
        ("events", pa.int64()),
        ("minutes", pa.int64()),
        ("final", pa.bool_()),
        ("parent_start", TIME),
        ("parent_end", TIME),
        ("sketch", pa.binary()),
    ]
)
GROUPED = [("group", pa.string()), ("other", pa.bool_())]
Group = tuple[str | None, bool]
TOTAL: Group = (None, False)


def make_sketch(users: Iterable[str], lg_k: int = LG_K) -> bytes:
    """The sketch of these users."""
    sketch = hll_sketch(lg_k, tgt_hll_type.HLL_8)
    for user in users:
        sketch.update(user)
    return bytes(sketch.serialize_updatable())


def unite_sketches(sketches: Iterable[bytes], lg_k: int = LG_K) -> hll_sketch:
    """The union by datasketches, with the estimator that depends on registers alone."""
    union = hll_union(lg_k)
    for sketch in sketches:
        union.update(hll_sketch.deserialize(sketch))
    result = union.get_result(tgt_hll_type.HLL_8)
    union.update(result)
    return union.get_result(tgt_hll_type.HLL_8)


def local_bounds(time: int, period: str, zone: str) -> tuple[int, int]:
    """The period a time lies in, by Python's calendar; zones of whole hours."""
    local = datetime.fromtimestamp(time, ZoneInfo(zone))
    if period == "hour":
        return time // 3600 * 3600, time // 3600 * 3600 + 3600
    first = local.date()
    if period == "week":
        first -= timedelta(days=first.weekday())
    if period in ("month", "year"):
        first = first.replace(day=1)
    if period == "year":
        first = first.replace(month=1)
    last = first + timedelta(days={"day": 1, "week": 7, "month": 31, "year": 366}[period])
    if period in ("month", "year"):
        last = last.replace(day=1)
    if period == "year":
        last = last.replace(month=1)
    midnights = [datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) for day in (first, last)]
    return int(midnights[0].timestamp()), int(midnights[1].timestamp())


@dataclass
class Minute:
    """A window of a group."""

    start: int
    users: list[str]
    revision: int = 0
    final: bool = True
    group: Group = TOTAL

    @property
    def sketch(self) -> bytes:
        """The sketch of its users."""
        return make_sketch(self.users)

    def row(self) -> dict[str, Any]:
        """The row of the table."""
        return {
            "window_start": utc(self.start),
            "window_end": utc(self.start + 60),
            "unique_users": len(set(self.users)),
            "events": len(self.users),
            "final": self.final,
            "revision": self.revision,
            "written_at": utc(self.start + 65),
            "offset": self.start // 60,
            "sketch": self.sketch,
            "group": self.group[0],
            "other": self.group[1],
        }


def utc(seconds: int) -> datetime:
    """A time for a table."""
    return datetime.fromtimestamp(seconds, timezone.utc)


@dataclass
class Tables:
    """Both tables in a folder, and all minutes that were written, by group and start."""

    folder: Path
    zone: str = "UTC"
    grouped: bool = False
    minutes: dict[tuple[Group, int], Minute] = field(default_factory=dict)

    @property
    def places(self) -> tuple[str, str]:
        """Where the tables are."""
        return str(self.folder / "minutes"), str(self.folder / "rollups")

    def write(self, minutes: Iterable[Minute], rollups: bool = True) -> None:
        """Merges minutes, then the rollups that hold them, as the job does; without `rollups` it stops between."""
        written = list(minutes)
        for minute in written:
            self.minutes[minute.group, minute.start] = minute
        self._merge("minutes", MINUTES, [minute.row() for minute in written], ["window_start"])
        if rollups:
            self.write_rollups(written)

    def write_rollups(self, changed: Iterable[Minute]) -> None:
        """Merges the rollups that hold these minutes."""
        starts = {(minute.group, minute.start) for minute in changed}
        rows = []
        for period in ("hour", "day", "week", "month", "year"):
            bounds = {(group, local_bounds(start, period, self.zone)) for group, start in starts}
            rows += [self._unite(group, period, *edges) for group, edges in bounds]
        self._merge("rollups", ROLLUPS, rows, ["period", "period_start"])

    def expect(self, start: int, end: int, group: Group = TOTAL) -> tuple[hll_sketch, set[str], int]:
        """The sketch, the users and the events of a range."""
        inside = [each for (of, at), each in self.minutes.items() if of == group and start <= at < end]
        users = {user for minute in inside for user in minute.users}
        return unite_sketches(minute.sketch for minute in inside), users, sum(len(minute.users) for minute in inside)

    def _unite(self, group: Group, period: str, start: int, end: int) -> dict[str, Any]:
        sketch, _, events = self.expect(start, end, group)
        parent = {"hour": "day", "day": "month", "month": "year"}.get(period)
        parents = [utc(edge) for edge in local_bounds(start, parent, self.zone)] if parent else [None, None]
        inside = [each for (of, at), each in self.minutes.items() if of == group and start <= at < end]
        return {
            "period": period,
            "period_start": utc(start),
            "period_end": utc(end),
            "name": "",
            "unique_users": int(sketch.get_estimate() + 0.5),
            "relative_error": 0.0162,
            "events": events,
            "minutes": len(inside),
            "final": all(minute.final for minute in inside),
            "parent_start": parents[0],
            "parent_end": parents[1],
            "sketch": bytes(sketch.serialize_updatable()),
            "group": group[0],
            "other": group[1],
        }

    def _merge(self, name: str, schema: pa.Schema, rows: list[dict[str, Any]], keys: list[str]) -> None:
        path = self.folder / name
        if self.grouped:
            schema, keys = pa.schema([*schema, *[pa.field(*column) for column in GROUPED]]), [*keys, "group", "other"]
        table = pa.Table.from_pylist([{k: row[k] for k in schema.names} for row in rows], schema=schema)
        if not path.exists():
            properties = {"unique_users.timezone": self.zone, "unique_users.week_start": "monday"}
            is_rollups = name == "rollups"
            DeltaTable.create(
                path,
                DeltaSchema.from_arrow(schema),
                partition_by=["period"] if is_rollups else None,
                configuration=properties if is_rollups else None,
                raise_if_key_not_exists=False,
            )
            write_deltalake(path, table, mode="append")
            return
        same = " AND ".join(f'(o."{key}" = n."{key}" OR (o."{key}" IS NULL AND n."{key}" IS NULL))' for key in keys)
        merge = DeltaTable(path).merge(table, same, source_alias="n", target_alias="o")
        merge.when_matched_update_all().when_not_matched_insert_all().execute()


def draw_minutes(first: int, number: int, step: int, seed: int = 1, users: int = 400, most: int = 40) -> list[Minute]:
    """Minutes with drawn users: `number` of them, `step` seconds apart."""
    draw = random.Random(seed)
    return [
        Minute(first + step * index, [f"u{draw.randrange(users)}" for _ in range(draw.randrange(1, most))])
        for index in range(number)
    ]


def count_by_group(minutes: Iterable[Minute]) -> dict[Group, set[str]]:
    """The users of each group."""
    found: dict[Group, set[str]] = defaultdict(set)
    for minute in minutes:
        found[minute.group] |= set(minute.users)
    return found
