"""The neighbour guard's rule on small arrays, and the frame around it."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest
from pyspark import cloudpickle
from pyspark.sql import functions as F
from support import needs_arrow_udf
from uniques.core.guard import find_implausible, guard_events, validate_task
from uniques.runtime.failures import explain_failure

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = 1_468_244_340  # 2016-07-11T13:39:00Z
SECONDS = list(range(T, T + 60))  # one event a second, in order
HOUR = 3_600
FLIPS = [1 << bit for bit in range(8, 31) if not T >> bit & 1]  # leads of 4 minutes to 34 years
BACKWARDS = [1 << bit for bit in range(31) if T >> bit & 1]


def flagged(ts: list[int], arrival: list[int] | None = None) -> list[int]:
    """The indices of what the guard flags."""
    arrivals = None if arrival is None else np.array(arrival, np.int64)
    return [int(index) for index in np.flatnonzero(find_implausible(np.array(ts, np.int64), arrivals))]


def flip(ts: list[int], *flips: tuple[int, int]) -> list[int]:
    """`ts` with `(index, seconds)` added."""
    changed = list(ts)
    for index, seconds in flips:
        changed[index] += seconds
    return changed


def test_nothing_is_flagged_in_a_stream_in_order() -> None:
    assert flagged(SECONDS) == []


def test_nothing_is_flagged_in_a_stream_out_of_order_by_five_seconds() -> None:
    assert flagged([ts - 5 * (index % 2) for index, ts in enumerate(SECONDS)]) == []


@pytest.mark.parametrize("lead", [*FLIPS, 64, 86_400])
@pytest.mark.parametrize("index", [30, 8, 45])
def test_a_flip_in_the_middle(index: int, lead: int) -> None:
    assert flagged(flip(SECONDS, (index, lead))) == [index]


@pytest.mark.parametrize("lead", FLIPS)
def test_a_flip_at_the_start_of_a_partition(lead: int) -> None:
    assert flagged(flip(SECONDS, (0, lead))) == [0]


@pytest.mark.parametrize("lead", FLIPS)
def test_two_flips_side_by_side(lead: int) -> None:
    assert flagged(flip(SECONDS, (30, lead), (31, lead))) == [30, 31]
    assert flagged(flip(SECONDS, (30, lead), (31, 1 << 20))) == [30, 31]


@pytest.mark.parametrize("lead", FLIPS)
def test_a_flip_of_the_last_event_of_a_batch(lead: int) -> None:
    ts = list(range(T, T + 300))
    # A bit that is clear there may be set in the last event: only then a flip makes a lead.
    if not ts[-1] & lead:
        assert flagged(flip(ts, (-1, lead))) == [299]


def test_a_small_lead_at_the_end_of_a_batch_passes() -> None:
    # Nothing follows that could contradict it; a known limit.
    assert flagged(flip(SECONDS, (59, 8))) == []


@pytest.mark.parametrize("lag", BACKWARDS)
def test_a_flip_backwards_is_kept_because_it_moves_no_watermark(lag: int) -> None:
    assert flagged(flip(SECONDS, (30, -lag))) == []


def test_a_burst_of_late_events_flags_neither_them_nor_the_others() -> None:
    late = list(range(T - 2 * HOUR, T - 2 * HOUR + 20))
    assert flagged([*SECONDS[:30], *late, *SECONDS[30:]]) == []


@pytest.mark.parametrize("gap", [3 * HOUR, 9 * HOUR, 14 * 86_400])
def test_a_gap_is_kept_wherever_the_batch_ends_behind_it(gap: int) -> None:
    behind = [ts + gap + 60 for ts in SECONDS]
    for length in range(1, 61):
        assert flagged(SECONDS + behind[:length]) == []


def test_day_and_night() -> None:
    days = [T + day * 86_400 + second for day in range(5) for second in range(0, 14 * HOUR, 600)]
    assert flagged(days) == []


def test_one_event_a_minute_with_gaps() -> None:
    steps = [60, 60, 60, 75, 45, 60, 3 * HOUR, 60, 50, 70]
    ts = list(T + np.cumsum(steps * 10))
    assert flagged(ts) == []
    assert flagged(flip(ts, (50, 1 << 24))) == [50]


@pytest.mark.parametrize("number", range(1, 9))
def test_a_batch_of_a_few_events_is_too_little_to_go_by(number: int) -> None:
    assert flagged([T + index * 86_400 for index in range(number)]) == []
    assert flagged(flip(SECONDS[:number], (number // 2, 1 << 25))) == []


def test_no_events() -> None:
    assert flagged([]) == []


def test_a_jump_that_nine_events_share_at_the_end_of_a_batch_is_kept() -> None:
    assert flagged(SECONDS + [ts + 2**25 for ts in SECONDS[:9]]) == []


def test_a_jump_by_more_than_ninety_days_at_the_end_of_a_batch() -> None:
    assert flagged([*SECONDS, SECONDS[-1] + 89 * 86_400]) == []
    assert flagged([*SECONDS, SECONDS[-1] + 91 * 86_400]) == [60]


def test_the_arrival_bounds_and_proves() -> None:
    alone = flip(SECONDS, (30, 1 << 20))
    arrived = [*SECONDS[:30], alone[30] + 300, *SECONDS[31:]]
    assert flagged(alone, arrived) == []
    # Few events decide nothing by themselves; more than 300 s ahead of its arrival none is kept.
    assert flagged([T, T + 300, T + 301], [T, T, T]) == [2]
    unknown = [2**62] * 60
    assert flagged(alone, unknown) == [30]


def test_a_task_is_checked_across_its_batches_and_rows_without_a_time_do_not_take_part() -> None:
    ts: list[int | None] = [*flip(SECONDS, (30, 1 << 24))]
    ts[10] = None
    batches = [(pa.array(part, pa.int64()), pa.nulls(len(part), pa.int64())) for part in (ts[:31], ts[31:], [])]
    verdicts = [verdict.to_pylist() for verdict in validate_task(iter(batches), 300)]
    assert verdicts == [[False] * 30 + [True], [False] * 29, []]
    assert list(validate_task(iter([]), 300)) == []


@needs_arrow_udf
def test_guarding_keeps_rows_and_columns_and_rejects_with_a_reason(spark: SparkSession) -> None:
    rows = [
        (index, datetime.fromtimestamp(ts, timezone.utc), f"u{index}", None)
        for index, ts in enumerate(flip(SECONDS, (30, 1 << 24)))
    ]
    rejected = (60, None, None, "not_json")
    schema = "offset LONG, event_time TIMESTAMP, uid STRING, reject_reason STRING"
    frame = spark.createDataFrame([*rows, rejected], schema).coalesce(1)
    guarded = guard_events(frame)
    assert guarded.schema.simpleString() == frame.schema.simpleString()
    assert guarded.where(F.col("reject_reason").isNotNull()).collect() == [
        (30, None, None, "ts_implausible"),
        rejected,
    ]
    # A filter on top must not change what the guard gets to see.
    kept = guarded.where("reject_reason IS NULL AND offset IN (29, 30, 31)").collect()
    assert [tuple(row) for row in kept] == [
        (row.offset, row.event_time, row.uid, None) for row in frame.where("offset IN (29, 31)").collect()
    ]


@needs_arrow_udf
@pytest.mark.parametrize(("max_future", "expected"), [(0, [1]), (600, []), (None, [])])
def test_what_max_future_allows_is_no_lead(spark: SparkSession, max_future: int | None, expected: list[int]) -> None:
    frame = spark.sql(
        f"SELECT id AS offset, timestamp_seconds({T} + id * 400) AS event_time, 'u' AS uid, STRING(NULL) AS"
        f" reject_reason, timestamp_seconds({T}) AS timestamp FROM range(2)"
    ).coalesce(1)
    rejected = guard_events(frame, max_future).where("reject_reason IS NOT NULL").collect()
    assert [row.offset for row in rejected] == expected


@needs_arrow_udf
def test_a_record_without_an_arrival_time_is_checked_by_its_neighbours(spark: SparkSession) -> None:
    frame = spark.sql(
        f"SELECT timestamp_seconds({T} + id + if(id = 30, 1 << 24, 0)) AS event_time, 'u' AS uid, STRING(NULL) AS"
        " reject_reason, timestamp_millis(-1) AS timestamp FROM range(60)"
    ).coalesce(1)
    rejected = guard_events(frame).where("reject_reason IS NOT NULL").count()
    assert rejected == 1


def test_executors_need_numpy_and_pyarrow_but_not_this_package() -> None:
    sent = cloudpickle.dumps(validate_task)  # type: ignore[no-untyped-call]
    code = (
        "import sys, pickle; sys.modules['uniques'] = None\n"
        "validate_task = pickle.loads(sys.stdin.buffer.read())\n"
        f"import pyarrow as pa; ts = pa.array([{T} + i + (i == 30) * 2**24 for i in range(60)])\n"
        "[flags] = validate_task(iter([(ts, pa.nulls(60, pa.int64()))]), 300); print(flags.to_pylist().index(True))"
    )
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=False)
    assert done.stdout == b"30\n", done.stderr.decode()


def test_a_package_that_executors_lack_is_named() -> None:
    message = (
        '[STREAM_FAILED] Query [id = 1] terminated with exception: Job aborted\n  File "guard.py", line 1\n'
        "ModuleNotFoundError: No module named 'numpy.lib'\n"
    )
    assert str(explain_failure(message)) == (
        "the query failed: executors lack the Python package numpy, which a flag needs: install it there"
    )
