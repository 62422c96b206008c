"""Accounting of batches: what the observation and the offsets say."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    from collections.abc import Mapping

FOUR_EVENTS = {"read": 4, "rejected": '[{"x":5.0,"y":1.0}]', "windows": '[{"x":60.0,"y":3.0}]'}


@pytest.mark.parametrize(
    ("observed", "records", "exact"),
    [
        (FOUR_EVENTS, 4, True),
        (FOUR_EVENTS, 9, True),  # transaction markers and compaction leave offsets without a record
        (FOUR_EVENTS, None, True),  # a file has no offsets
        (FOUR_EVENTS, 3, False),  # a task ran twice, and its rows were observed twice
        (None, 3, True),
    ],
)
def test_more_records_observed_than_the_offsets_span_are_no_exact_account(
    observed: Mapping[str, object] | None, records: int | None, exact: bool
) -> None:
    accounting = Accounting()
    accounting.add_batch(observed, watermark=0, records=records)
    accounting.add_batch(FOUR_EVENTS, watermark=0, records=4)
    assert accounting.summary()["exact"] is exact


def test_events_of_results_that_were_not_observed_once_are_no_exact_account() -> None:
    accounting = Accounting()
    accounting.add_batch({"read": 4, "rejected": "[]", "windows": None}, watermark=float("inf"))
    accounting.check_counted(4)
    assert accounting.exact
    accounting.check_counted(2)
    assert not accounting.exact
