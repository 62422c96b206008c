"""The state follows the tables, and records from Kafka, and never goes back."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

import numpy as np
from deltalake import DeltaTable
from service_tables import TOTAL, Minute, Tables, draw_minutes
from test_questions import assert_right, open_store
from unique_users_service import store as store_module
from unique_users_service.questions import unite_range
from unique_users_service.rows import Rows
from unique_users_service.sketches import parse_sketches

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

FIRST = 1468242000  # 2016-07-11T13:00:00Z


def make_rows(minutes: list[Minute]) -> Rows:
    """Windows as they come from Kafka."""
    longs = [
        np.array(values, np.int64)
        for values in (
            [minute.start for minute in minutes],
            [minute.start + 60 for minute in minutes],
            [len(minute.users) for minute in minutes],
            [1] * len(minutes),
            [minute.revision for minute in minutes],
        )
    ]
    final = np.array([minute.final for minute in minutes])
    return Rows.of(longs, final, parse_sketches([minute.sketch for minute in minutes]))


def test_each_new_version_is_followed_by_its_changes_alone(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 30, 60))
    store = open_store(tables)
    pages = store.state.pages
    for step in range(1, 8):
        late = Minute(FIRST + 60 * step, [f"late{step}", *tables.minutes[TOTAL, FIRST + 60 * step].users], revision=1)
        tables.write([late, *draw_minutes(FIRST + 1_800 * step, 30, 60, seed=step)])
        assert store.refresh()
        assert not store.refresh()
        assert_right(tables, store.state, FIRST + 120, FIRST + 9_000)
        assert_right(tables, store.state, FIRST - 3_600, FIRST + 86_400)
    DeltaTable(tables.places[0]).optimize.compact()
    store.refresh()
    assert store.state.pages is pages  # it was never read anew


def test_minutes_that_are_ahead_of_the_rollups_count_in_all_periods(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 200, 60))
    store = open_store(tables)
    more = draw_minutes(FIRST + 60 * 200, 100, 60, seed=2)
    correction = [Minute(FIRST + 600, ["new", *tables.minutes[TOTAL, FIRST + 600].users], revision=1)]
    tables.write(more + correction, rollups=False)
    for state in (open_store(tables).state, store.refresh() and store.state):
        assert state
        assert_right(tables, state, FIRST, FIRST + 7_200)
        assert_right(tables, state, FIRST - 13 * 3_600, FIRST + 11 * 3_600)
        assert unite_range(state, TOTAL, (1451606400, 1483228800)).used == {"year": 1}
        assert_right(tables, state, 1451606400, 1483228800)
    tables.write_rollups(more + correction)
    store.refresh()
    assert_right(tables, store.state, 1451606400, 1483228800)
    assert not store._derived


def test_records_from_kafka_count_before_the_tables_have_them_and_the_highest_revision_wins(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 100, 60))
    store = open_store(tables)
    minutes = [Minute(FIRST + 6_000, ["x", "y"]), Minute(FIRST + 60, ["only", "these"], revision=3)]
    assert store.add_records([(TOTAL, make_rows(sorted(minutes, key=lambda minute: minute.start)))])
    for minute in minutes:
        tables.minutes[TOTAL, minute.start] = minute
    assert_right(tables, store.state, FIRST, FIRST + 7_200)
    assert_right(tables, store.state, FIRST - 13 * 3_600, FIRST + 11 * 3_600)
    older = Minute(FIRST + 60, ["older"], revision=2)
    assert not store.add_records([(TOTAL, make_rows([older]))])
    # A table that is read anew, from a version without them, does not take them away.
    DeltaTable(tables.places[0]).delete(f'events > 0 AND "offset" < {FIRST // 60 + 1}')
    del tables.minutes[TOTAL, FIRST]
    store.refresh()
    assert_right(tables, store.state, FIRST + 60, FIRST + 7_200)


def test_answers_are_never_torn_and_never_go_back_while_the_tables_are_written(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write([Minute(FIRST, ["u0"])])
    store = open_store(tables)
    stop = threading.Event()
    problems: list[tuple[object, ...]] = []

    def ask() -> None:
        highest = 0
        while not stop.is_set():
            state = store.state
            # Minute m has the users u0 to um, so each range says how far the state is.
            day = unite_range(state, TOTAL, (FIRST - 13 * 3_600, FIRST + 11 * 3_600))
            hour = unite_range(state, TOTAL, (FIRST, FIRST + 3_600))
            edge = unite_range(state, TOTAL, (FIRST, FIRST + 3_600 - 60))
            if not (day.events == hour.events == edge.events and day.sketch.estimate() == hour.sketch.estimate()):
                problems.append((day.events, hour.events, edge.events))
            if hour.events < highest:
                problems.append(("older", hour.events, highest))
            highest = max(highest, hour.events)

    def follow() -> None:
        while not stop.is_set():
            store.refresh()

    threads = [threading.Thread(target=ask), threading.Thread(target=ask), threading.Thread(target=follow)]
    for thread in threads:
        thread.start()
    draw = random.Random(1)
    try:
        for number in range(1, 25):
            minute = Minute(FIRST + 60 * number, [f"u{user}" for user in range(number + 1)])
            tables.write([minute], rollups=False)
            tables.write_rollups([minute])
            if draw.random() < 0.2:
                for place in tables.places:
                    DeltaTable(place).optimize.compact()
                    DeltaTable(place).vacuum(dry_run=False)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not problems
    store.refresh()
    assert_right(tables, store.state, FIRST, FIRST + 3_600)


def test_a_table_that_goes_away_leaves_the_last_answer_and_says_so(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 100, 60))
    store = open_store(tables)
    before = store.state
    (tmp_path / "rollups").rename(tmp_path / "gone")
    assert not store.refresh()
    assert store.state is before
    assert store.problem is not None
    assert "there is no Delta table" in store.problem
    (tmp_path / "gone").rename(tmp_path / "rollups")
    store.refresh()
    assert store.problem is None


def test_a_table_that_can_not_be_taken_over_leaves_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 100, 60))
    store = open_store(tables)
    before = store.state
    tables.write([Minute(FIRST + 6_000, ["a"])])
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "read_minutes", lambda *_: 1 / 0)
        assert not store.refresh()
    assert store.state is before
    assert store.problem == "ZeroDivisionError: division by zero"
    assert store.refresh()
    assert store.problem is None
    assert_right(tables, store.state, FIRST, FIRST + 7_200)


def test_minutes_alone_are_enough(tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 100, 60), rollups=False)
    store = open_store(tables)
    assert_right(tables, store.state, FIRST, FIRST + 7_200)
    assert_right(tables, store.state, 1451606400, 1483228800)
    assert unite_range(store.state, TOTAL, (1451606400, 1483228800)).used == {"year": 1}
