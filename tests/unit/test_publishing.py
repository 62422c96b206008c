"""Which records are due, and with which revision: literal batches in, records out."""

from __future__ import annotations

import pytest
from uniques.state.publishing import Change, Key, Publishing, Sent, Window

WAIT, INTERVAL = 5, 10


@pytest.fixture
def publishing() -> Publishing:
    return Publishing(60, WAIT, INTERVAL)


def describe(sent: Sent) -> list[tuple[int, int, int, bool]]:
    """Start, events, revision, final."""
    return [(window.start, window.sent_events, window.revision, window.final) for window in sent.windows]


def test_a_window_is_published_once_progress_has_passed_its_end_by_the_wait(publishing: Publishing) -> None:
    assert publishing.absorb([Change(60, 2, 3, 119.0), Change(0, 1, 4, 59.0)]).keys() == {Key(0), Key(60)}
    assert describe(publishing.send_due(64.9, now=1_000.0)) == []
    assert publishing.waiting_events() == 7
    sent = publishing.send_due(65.0, now=1_000.0)
    assert describe(sent) == [(0, 4, 0, True)]
    assert sent[1:] == (4, 0, 0)
    assert describe(publishing.send_due(65.0, now=2_000.0)) == []
    assert (publishing.waiting_events(), publishing.waiting_windows(), publishing.next_end()) == (3, 1, 120)


def test_records_go_out_in_order_of_time(publishing: Publishing) -> None:
    publishing.absorb([Change(start, 1, 1, start) for start in (240, 0, 180, 60, 120)])
    assert [row[0] for row in describe(publishing.send_due(1_000.0, now=0.0))] == [0, 60, 120, 180, 240]


def test_corrections_are_bundled_and_numbered(publishing: Publishing) -> None:
    publishing.absorb([Change(0, 1, 4, 59.0)])
    publishing.send_due(65.0, now=100.0)
    publishing.absorb([Change(0, 2, 5, 59.0)])
    assert describe(publishing.send_due(65.0, now=109.9)) == []
    publishing.absorb([Change(0, 2, 7, 59.0)])
    sent = publishing.send_due(65.0, now=110.0)
    assert describe(sent) == [(0, 7, 1, True)]
    assert sent[1:] == (3, 1, 3)
    publishing.absorb([Change(0, 3, 8, 59.0)])
    assert describe(publishing.send_due(65.0, now=110.0)) == []
    assert describe(publishing.send_due(65.0, now=110.0, flush=True)) == [(0, 8, 2, True)]


def test_a_batch_that_is_repeated_changes_nothing(publishing: Publishing) -> None:
    changes = [Change(0, 1, 4, 59.0)]
    publishing.absorb(changes)
    publishing.send_due(65.0, now=100.0)
    assert publishing.absorb(changes) == {}
    assert describe(publishing.send_due(65.0, now=200.0)) == []


def test_running_counts_have_revisions_too_and_end_with_a_final_record() -> None:
    publishing = Publishing(60, WAIT, INTERVAL, running_counts=True)
    publishing.absorb([Change(0, 1, 4, 30.0)])
    assert describe(publishing.send_due(30.0, now=0.0)) == [(0, 4, 0, False)]
    assert describe(publishing.send_due(30.0, now=1.0)) == []
    publishing.absorb([Change(0, 2, 6, 40.0), Change(60, 1, 1, 70.0)])
    assert describe(publishing.send_due(64.0, now=2.0)) == [(0, 6, 1, False), (60, 1, 0, False)]
    # Nothing changed, and yet it is news that nothing will.
    sent = publishing.send_due(65.0, now=3.0)
    assert describe(sent) == [(0, 6, 2, True)]
    assert sent[1:] == (0, 0, 0)


def test_windows_are_forgotten_once_spark_does_so_and_all_is_sent(publishing: Publishing) -> None:
    publishing.absorb([Change(start, 1, 1, start) for start in (0, 60, 120)])
    publishing.send_due(125.0, now=0.0)
    publishing.absorb([Change(60, 2, 2, 60.0)])
    assert publishing.forget(119.0) == [Key(0)]
    assert publishing.forget(120.0) == []  # its correction waits
    publishing.send_due(125.0, now=50.0)
    assert publishing.forget(180.0) == [Key(60)]  # the last one is not published
    assert list(publishing.windows) == [Key(120)]


def test_an_earlier_runs_windows_go_on(publishing: Publishing) -> None:
    publishing.load([Window(Key(0), 1, 4, None, 3, 4, 100.0, True), Window(Key(60), 1, 5)])
    assert publishing.waiting_events() == 5
    publishing.absorb([Change(0, 2, 6, 59.0)])
    assert describe(publishing.send_due(125.0, now=110.0)) == [(0, 6, 4, True), (60, 5, 0, True)]
