"""Records of unique_users.py and rollup_users.py, as they come from Kafka."""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from datetime import timezone
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

import numpy as np
from uniques.times import parse_iso_time

from unique_users_service.rows import Rows, sort_rows
from unique_users_service.sketches import parse_sketches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from unique_users_service.calendar import Calendar
    from unique_users_service.tables import Key

PERIODS = ("hour", "day", "week", "month", "year")


class Window(NamedTuple):
    """A record of unique_users.py that can be united."""

    key: Key
    start: int
    end: int
    events: int
    revision: int
    final: bool
    sketch: bytes


def parse_object(value: bytes | None) -> dict[str, Any] | None:
    """A JSON object; None for anything else."""
    try:
        found = json.loads(value or b"")
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def parse_time(value: Any) -> int | None:
    """Unix seconds of a time of a record; None for anything else."""
    time = parse_iso_time(value) if isinstance(value, str) else None
    return int(time.replace(tzinfo=time.tzinfo or timezone.utc).timestamp()) if time else None


def read_key(record: dict[str, Any]) -> Key | None:
    """The group of a record, as the tables name it; None where it is none."""
    group = record.get("group")
    if group is None:
        return (None, False)
    if not isinstance(group, dict):
        return None
    return (write_group(group), record.get("other") is True)


def write_group(group: dict[str, Any]) -> str:
    """A group as canonical JSON."""
    return json.dumps(group, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def is_long(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number that a table can hold."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62


def parse_window(value: bytes | None, calendar: Calendar, kept_from: int | None) -> Window | str:
    """A record of unique_users.py, or why it can't be united: the reasons of rollup_users.py."""
    if value is None:
        return "tombstone"
    record = parse_object(value) or {}
    start, end = parse_time(record.get("window_start")), parse_time(record.get("window_end"))
    events, revision, key = record.get("events"), record.get("revision", 0), read_key(record)
    if start is None or end is None or key is None:
        return "not_a_record"
    if not is_long(events) or not is_long(revision):
        return "not_a_record"
    text = record.get("sketch")
    if text is None:
        return "no_sketch"
    try:
        # Spark writes base64 in lines.
        sketch = base64.b64decode("".join(text.split()), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        return "bad_sketch"
    if not parse_sketches([sketch]).lg_k[0]:
        return "bad_sketch"
    first, last = calendar.bounds(start, "hour")
    if end <= start or (start - first) % (end - start) or (last - start) % (end - start):
        return "bad_window"
    if kept_from is not None and start < kept_from:
        return "before_kept_minutes"
    return Window(key, start, end, events, revision, record.get("final") is True, sketch)


def make_rows(windows: Iterable[Window]) -> dict[Key, Rows]:
    """Windows by group, of each the valid record: the highest revision, then the most events, then the last one."""
    best: dict[tuple[Key, int], Window] = {}
    for window in windows:
        old = best.get((window.key, window.start))
        if old is None or (window.revision, window.events) >= (old.revision, old.events):
            best[window.key, window.start] = window
    by_key: dict[Key, list[Window]] = {}
    for window in best.values():
        by_key.setdefault(window.key, []).append(window)
    rows = {}
    for key, found in by_key.items():
        columns = [(each.start, each.end, each.events, 1, each.revision) for each in found]
        numbers = list(np.array(columns, np.int64).T.copy())
        final = np.array([each.final for each in found])
        rows[key] = sort_rows(Rows.of(numbers, final, parse_sketches([each.sketch for each in found])))
    return rows


def parse_final(value: bytes | None) -> tuple[Key, str, int] | None:
    """Group, period and start of a record of rollup_users.py that says that it is final; None for any other."""
    record = parse_object(value) or {}
    start, key = parse_time(record.get("period_start")), read_key(record)
    if record.get("period") not in PERIODS or start is None or key is None or record.get("final") is not True:
        return None
    return (key, record["period"], start)


def describe_reject(value: bytes | None, headers: Iterable[tuple[str, bytes | None]]) -> dict[str, Any]:
    """A rejected event: why, where it was, and what it holds, as text."""
    named = {name: (content or b"").decode("utf-8", "replace") for name, content in headers}
    text = (value or b"").decode("utf-8", "replace")
    fields = ("reason", "topic", "partition", "offset", "arrival_time")
    return {**{field: named.get(field) for field in fields}, "value": text[:2_000], "shortened": len(text) > 2_000}


def count_reasons(found: Iterable[Window | str]) -> Counter[str]:
    """How many could not be united, by reason."""
    return Counter(each for each in found if isinstance(each, str))
