"""Times and durations: how they are read and written."""

from __future__ import annotations

import re
import time
from datetime import datetime

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def parse_duration(text: str, units: str) -> tuple[str, int, str] | None:
    """Reads `1 minute` for a unit in `units` (`second|minute`): Spark's spelling, count, unit; None if it is none."""
    match = re.fullmatch(rf"\s*(\d{{1,9}})\s+({units})s?\s*", text)
    if not match:
        return None
    count, unit = int(match[1]), match[2]
    return f"{count} {unit}{'' if count == 1 else 's'}", count, unit


def to_seconds(duration_text: str) -> int:
    """Seconds of a duration that the type `duration` returned."""
    count, unit = duration_text.split()
    return int(count) * SECONDS[unit.removesuffix("s")]


def parse_time(text: str | None) -> float:
    """A time in a progress event, ISO 8601, in unix seconds; 0 for none."""
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else 0.0


def describe_time(seconds: int) -> str:
    """A time in unix seconds as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
