"""What a question brings: texts from a URL or a command line, turned into times, zones and groups."""

from __future__ import annotations

import json
import re
from datetime import timezone as fixed
from typing import TYPE_CHECKING, Any

from uniques.core.choices import WEEKDAYS
from uniques.times import parse_iso_time

from unique_users_service.calendar import FIRST_YEAR, LAST_YEAR, Calendar, find_zone
from unique_users_service.errors import QuestionError
from unique_users_service.records import write_group
from unique_users_service.tables import TOTAL, Key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unique_users_service.questions import Range
    from unique_users_service.state import State

PERIODS = ("minute", "hour", "day", "week", "month", "year")
MOST_DAYS = 366
LOST_PLUS = re.compile(r"(T\S*) (\d\d:?\d\d)$")


def parse_calendar(state: State, timezone: str | None, week_start: str | None = None) -> Calendar:
    """The calendar of a question: that of the table, but for what it names; raises QuestionError."""
    name = timezone or state.calendar.timezone
    try:
        find_zone(name)
    except ValueError as error:
        raise QuestionError(f"timezone {error}") from error
    if week_start is not None and week_start not in WEEKDAYS:
        raise QuestionError(f"week_start {week_start!r} is none of {', '.join(WEEKDAYS)}")
    return Calendar(name, week_start or state.calendar.week_start)


def parse_minute(name: str, text: str, calendar: Calendar) -> int:
    """A full minute, by the clocks of a zone where it has no offset; raises QuestionError."""
    # A plus in a URL stands for a blank, unless it is written as %2B.
    time = parse_iso_time(LOST_PLUS.sub(r"\1+\2", text))
    if time is None:
        raise QuestionError(f"{name} {text!r} is no time: give one such as 2016-07-11T13:39")
    if time.second or time.microsecond:
        raise QuestionError(f"{name} {text!r} is no full minute")
    if not FIRST_YEAR < time.year < LAST_YEAR:
        raise QuestionError(f"{name} {text!r} is not between {FIRST_YEAR + 1} and {LAST_YEAR - 1}")
    seconds = calendar.localize(time) if time.tzinfo is None else int(time.astimezone(fixed.utc).timestamp())
    if seconds % 60:
        raise QuestionError(f"{name} {text!r} is no full minute")
    return seconds


def parse_range(begin: str, end: str, calendar: Calendar, names: tuple[str, str] = ("from", "to")) -> Range:
    """`[from, to)`."""
    return parse_minute(names[0], begin, calendar), parse_minute(names[1], end, calendar)


def parse_interval(name: str, text: str, calendar: Calendar) -> Range:
    """`from/to`, as ISO 8601 writes an interval."""
    begin, slash, end = text.partition("/")
    if not slash:
        raise QuestionError(f"{name} {text!r} is no interval: give two times with a '/', such as 2016-07-11/2016-07-12")
    return parse_range(begin, end, calendar, (f"{name}: from", f"{name}: to"))


def parse_key(texts: Sequence[str], other: bool, state: State) -> Key:
    """The group of `country=CH`, several for several fields, or of a JSON object; raises QuestionError."""
    group: dict[str, Any] = {}
    for text in texts:
        if text.lstrip().startswith("{"):
            try:
                group |= json.loads(text)
            except (ValueError, RecursionError):
                raise QuestionError(f"group {text!r} is no JSON object") from None
            continue
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise QuestionError(f'group {text!r} is no field and value: give country=CH, or {{"country":null}}')
        group[name] = value
    if not group and not other:
        return TOTAL
    key = (write_group(group) if group else None, other)
    if key not in state.series:
        # A value that looks like a number is one in a record.
        raise QuestionError(f"group {key[0]}{' with other' if other else ''}: there are no users of that group")
    return key


def parse_period(text: str, allowed: Sequence[str] = PERIODS) -> str:
    """A period; raises QuestionError."""
    if text not in allowed:
        raise QuestionError(f"period {text!r} is none of {', '.join(allowed)}")
    return text


def parse_days(text: str) -> list[int]:
    """Numbers of days such as `1,7,28`; raises QuestionError."""
    parts = text.split(",")
    if not all(re.fullmatch(r"[0-9]{1,3}", part.strip()) and 1 <= int(part) <= MOST_DAYS for part in parts):
        raise QuestionError(f"days {text!r} are no numbers from 1 to {MOST_DAYS}, such as 1,7,28")
    if len(parts) > 10:
        raise QuestionError("days: give 10 numbers at most")
    return [int(part) for part in parts]


def parse_names(text: str) -> list[str]:
    """Names of fields such as `country,app`; raises QuestionError."""
    names = [name.strip() for name in text.split(",")]
    if not all(names) or len(names) > 10:
        raise QuestionError(f"by {text!r} names no fields: give 1 to 10, such as country or country,app")
    return names
