"""Accounting of batches: what the observation and the offsets say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.state.accounting import Accounting, WatermarkAccounting

if TYPE_CHECKING:
    from collections.abc import Mapping

FOUR_EVENTS = {"read": 4, "rejected": '[{"x":5.0,"y":1.0}]'}


@pytest.mark.parametrize(
    ("observed", "records", "exact"),
    [
        (FOUR_EVENTS, 4, True),
        (FOUR_EVENTS, 9, True),  # transaction markers and compaction leave offsets without a record
        (FOUR_EVENTS, None, True),  # a file has no offsets
        (FOUR_EVENTS, 3, False),  # a task ran twice, and its rows were observed twice
    ],
)
def test_more_records_observed_than_the_offsets_span_are_no_exact_account(
    observed: Mapping[str, object], records: int | None, exact: bool
) -> None:
    accounting = Accounting()
    assert accounting.add_read(observed, records) == 3
    accounting.add_read(FOUR_EVENTS, 4)
    assert accounting.summary()["exact"] is exact


def test_events_of_results_that_were_not_observed_once_are_no_exact_account() -> None:
    accounting = Accounting()
    accounting.add_counted({"read": 4, "rejected": "[]"})
    accounting.check_counted(4)
    assert accounting.exact
    accounting.check_counted(2)
    assert not accounting.exact


def check_sum(accounting: Accounting) -> None:
    totals = accounting.totals()
    given = totals["carried"] + totals["read"]
    assert given == sum(totals[name] for name in ("counted", "rejected", "filtered", "late", "in_open_windows"))


def test_accepted_events_that_reached_no_window_were_late() -> None:
    accounting = Accounting(carried=5)
    check_sum(accounting)
    accounting.add_accepted(accounting.add_read(FOUR_EVENTS), absorbed=2)
    check_sum(accounting)
    accounting.add_sent(6, records=2, corrections=1, corrected_events=2)
    check_sum(accounting)
    assert accounting.totals() == {
        "carried": 5,
        "read": 4,
        "counted": 6,
        "rejected": 1,
        "filtered": 0,
        "late": 1,
        "in_open_windows": 1,
    }
    assert (accounting.summary()["corrections"], accounting.summary()["corrected_events"]) == (1, 2)


def test_a_batch_that_an_earlier_run_had_done_is_accounted_for_once() -> None:
    # It had taken 3 events over, and written 2; 4 of all events wait for a record now.
    accounting = Accounting(carried=4)
    accounting.repeat(absorbed=3, sent=2)
    accounting.add_accepted(accounting.add_read(FOUR_EVENTS), absorbed=3)
    accounting.add_sent(2)
    check_sum(accounting)
    assert accounting.totals()["in_open_windows"] == 4
    assert (accounting.carried, accounting.late) == (3, 0)


def test_windows_that_a_watermark_closes() -> None:
    accounting = WatermarkAccounting()
    three = {"read": 3, "rejected": "[]", "windows": '[{"x":60.0,"y":2.0},{"x":120.0,"y":1.0}]'}
    accounting.add_batch(three, watermark=0.0)
    assert (accounting.counted, accounting.waiting, accounting.open_windows) == (0, 3, 2)
    accounting.add_batch(three, watermark=60.0)
    assert (accounting.counted, accounting.waiting, accounting.late) == (4, 2, 0)
    accounting.add_batch(three, watermark=120.0)
    assert (accounting.counted, accounting.waiting, accounting.late) == (7, 0, 2)
    check_sum(accounting)
