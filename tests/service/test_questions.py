"""Answers against exact sets, against registers that datasketches united, and against the calendar of the job."""

from __future__ import annotations

import random
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pytest
from service_tables import TOTAL, Group, Minute, Tables, draw_minutes, make_sketch
from sketch_registers import registers_of
from unique_users_service.calendar import Calendar
from unique_users_service.errors import GoneError, QuestionError, UnavailableError
from unique_users_service.questions import (
    Limits,
    answer_breakdown,
    answer_overlap,
    answer_range,
    answer_retention,
    answer_rolling,
    answer_series,
    unite_range,
)
from unique_users_service.sketches import parse_sketches, serialize
from unique_users_service.state import ANSWER_BY
from unique_users_service.store import Budget, Store
from unique_users_service.tables import Place

if TYPE_CHECKING:
    from pathlib import Path

    from unique_users_service.state import State

LIMITS = Limits()
UTC = Calendar()
DAY = 86_400
# Europe/Zurich sets its clocks back on 2016-10-30 and forward on 2017-03-26, America/St_Johns on 11-06 and 03-12.
ZONES = ["UTC", "Europe/Zurich", "Asia/Kathmandu", "America/St_Johns", "Australia/Lord_Howe"]


def seconds(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp())


def open_store(tables: Tables, budget: Budget | None = None) -> Store:
    minutes, rollups = tables.places
    store = Store(Place("--minutes-table", minutes), Place("--rollups-table", rollups), budget)
    store.refresh()
    return store


@pytest.fixture(scope="module")
def autumn(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """Two weeks around the end of summer time, a minute every 7 minutes, and some days of winter and spring."""
    tables = Tables(tmp_path_factory.mktemp("autumn"), zone="Europe/Zurich")
    minutes = draw_minutes(seconds("2016-10-24T00:00"), 14 * 205, 7 * 60)
    minutes += draw_minutes(seconds("2017-03-24T00:00"), 5 * 205, 7 * 60, seed=2)
    minutes += draw_minutes(seconds("2016-12-30T20:00"), 400, 7 * 60, seed=3)
    tables.write(minutes)
    return tables


@pytest.fixture(scope="module")
def state(autumn: Tables) -> State:
    return open_store(autumn).state


def assert_right(tables: Tables, state: State, start: int, end: int, group: Group = TOTAL) -> None:
    """The registers are those of the minutes, and the estimate and events follow from them."""
    sketch, users, events = tables.expect(start, end, group)
    united = unite_range(state, group, (start, end))
    assert united.events == events
    if not users:
        assert united.sketch.estimate() == 0
        return
    assert registers_of(serialize(united.sketch)) == registers_of(bytes(sketch.serialize_compact()))
    assert united.sketch.estimate() == int(sketch.get_estimate() + 0.5)
    assert abs(united.sketch.estimate() / len(users) - 1) <= 3 * united.sketch.relative_error


def test_any_range_has_the_registers_and_the_estimate_of_its_minutes(autumn: Tables, state: State) -> None:
    draw = random.Random(4)
    edges = [seconds("2016-10-24T00:00"), seconds("2016-11-07T00:00"), seconds("2017-03-24T00:00")]
    for _ in range(200):
        first = draw.choice(edges) // 60 + draw.randrange(10 * DAY // 60)
        length = draw.choice([1, 7, 60, 90, 1_440, 10_000, 200_000])
        start, end = 60 * first, 60 * (first + draw.randrange(1, length + 1))
        assert_right(autumn, state, start, end)


def test_a_range_is_united_from_the_largest_rows_that_fit(autumn: Tables, state: State) -> None:
    start, end = seconds("2016-10-29T22:30", "Europe/Zurich"), seconds("2017-01-01T00:10", "Europe/Zurich")
    edges = [*range(start, start + 1_800, 60), *range(end - 600, end, 60)]
    # 2016-10-29 ends with an hour and a half, the month with two days; November; December; ten minutes of January.
    minutes = sum((TOTAL, at) in autumn.minutes for at in edges)
    used = unite_range(state, TOTAL, (start, end)).used
    assert used == {"month": 2, "day": 2, "hour": 1, "minute": minutes}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("period", ["hour", "day", "week", "month"])
def test_the_periods_of_any_zone_are_those_of_its_clocks(autumn: Tables, state: State, zone: str, period: str) -> None:
    calendar = Calendar(zone)
    first, last = seconds("2016-10-28T00:00", zone), seconds("2016-11-01T00:00", zone)
    answer = answer_series(state, calendar, TOTAL, period, (first, last), LIMITS)
    at = None
    for point in answer["points"]:
        start, end = (
            int(datetime.fromisoformat(point[name].replace("Z", "+00:00")).timestamp()) for name in ("from", "to")
        )
        assert at in (None, start)  # without a gap
        at = end
        sketch, _, events = autumn.expect(start, end)
        assert point["events"] == events
        assert point["unique_users"] == (int(sketch.get_estimate() + 0.5) if events else 0)
    if period == "day":
        assert [point["name"] for point in answer["points"]] == [f"2016-10-{day}" for day in (28, 29, 30, 31)]
        hours = [
            round((seconds(f"2016-10-{day + 1}", zone) - seconds(f"2016-10-{day}", zone)) / 1800) for day in (29, 30)
        ]
        assert hours == ([48, 50] if zone == "Europe/Zurich" else [48, 48])


def test_rolling_days_and_stickiness_against_sets(autumn: Tables, state: State) -> None:
    range_ = (seconds("2016-11-01"), seconds("2016-11-06"))
    answer = answer_rolling(state, UTC, TOTAL, [1, 7], range_, LIMITS)
    assert [point["day"] for point in answer["points"]] == [f"2016-11-0{day}" for day in range(1, 6)]
    for point in answer["points"]:
        end = seconds(point["day"]) + DAY
        _, day, events = autumn.expect(end - DAY, end)
        _, week, _ = autumn.expect(end - 7 * DAY, end)
        active = point["active"]
        assert active["1"]["events"] == events
        assert abs(active["1"]["unique_users"] / len(day) - 1) <= 3 * active["1"]["relative_error"]
        assert abs(active["7"]["unique_users"] / len(week) - 1) <= 3 * active["7"]["relative_error"]
        exact, stickiness = len(day) / len(week), point["stickiness"]
        assert abs(stickiness["value"] / exact - 1) <= 3 * stickiness["relative_error_at_most"]


def test_overlap_against_sets(autumn: Tables, state: State) -> None:
    a = (seconds("2016-10-25T00:00"), seconds("2016-10-25T06:00"))
    b = (seconds("2016-10-26T00:00"), seconds("2016-10-26T03:30"))
    answer = answer_overlap(state, UTC, [(TOTAL, a), (TOTAL, b)], LIMITS)
    first, second = autumn.expect(*a)[1], autumn.expect(*b)[1]
    for name, exact in (("both", first & second), ("only_a", first - second), ("only_b", second - first)):
        found = answer[name]
        assert abs(found["unique_users"] - len(exact)) <= 3 * found["standard_error"], name
    assert abs(answer["either"]["unique_users"] / len(first | second) - 1) <= 3 * answer["either"]["relative_error"]
    assert answer["sum_of_parts"] == answer["a"]["unique_users"] + answer["b"]["unique_users"]
    assert answer["method"] == "coupons"


def test_retention_against_sets(autumn: Tables, state: State) -> None:
    answer = answer_retention(state, UTC, TOTAL, "day", 4, seconds("2016-10-29"), LIMITS)
    days = [autumn.expect(seconds(f"2016-10-{day}"), seconds(f"2016-10-{day + 1}"))[1] for day in range(25, 29)]
    assert [cohort["name"] for cohort in answer["cohorts"]] == [f"2016-10-{day}" for day in range(25, 29)]
    for index, cohort in enumerate(answer["cohorts"]):
        assert len(cohort["came_again"]) == 3 - index
        for later, users in zip(cohort["came_again"], days[index + 1 :], strict=True):
            exact = len(days[index] & users)
            assert abs(later["unique_users"] - exact) <= 3 * later["standard_error"]
            assert later["low_share"] <= later["share"] <= later["high_share"]


def grouped(folder: Path) -> Tables:
    tables = Tables(folder, grouped=True)
    draw, first = random.Random(7), seconds("2016-07-11T13:00")
    minutes = []
    for index in range(90):
        parts: list[tuple[Group, list[str]]] = [
            (('{"country":"CH"}', False), [f"u{draw.randrange(300)}" for _ in range(8)]),
            (('{"country":"DE"}', False), [f"u{draw.randrange(600)}" for _ in range(12)]),
            (('{"country":null}', False), [f"n{draw.randrange(60)}" for _ in range(2)]),
            (('{"country":null}', True), [f"o{draw.randrange(60)}" for _ in range(3)]),
        ]
        start = first + 60 * index
        minutes += [Minute(start, users, group=group) for group, users in parts]
        minutes.append(Minute(start, [user for _, users in parts for user in users]))
    tables.write(minutes)
    return tables


def test_a_breakdown_shows_parts_union_and_what_is_counted_twice(tmp_path: Path) -> None:
    tables = grouped(tmp_path)
    state = open_store(tables).state
    range_ = (seconds("2016-07-11T13:10"), seconds("2016-07-11T14:25"))
    answer = answer_breakdown(state, UTC, ["country"], range_, LIMITS)
    assert [(part["group"], part["other"]) for part in answer["parts"]] == [
        ({"country": "DE"}, False),
        ({"country": "CH"}, False),
        ({"country": None}, False),
        ({"country": None}, True),
    ]
    names: list[Group] = [('{"country":"DE"}', False), ('{"country":"CH"}', False), ('{"country":null}', False)]
    names.append(('{"country":null}', True))
    exact = [tables.expect(*range_, name)[1] for name in names]
    for part, users in zip(answer["parts"], exact, strict=True):
        assert abs(part["unique_users"] / len(users) - 1) <= 3 * part["relative_error"]
    together, twice = len(set().union(*exact)), sum(map(len, exact)) - len(set().union(*exact))
    assert abs(answer["union"]["unique_users"] / together - 1) <= 3 * answer["union"]["relative_error"]
    found = answer["counted_more_than_once"]
    assert abs(found["unique_users"] - twice) <= 3 * found["standard_error_at_most"]
    assert answer["total"]["unique_users"] == answer["union"]["unique_users"]
    for name in names:
        assert_right(tables, state, *range_, name)
    with pytest.raises(QuestionError, match="there are country"):
        answer_breakdown(state, UTC, ["app"], range_, LIMITS)


def test_a_range_is_complete_up_to_the_newest_final_window(tmp_path: Path) -> None:
    first = seconds("2016-07-11T13:00")
    tables = Tables(tmp_path)
    tables.write([Minute(first, ["a"]), Minute(first + 60, ["b"], revision=2), Minute(first + 120, ["c"], final=False)])
    state = open_store(tables).state

    def ask(minutes: int) -> dict[str, Any]:
        return answer_range(state, UTC, TOTAL, (first, first + 60 * minutes), LIMITS)

    assert ask(2)["complete"]
    assert not ask(3)["complete"]
    assert not ask(4)["complete"]
    assert ask(1)["corrections"] == {"windows": 0, "highest_revision": 0}
    assert ask(2)["corrections"] == {"windows": 1, "highest_revision": 2}


def test_what_memory_has_no_room_for_is_read_from_the_tables(autumn: Tables) -> None:
    small = open_store(autumn, Budget(60_000)).state
    assert small.loaded_from["minute"] > seconds("2017-01-01")
    draw = random.Random(5)
    for _ in range(20):
        start = seconds("2016-10-24T00:00") + 60 * draw.randrange(10_000)
        assert_right(autumn, small, start, start + 60 * draw.randrange(1, 3_000))


def test_an_answer_that_takes_too_long_is_none(autumn: Tables) -> None:
    small = open_store(autumn, Budget(60_000)).state
    token = ANSWER_BY.set(0.0)
    try:
        with pytest.raises(UnavailableError, match="takes too long"):
            unite_range(small, TOTAL, (seconds("2016-10-25T00:07"), seconds("2016-10-25T00:21")))
    finally:
        ANSWER_BY.reset(token)


def test_sketches_of_different_lg_k_give_one_of_the_smallest() -> None:
    users = [f"u{index}" for index in range(5_000)]
    parsed = parse_sketches([make_sketch(users[:3_000], 14), make_sketch(users[2_000:], 12), b"", b"\x00" * 40])
    assert parsed.lg_k.tolist() == [14, 12, 0, 0]
    from unique_users_service.sketches import unite

    united = unite(12, [], [each for each in parsed.registers if each is not None])
    assert len(united.registers if united.registers is not None else []) == 4_096
    assert abs(united.estimate() / 5_000 - 1) <= 3 * united.relative_error


def test_wrong_questions_are_refused(state: State) -> None:
    hour = seconds("2016-10-25T00:00")
    with pytest.raises(QuestionError, match="is not after"):
        answer_range(state, UTC, TOTAL, (hour, hour), LIMITS)
    with pytest.raises(QuestionError, match=r"4,000 days long: 3,660 are allowed"):
        answer_range(state, UTC, TOTAL, (hour, hour + 4_000 * DAY), LIMITS)
    with pytest.raises(QuestionError, match="points"):
        answer_series(state, UTC, TOTAL, "minute", (hour, hour + 30 * DAY), LIMITS)


def test_minutes_that_are_no_longer_kept_are_gone(autumn: Tables, state: State) -> None:
    from dataclasses import replace

    later = replace(state, kept_from=seconds("2016-10-26T00:00"))
    hour = seconds("2016-10-25T00:00")
    assert unite_range(later, TOTAL, (hour, hour + 7_200)).events == autumn.expect(hour, hour + 7_200)[2]
    with pytest.raises(GoneError, match=r"minutes before .* are no longer kept"):
        unite_range(later, TOTAL, (hour + 60, hour + 7_200))


def test_without_data_there_is_no_answer(tmp_path: Path) -> None:
    store = open_store(Tables(tmp_path))
    assert store.problem is not None
    assert "there is no Delta table" in store.problem
    with pytest.raises(UnavailableError, match="no data yet"):
        answer_range(store.state, UTC, TOTAL, (0, 60), LIMITS)
