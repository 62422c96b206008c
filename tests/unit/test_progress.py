"""How far event time is read: what moves it, what holds it back, and what it does not listen to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniques.state.progress import Progress, Seen, find_position

if TYPE_CHECKING:
    from uniques.kafka.subscription import Partition

START = 1_700_000_040  # of a minute
NOW = START + 10_000.0


def minute(number: int) -> int:
    return START + 60 * number


P: list[Partition] = [("in", 0), ("in", 1)]


def see(
    progress: Progress, *windows: tuple[int, int, float], unread: tuple[Partition, ...] = (), now: float = NOW
) -> float:
    """Adds a batch of (minute, events, newest second in it); returns progress, in seconds after START."""
    batch = {minute(number): Seen(events, minute(number) + newest) for number, events, newest in windows}
    progress.add_batch(batch, unread, now)
    return progress.reached - START


def test_progress_is_the_newest_time_when_nothing_is_unread() -> None:
    progress = Progress()
    assert see(progress, (0, 50, 59.5)) == 59.5
    assert see(progress, (0, 5, 59.5), (1, 45, 12.0)) == 72.0


def test_it_never_goes_back() -> None:
    progress = Progress()
    see(progress, (3, 50, 10.0))
    assert see(progress, (0, 50, 10.0)) == 190.0


def test_a_few_events_far_ahead_move_nothing() -> None:
    progress = Progress()
    assert see(progress, (0, 950, 40.0), (60, 50, 40.0)) == 40.0  # one producer of twenty is an hour ahead
    assert see(progress, (0, 999, 50.0), (70_000, 1, 0.0)) == 50.0  # and a flipped bit


def test_a_producer_that_was_ahead_for_a_whole_backlog_moves_nothing() -> None:
    progress = Progress()
    windows = [(number, 950, 59.0) for number in range(60)] + [(number + 600, 50, 59.0) for number in range(60)]
    assert see(progress, *windows, now=NOW * 10) == 59 * 60 + 59.0


def test_flipped_bits_in_sparse_history_move_nothing() -> None:
    progress = Progress()
    sparse = [(number, 1, 30.0) for number in range(2_000)]
    flipped = [(5_000 + 977 * number, 1, 30.0) for number in range(5)]
    assert see(progress, *sparse, *flipped, now=NOW * 10) < 2_000 * 60


def test_small_batches_are_looked_at_together() -> None:
    progress = Progress()
    for second in range(30):
        assert see(progress, (0, 1, second)) == (second if second >= 2 else -START)
    # One event a batch: each would be all of its batch.
    assert see(progress, (90, 1, 0.0)) == 29.0
    assert see(progress, (0, 1, 31.0)) == 31.0


def test_the_last_window_of_a_backlog_counts_though_it_is_a_small_part_of_it() -> None:
    progress = Progress()
    assert see(progress, *((number, 100, 59.5) for number in range(20)), (20, 21, 12.0)) == 20 * 60 + 12.0
    assert see(Progress(), *((number, 100, 59.5) for number in range(20)), (20, 19, 12.0)) == 19 * 60 + 59.5


def test_sparse_history_moves_though_each_window_has_one_event() -> None:
    assert see(Progress(), *((number, 1, 30.0) for number in range(40))) == 37 * 60 + 30.0


def test_batches_without_an_event_are_not_kept() -> None:
    progress = Progress()
    for _ in range(1_000):  # a topic that holds rubbish only
        assert see(progress) == -START
    assert len(progress._recent) == 0
    assert see(progress, (0, 50, 59.5)) == 59.5


def test_two_events_are_no_evidence() -> None:
    progress = Progress()
    assert see(progress, (5, 2, 0.0)) == -START


def test_the_clock_of_the_driver_is_the_most_there_can_be() -> None:
    progress = Progress()
    assert see(progress, (10, 500, 30.0), now=START + 45.0) == 45.0


def test_unread_records_hold_progress_at_the_position_of_their_partition() -> None:
    progress = Progress()
    assert see(progress, (0, 100, 59.0), (30, 100, 59.0), unread=(P[0], P[1])) == -START
    assert progress.held_by in P[:2]
    progress.add_positions({(P[0], minute(0)): 100.0, (P[1], minute(30)): 100.0})  # type: ignore[dict-item]
    assert see(progress, (1, 100, 30.0), (31, 100, 30.0), unread=(P[0], P[1])) == 0
    assert progress.held_by == P[0]
    progress.add_positions({(P[0], minute(1) + 20): 100, (P[1], minute(31)): 100})
    assert see(progress, (2, 100, 30.0), (32, 100, 30.0), unread=(P[0], P[1])) == 80
    # Partition 0 is read to its end: only partition 1 counts.
    assert see(progress, (2, 100, 30.0), (32, 100, 30.0), unread=(P[1],)) == 31 * 60
    assert see(progress, (33, 200, 30.0)) == 33 * 60 + 30
    assert progress.held_by is None


def test_the_position_of_a_partition_is_what_half_of_its_latest_events_reach() -> None:
    progress = Progress()
    progress.add_positions({(P[0], 100.0): 40, (P[0], 200.0): 60, (P[0], 9_000_000.0): 5})
    assert progress.position_of(P[0]) == 200.0
    progress.add_positions({(P[0], 300.0): 1})  # too few
    assert progress.position_of(P[0]) == 200.0
    progress.add_positions({(P[0], 310.0): 19})
    assert progress.position_of(P[0]) == 310.0
    assert progress.position_of(("other", 0)) == 0.0


def test_positions() -> None:
    assert find_position({}) == 0
    assert find_position({10: 1}) == 10
    assert find_position({10: 5, 20: 4, 30: 1}) == 20
