"""When hours, days, weeks, months and years begin and end in a time zone.

The same as `core.calendar`, in Python: the tests hold one against the other. Times are unix seconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from uniques.core.choices import HOUR_SECONDS, WEEKDAYS

if TYPE_CHECKING:
    from collections.abc import Iterator

OFFSET = re.compile(r"(?:UTC|GMT|UT)?([+-])(\d{1,2})(?::?(\d{2}))?")
FIRST_YEAR, LAST_YEAR = 1970, 2200


@lru_cache(maxsize=256)
def find_zone(name: str) -> tzinfo:
    """A zone by its name, such as Europe/Zurich, or an offset, such as +05:30; raises ValueError, one line."""
    if name in ("UTC", "Z", "UT", "GMT"):
        return timezone.utc
    if match := OFFSET.fullmatch(name):
        offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
        if offset <= timedelta(hours=18):
            return timezone(-offset if match[1] == "-" else offset)
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"{name!r} is no time zone: give one such as UTC, Europe/Zurich or +05:30") from None


@dataclass(frozen=True)
class Calendar:
    """When periods begin: in `timezone`, weeks on `week_start`, one of WEEKDAYS."""

    timezone: str = "UTC"
    week_start: str = "monday"

    def bounds(self, time: int, period: str) -> tuple[int, int]:
        """The period that a time lies in, `[start, end)`."""
        if period == "minute":
            return time // 60 * 60, time // 60 * 60 + 60
        if period == "hour":
            return self._bounds_of_hour(time)
        day = datetime.fromtimestamp(time, self.zone).date()
        if period == "day":
            first, following = day, day + timedelta(days=1)
        elif period == "week":
            first = day - timedelta(days=(day.weekday() - WEEKDAYS.index(self.week_start)) % 7)
            following = first + timedelta(days=7)
        elif period == "month":
            first = day.replace(day=1)
            following = (first + timedelta(days=31)).replace(day=1)
        else:
            first, following = date(day.year, 1, 1), date(day.year + 1, 1, 1)
        return self.midnight(first), self.midnight(following)

    def name(self, start: int, period: str) -> str:
        """The usual name of the period that starts at a time: 2016-07-11T13, 2016-07-11, 2016-W28, 2016-07, 2016."""
        local = datetime.fromtimestamp(start, self.zone)
        if period == "week" and self.week_start == "monday":
            year, week, _ = local.isocalendar()
            return f"{year:04d}-W{week:02d}"
        long = {"minute": 16, "hour": 13, "day": 10, "week": 10, "month": 7, "year": 4}[period]
        return local.isoformat()[:long]

    def periods(self, period: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The periods that begin in `[start, end)`, in order."""
        first, last = self.bounds(start, period)
        if first < start:
            first, last = self.bounds(last, period)
        while first < end:
            yield first, last
            first, last = self.bounds(last, period)

    def midnight(self, day: date) -> int:
        """The first instant of a day; where clocks skip midnight, the instant to which they skip."""
        return int(datetime(day.year, day.month, day.day, tzinfo=self.zone).timestamp())

    def localize(self, time: datetime) -> int:
        """The instant of a time that has no offset of its own, by local clocks; of two such the earlier one."""
        return int(time.replace(tzinfo=self.zone).timestamp())

    def format(self, time: int) -> str:
        """A time as ISO 8601 with the offset of the zone."""
        return datetime.fromtimestamp(time, self.zone).isoformat().replace("+00:00", "Z")

    @property
    def zone(self) -> tzinfo:
        """The zone; raises ValueError, one line, where Python does not know it."""
        return find_zone(self.timezone)

    def _bounds_of_hour(self, time: int) -> tuple[int, int]:
        """The hour by local clocks. A clock change of half an hour splits an hour in two, or makes it half as long."""

        def full_hour(seconds: int) -> int:
            offset = datetime.fromtimestamp(seconds, self.zone).utcoffset() or timedelta()
            return seconds - (seconds + int(offset.total_seconds())) % HOUR_SECONDS

        start = full_hour(time)
        end = start + HOUR_SECONDS
        at_start, at_end = full_hour(start), full_hour(end - 1)
        return (
            start if at_start == start else at_start + HOUR_SECONDS,
            end if at_end == start else at_end,
        )
