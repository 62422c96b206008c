"""What the lateness benchmark replays and draws; that it adds up on Spark, it checks itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lateness import Arrival, Result, check_sums, count_behind, draw_arrivals, save_plot
from uniques.state.accounting import WatermarkAccounting

if TYPE_CHECKING:
    from pathlib import Path


def test_999_of_1000_events_arrive_within_5_seconds() -> None:
    arrivals = draw_arrivals(seconds=120, rate=1_000, seed=2)
    delayed = sum(arrival.arrived - arrival.time > 5 for arrival in arrivals)
    assert 0.0008 < delayed / len(arrivals) < 0.0012
    assert arrivals == draw_arrivals(seconds=120, rate=1_000, seed=2)


def test_an_event_is_behind_when_it_is_older_than_the_latest_by_more_than_the_watermark() -> None:
    arrivals = [Arrival(time, arrived) for arrived, time in enumerate((0.9, 5.0, 0.1, 4.9))]
    assert [count_behind(arrivals, watermark) for watermark in (0, 1, 4, 5)] == [2, 1, 1, 0]


def test_events_that_do_not_add_up_are_an_error() -> None:
    accounting = WatermarkAccounting()
    accounting.add_batch({"read": 3, "rejected": "[]", "windows": '[{"x":60.0,"y":3.0}]'}, watermark=60)
    check_sums(accounting, emitted=3, written=3)
    for emitted, written in ((2, 3), (3, 4)):
        with pytest.raises(RuntimeError, match="don't add up"):
            check_sums(accounting, emitted, written)


def test_equal_results_give_equal_plots(tmp_path: Path) -> None:
    results = [Result(0, 1_000, 500, 2, 3, 2.0, 2, 0.1), Result(30, 1_000, 1, 0, 3, 32.0, 32, 0.1)]
    for name in ("a.svg", "b.svg"):
        save_plot(results, tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
