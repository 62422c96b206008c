"""The questions, answered from one state: plain functions, without HTTP, files or a clock."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from unique_users_service.errors import QuestionError, UnavailableError
from unique_users_service.overlap import estimate_overlap
from unique_users_service.sketches import Sketch, unite_sketches
from unique_users_service.state import ALWAYS, NO_ROWS, SPANS
from unique_users_service.tables import TOTAL, Key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from unique_users_service.calendar import Calendar
    from unique_users_service.overlap import Estimate
    from unique_users_service.state import State

Range = tuple[int, int]
NOTE = (
    "Found from both sketches together. The error is in users, and hardly falls with the overlap: a small overlap of "
    "large sets can't be told from none."
)


@dataclass(frozen=True)
class Limits:
    """What a question may ask for at most."""

    days: int = 3_660
    points: int = 10_000


@dataclass(frozen=True)
class United:
    """The users of a range: their sketch, and what is known of it."""

    range: Range
    sketch: Sketch
    events: int
    complete: bool
    used: dict[str, int]


def unite_range(state: State, key: Key, range_: Range) -> United:
    """The users of a group in `[start, end)`; raises AskError where that is not known."""
    start, end = range_
    parts, used = state.collect(key, start, end)
    complete = parts.final and state.newest is not None and end <= state.newest
    return United(range_, parts.unite(), parts.events, complete, used)


def unite_period(state: State, key: Key, level: str, range_: Range) -> United:
    """The users of a period: from its own row, where there is one."""
    found = state.row_of(key, level, *range_)
    if found is None:
        return unite_range(state, key, range_)
    rows, at = found
    complete = bool(rows.final[at]) and range_[1] <= (state.newest or ALWAYS)
    return United(range_, rows.sketch_of(at), int(rows.events[at]), complete, {level: 1})


def describe_users(sketch: Sketch) -> dict[str, Any]:
    """An estimate with its error; `low` and `high` are two standard errors away."""
    users, error = sketch.estimate(), sketch.relative_error if sketch.lg_k else 0.0
    return {
        "unique_users": users,
        "relative_error": round(error, 4),
        "low": round(users * (1 - 2 * error)),
        "high": round(users * (1 + 2 * error)),
    }


def describe_united(united: United, calendar: Calendar) -> dict[str, Any]:
    """A range and its users."""
    return {
        "from": calendar.format(united.range[0]),
        "to": calendar.format(united.range[1]),
        **describe_users(united.sketch),
        "events": united.events,
        "complete": united.complete,
    }


def answer_range(state: State, calendar: Calendar, key: Key, range_: Range, limits: Limits) -> dict[str, Any]:
    """The unique users of any range of full minutes."""
    check_range(range_, calendar, limits)
    united = unite_range(state, key, range_)
    return {
        **describe_united(united, calendar),
        "corrections": count_corrections(state, key, range_),
        "united_from": united.used,
        **describe_state(state, calendar, key),
    }


def answer_series(
    state: State, calendar: Calendar, key: Key, period: str, range_: Range, limits: Limits
) -> dict[str, Any]:
    """The unique users of each period that overlaps the range, by the clocks of a zone."""
    ranges = list_periods(calendar, period, range_, limits)
    # Weeks may begin on another day in the table.
    rows_fit = period == "minute" or period != "week" or calendar.week_start == state.calendar.week_start
    points = []
    for each in ranges:
        united = unite_period(state, key, period, each) if rows_fit else unite_range(state, key, each)
        points.append({"name": calendar.name(each[0], period), **describe_united(united, calendar)})
    return {"period": period, **describe_state(state, calendar, key), "points": points}


def answer_rolling(
    state: State, calendar: Calendar, key: Key, days: Sequence[int], range_: Range, limits: Limits
) -> dict[str, Any]:
    """The users of the last n days up to each day, for each n in `days`, and the ratio of the first to the last."""
    days = sorted(set(days))
    ranges = list_periods(calendar, "day", range_, limits)
    if len(ranges) * len(days) > limits.points:
        raise QuestionError(f"the answer would have {len(ranges) * len(days):,} numbers: {limits.points:,} are allowed")
    before: list[Range] = []
    while len(before) < days[-1] - 1:
        before.insert(0, calendar.bounds((before or ranges)[0][0] - 1, "day"))
    united = [unite_period(state, key, "day", each) for each in [*before, *ranges]]
    points = []
    for index in range(len(before), len(united)):
        active, sketches = {}, []
        for number in days:
            window = united[index - number + 1 : index + 1]
            sketches.append(unite_sketches([each.sketch for each in window]))
            active[str(number)] = {
                **describe_users(sketches[-1]),
                "events": sum(each.events for each in window),
                "complete": all(each.complete for each in window),
            }
        points.append(
            {
                "day": calendar.name(united[index].range[0], "day"),
                "from": calendar.format(united[index].range[0]),
                "to": calendar.format(united[index].range[1]),
                "active": active,
                "stickiness": describe_ratio(sketches[0], sketches[-1]),
            }
        )
    return {"days": days, **describe_state(state, calendar, key), "points": points}


def describe_ratio(part: Sketch, whole: Sketch) -> dict[str, Any] | None:
    """What share of the users of a range those of a part of it are; None of nothing.

    Its relative error is at most the sum of both, however they correlate.
    """
    users, error = whole.estimate(), part.relative_error + whole.relative_error
    if not users:
        return None
    value = min(1.0, part.estimate() / users)
    return {
        "value": round(value, 4),
        "relative_error_at_most": round(error, 4),
        "low": round(max(0.0, value * (1 - 2 * error)), 4),
        "high": round(min(1.0, value * (1 + 2 * error)), 4),
    }


def answer_overlap(
    state: State, calendar: Calendar, sides: Sequence[tuple[Key, Range]], limits: Limits
) -> dict[str, Any]:
    """How many users two ranges, or two groups, have in common."""
    united = []
    for key, range_ in sides:
        check_range(range_, calendar, limits)
        united.append((key, unite_range(state, key, range_)))
    a, b = (each.sketch for _, each in united)
    named = [{**describe_united(each, calendar), "group": describe_key(key)} for key, each in united]
    return {
        "a": named[0],
        "b": named[1],
        **describe_overlap(a, b),
        "complete": all(each.complete for _, each in united),
        **describe_state(state, calendar, sides[0][0]),
    }


def describe_overlap(a: Sketch, b: Sketch) -> dict[str, Any]:
    """Both, either, and only one of two sets of users."""
    found = estimate_overlap(a, b)
    users_a, users_b = a.estimate(), b.estimate()
    return {
        "either": describe_users(unite_sketches([a, b])),
        "both": describe_estimate(found.both, min(users_a, users_b)),
        "only_a": describe_estimate(found.only_a, users_a),
        "only_b": describe_estimate(found.only_b, users_b),
        "sum_of_parts": users_a + users_b,
        "method": found.method,
        "note": NOTE,
    }


def describe_estimate(estimate: Estimate, most: int) -> dict[str, Any]:
    """A number of users with its standard error in users; it is `most` at most."""
    users = min(math.floor(estimate.users + 0.5), most)
    return {
        "unique_users": users,
        "standard_error": math.ceil(estimate.error),
        "low": max(0, math.floor(users - 2 * estimate.error)),
        "high": min(most, math.ceil(users + 2 * estimate.error)),
    }


def answer_retention(
    state: State, calendar: Calendar, key: Key, period: str, periods: int, before: int, limits: Limits
) -> dict[str, Any]:
    """Of the users of each period, how many came again in each later one: the last `periods` up to a time."""
    if periods * (periods + 1) // 2 > limits.points:
        raise QuestionError(f"periods {periods} is too many: the answer may have {limits.points:,} numbers")
    ranges = [calendar.bounds(before - 1, period)]
    while len(ranges) < periods:
        ranges.insert(0, calendar.bounds(ranges[0][0] - 1, period))
    united = [unite_period(state, key, period, each) for each in ranges]
    cohorts = []
    for index, cohort in enumerate(united):
        users = cohort.sketch.estimate()
        later = []
        for other in united[index + 1 :]:
            overlap = estimate_overlap(cohort.sketch, other.sketch)
            both = describe_estimate(overlap.both, min(users, other.sketch.estimate()))
            shares = {
                name: round(min(1.0, both[of] / users), 4) if users else None
                for name, of in (("share", "unique_users"), ("low_share", "low"), ("high_share", "high"))
            }
            later.append({"name": calendar.name(other.range[0], period), **both, **shares, "complete": other.complete})
        name = calendar.name(cohort.range[0], period)
        cohorts.append({"name": name, **describe_united(cohort, calendar), "came_again": later})
    return {
        "period": period,
        **describe_state(state, calendar, key),
        "note": NOTE,
        "cohorts": cohorts,
    }


def answer_breakdown(
    state: State, calendar: Calendar, by: Sequence[str], range_: Range, limits: Limits
) -> dict[str, Any]:
    """The users of each group of a breakdown, of all of them together, and how many were in more than one."""
    check_range(range_, calendar, limits)
    names = frozenset(by)
    keys = [key for key in state.series if dimensions_of(key) == names]
    if not keys:
        found = sorted({",".join(sorted(dimensions_of(key))) for key in state.series} - {""})
        known = f"there are {', '.join(found)}" if found else "the tables have none"
        raise QuestionError(f"by {','.join(by)!r}: there is no such breakdown; {known}")
    if len(keys) > limits.points:
        raise QuestionError(f"by {','.join(by)!r} has {len(keys):,} groups: {limits.points:,} are allowed")
    united = [(key, unite_range(state, key, range_)) for key in keys]
    parts = [
        {"group": describe_key(key), "other": key[1], **describe_united(each, calendar)}
        for key, each in united
        if each.events
    ]
    parts.sort(key=lambda part: (part["other"], -part["unique_users"], json.dumps(part["group"])))
    union = unite_sketches([each.sketch for _, each in united])
    sum_of_parts = sum(part["unique_users"] for part in parts)
    surplus = sum_of_parts - union.estimate()
    return {
        "by": list(by),
        "from": calendar.format(range_[0]),
        "to": calendar.format(range_[1]),
        "parts": parts,
        "sum_of_parts": sum_of_parts,
        "union": {**describe_users(union), "events": sum(part["events"] for part in parts)},
        "counted_more_than_once": {
            "unique_users": max(0, surplus),
            "standard_error_at_most": round(union.relative_error * (sum_of_parts + union.estimate())),
        },
        "total": describe_united(unite_range(state, TOTAL, range_), calendar),
        "complete": all(each.complete for _, each in united),
        **describe_state(state, calendar, TOTAL, group=False),
    }


@lru_cache(maxsize=100_000)
def dimensions_of(key: Key) -> frozenset[str]:
    """The names of a group's dimensions; none of the total."""
    group = describe_key(key)
    return frozenset(group) if group else frozenset()


def describe_key(key: Key) -> dict[str, Any] | None:
    """A group as an object, or None for all users."""
    if key[0] is None:
        return None
    try:
        group = json.loads(key[0])
    except ValueError:
        return None
    return group if isinstance(group, dict) else None


def describe_state(state: State, calendar: Calendar, key: Key, group: bool = True) -> dict[str, Any]:
    """What an answer was given from."""
    if not state.series:
        raise UnavailableError("there is no data yet: the tables are missing or empty, and no record came from Kafka")
    versions = [snapshot.version if snapshot else None for snapshot in state.snapshots]
    return {
        "timezone": calendar.timezone,
        **({"group": describe_key(key), "other": key[1]} if group else {}),
        "final_until": calendar.format(state.newest) if state.newest else None,
        "versions": {"minutes": versions[0], "rollups": versions[1], "state": state.number},
    }


def count_corrections(state: State, key: Key, range_: Range) -> dict[str, Any]:
    """How many windows of a range were corrected, as far as they are in memory, and their highest revision."""
    blocks = state.series.get(key, {}).get("minute", {})
    span, number, highest = SPANS["minute"], 0, 0
    for block in range(range_[0] // span, (range_[1] - 1) // span + 1) if len(blocks) > 3_000 else sorted(blocks):
        rows = blocks.get(block, NO_ROWS)
        if not len(rows.corrected):
            continue
        inside = [at for at in rows.corrected.tolist() if range_[0] <= rows.start[at] < range_[1]]
        number += len(inside)
        highest = max([highest, *(int(rows.revision[at]) for at in inside)])
    return {"windows": number, "highest_revision": highest}


def check_range(range_: Range, calendar: Calendar, limits: Limits) -> None:
    """Raises QuestionError for a range that is empty, or longer than what is allowed."""
    start, end = range_
    if end <= start:
        raise QuestionError(f"to {calendar.format(end)} is not after from {calendar.format(start)}")
    if end - start > limits.days * 86_400:
        raise QuestionError(f"the range is {(end - start) / 86_400:,.0f} days long: {limits.days:,} are allowed")


def list_periods(calendar: Calendar, period: str, range_: Range, limits: Limits) -> list[Range]:
    """The periods that overlap a range; raises QuestionError where there are more than allowed."""
    check_range(range_, calendar, limits)
    shortest = {"minute": 60, "hour": 1_800, "day": 80_000}.get(period, 500_000)
    if (range_[1] - range_[0]) / shortest > 2 * limits.points:
        raise QuestionError(f"the answer would have more than {limits.points:,} points: give a shorter range")
    ranges = list(calendar.periods(period, calendar.bounds(range_[0], period)[0], range_[1]))
    if len(ranges) > limits.points:
        raise QuestionError(f"the answer would have {len(ranges):,} points: {limits.points:,} are allowed")
    return ranges
