"""The Delta tables of the rollup job, read by delta-rs: rows, and what changed from one version to the next."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from deltalake import DeltaTable, QueryBuilder
from deltalake.exceptions import DeltaError, TableNotFoundError

from unique_users_service.rows import Rows, join_rows, sort_rows
from unique_users_service.sketches import parse_sketches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from arro3.core import RecordBatch

TIMEZONE, WEEK_START = "unique_users.timezone", "unique_users.week_start"
KEPT_FROM = "unique_users.kept_from"
# Commits after which all rows are as they were, but those that are in new files.
ADDING = {"MERGE", "OPTIMIZE", "VACUUM START", "VACUUM END", "SET TBLPROPERTIES", "ADD COLUMNS", "CREATE TABLE"}
MOST_VERSIONS = 200  # so many new versions are followed one by one; of more the table is read anew
KEY_BATCH = 2_000

# A group of values, as canonical JSON, or None: all users; and whether it stands for the rest of a breakdown.
Key: TypeAlias = "tuple[str | None, bool]"
Owner: TypeAlias = tuple[Key, str]
TOTAL: Key = (None, False)
Stretch = tuple[int, int]


class TableError(Exception):
    """A table can't be read; the message is one line."""


@dataclass(frozen=True)
class Place:
    """Where a table is: a folder or a URL; `options` are those of delta-rs for object stores."""

    flag: str
    path: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    def open(self) -> Snapshot:
        """The newest version; raises TableError, one line."""
        path = self.path if "://" in self.path else str(Path(self.path).absolute())
        try:
            table = DeltaTable(path, storage_options=dict(self.options) or None)
        except TableNotFoundError:
            raise TableError(f"{self.flag} {self.path}: there is no Delta table") from None
        except (DeltaError, OSError, ValueError) as error:
            raise TableError(f"{self.flag} {self.path}: {first_line(error)}") from error
        return Snapshot(self, table, int(table.version()))


@dataclass(frozen=True)
class Snapshot:
    """One version of a table."""

    place: Place
    table: DeltaTable
    version: int

    @property
    def identity(self) -> str:
        """What no other table has, at the same place at another time either."""
        return str(self.table.metadata().id)

    @property
    def properties(self) -> dict[str, str]:
        """The table's properties."""
        return {name: value or "" for name, value in self.table.metadata().configuration.items()}

    def columns(self) -> set[str]:
        """The names of the columns."""
        return {column.name for column in self.table.schema().fields}

    def select(self, columns: Sequence[str], where: str) -> Iterator[RecordBatch]:
        """The rows for which a condition holds, in batches; columns and condition in SQL. Raises TableError."""
        sql = f"SELECT {', '.join(columns)} FROM t WHERE {where}"  # noqa: S608 - `quote` and `inside` make its values
        try:
            yield from QueryBuilder().register("t", self.table).execute(sql)
        except (DeltaError, OSError, ValueError) as error:
            raise TableError(f"{self.place.flag} {self.place.path}: {first_line(error)}") from error

    def files(self) -> dict[str, dict[str, Any]]:
        """Path -> what the log says of a file."""
        actions = self.table.get_add_actions(flatten=True)
        columns = {name: actions.column(name).to_pylist() for name in actions.schema.names}
        return {path: {name: columns[name][i] for name in columns} for i, path in enumerate(columns["path"])}

    def find_changes(self, before: Snapshot, column: str) -> list[Stretch] | None:
        """The stretches of `column`, `[first, last]` in unix seconds, that hold all rows new since another version.

        None when rows may have gone, or it can't be told.
        """
        if self.identity != before.identity:
            return None
        if self.version == before.version:
            return []
        if not 0 < self.version - before.version <= MOST_VERSIONS:
            return None
        try:
            commits = self.table.history(self.version - before.version)
            known = before.files()
            new = [file for path, file in self.files().items() if path not in known]
        except (DeltaError, OSError, ValueError, KeyError):
            return None
        for commit in commits:
            append = commit.get("operation") == "WRITE" and is_append(commit)
            if commit.get("operation") not in ADDING and not append:
                return None
        stretches = []
        for file in new:
            first, last = file.get(f"min.{column}"), file.get(f"max.{column}")
            if first is None or last is None:
                return None
            stretches.append((int(first.timestamp()), int(last.timestamp()) + 1))
        return merge_stretches(stretches)


def is_append(commit: Mapping[str, Any]) -> bool:
    """Whether a commit that writes leaves the rows that were there."""
    mode = commit.get("mode") or (commit.get("operationParameters") or {}).get("mode")
    return str(mode).strip('"').lower() == "append"


def first_line(error: BaseException) -> str:
    """The first line of what an error says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def merge_stretches(stretches: list[Stretch]) -> list[Stretch]:
    """Stretches in order, those that touch joined."""
    merged: list[Stretch] = []
    for first, last in sorted(stretches):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def timestamp(seconds: int) -> str:
    """A time in SQL."""
    return f"to_timestamp_seconds({int(seconds)})"


def inside(column: str, stretches: list[Stretch]) -> str:
    """Whether a TIMESTAMP lies in one of the stretches, in SQL."""
    parts = [f"({column} >= {timestamp(first)} AND {column} <= {timestamp(last)})" for first, last in stretches]
    return f"({' OR '.join(parts)})" if parts else "false"


def quote(text: str) -> str:
    """A text in SQL."""
    return "'" + text.replace("'", "''") + "'"


def select_group(columns: set[str], key: Key) -> str:
    """Whether a row is of a group, in SQL."""
    if "group" not in columns:
        return "true" if key == TOTAL else "false"
    group, other = key
    condition = '"group" IS NULL' if group is None else f'"group" = {quote(group)}'
    if "other" not in columns:
        return condition if not other else "false"
    return f"{condition} AND {'' if other else 'NOT '}coalesce(other, false)"


MINUTE_COLUMNS = {
    "start": "to_unixtime(window_start)",
    "end": "to_unixtime(window_end)",
    "events": "events",
    "minutes": "1",
    "revision": "revision",
    "final": "final",
}
PERIOD_COLUMNS = {
    "start": "to_unixtime(period_start)",
    "end": "to_unixtime(period_end)",
    "events": "events",
    "minutes": "minutes",
    "revision": "0",
    "final": "final",
}


def read_minutes(snapshot: Snapshot, where: str) -> dict[Key, Rows]:
    """The rows of the table of minutes for which a condition in SQL holds, by group."""
    columns = snapshot.columns()
    wanted = {**MINUTE_COLUMNS, **({} if "revision" in columns else {"revision": "0"})}
    return {key: rows for (key, _), rows in read_rows(snapshot, wanted, columns, where).items()}


def read_periods(snapshot: Snapshot, where: str) -> dict[Owner, Rows]:
    """The rows of the table of rollups for which a condition in SQL holds, by group and period."""
    return read_rows(snapshot, PERIOD_COLUMNS, snapshot.columns(), where)


def read_rows(snapshot: Snapshot, numbers: Mapping[str, str], columns: set[str], where: str) -> dict[Owner, Rows]:
    """Rows by group and period."""
    listed = [f'coalesce(CAST({expression} AS BIGINT), 0) AS "{name}"' for name, expression in numbers.items()]
    listed.append("sketch")
    listed += [f'"{name}"' for name in ("period", "group", "other") if name in columns]
    pieces: dict[Owner, list[Rows]] = {}
    for batch in snapshot.select(listed, where):
        for owner, rows in split_batch(batch):
            pieces.setdefault(owner, []).append(rows)
    return {owner: join_rows(found) for owner, found in pieces.items()}


def split_batch(batch: RecordBatch) -> Iterator[tuple[Owner, Rows]]:
    """The rows of a batch by group and period."""
    if not batch.num_rows:
        return
    longs = {name: batch.column(name).to_numpy() for name in MINUTE_COLUMNS}
    sketches = parse_sketches([each or b"" for each in batch.column("sketch").to_pylist()])
    final = longs.pop("final") > 0
    rows = Rows.of(list(longs.values()), final, sketches)
    owners: dict[Owner, list[int]] = {}
    if not {"group", "period"}.isdisjoint(batch.schema.names):
        groups, others, periods = (
            batch.column(name).to_pylist() if name in batch.schema.names else [None] * batch.num_rows
            for name in ("group", "other", "period")
        )
        for index, (group, other, period) in enumerate(zip(groups, others, periods, strict=True)):
            owners.setdefault(((group, bool(other)), period or ""), []).append(index)
    if len(owners) <= 1:
        yield next(iter(owners), (TOTAL, "")), sort_rows(rows)
        return
    for owner, chosen in owners.items():
        yield owner, sort_rows(rows.take(np.array(chosen)))
