"""Times and durations: how they are read and written.

A duration is a whole number of seconds everywhere in this package; only flags and messages hold text such as
`5 seconds`. A time is unix seconds.
"""

from __future__ import annotations

import re
import time
from datetime import datetime

MILLISECONDS = {"millisecond": 1, "second": 1_000, "minute": 60_000, "hour": 3_600_000, "day": 86_400_000}


def parse_duration(text: str, units: str) -> int | None:
    """Milliseconds of a text such as `1 minute`, for a unit in `units` (`second|minute`); None if it is none."""
    match = re.fullmatch(rf"\s*(\d{{1,9}})\s+({units})s?\s*", text)
    return int(match[1]) * MILLISECONDS[match[2]] if match else None


def describe_duration(seconds: int) -> str:
    """A duration in seconds as text in the largest unit that fits: `90 seconds`, `1 minute`, `2 days`."""
    for unit in ("day", "hour", "minute"):
        count, rest = divmod(seconds * 1_000, MILLISECONDS[unit])
        if count and not rest:
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} second{'' if seconds == 1 else 's'}"


def to_interval(seconds: int, minimum: int = 0) -> str:
    """A duration in seconds as Spark takes it in SQL: `300 seconds`.

    Raises ValueError for what is no whole number, or less than `minimum`: the text becomes a part of SQL.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < minimum:
        raise ValueError(f"{seconds!r} is no duration: give a whole number of seconds, {minimum} or more")
    return f"{seconds} seconds"


def parse_iso_time(text: str) -> datetime | None:
    """An ISO 8601 time, with its offset if it has one (`Z` too); None if the text is none."""
    try:
        return datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text.strip()))
    except ValueError:
        return None


def parse_progress_time(text: str | None) -> float:
    """Unix seconds of a time in the progress of a query; 0 where it has none yet."""
    parsed = parse_iso_time(text) if text else None
    return parsed.timestamp() if parsed else 0.0


def describe_time(seconds: int) -> str:
    """A time in unix seconds as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
