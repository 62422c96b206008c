"""The neighbour guard: which timestamps are implausible beside their neighbours in a Kafka partition.

For history that was loaded lately, where the arrival time says nothing about the event time. Only an event ahead of
its time does harm: it moves the watermark, and the events behind it are dropped as late. The guard keeps no state: it
looks at one batch at a time.

It needs numpy and pyarrow, on the driver and on the executors. Nothing else in this package does, so import it only
where the guard is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.lib.stride_tricks import sliding_window_view
from pyspark import cloudpickle
from pyspark.sql import functions as F

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame

    Seconds = NDArray[np.int64]
    Flags = NDArray[np.bool_]

# Spark reads from these what kind of function it gets, so they must exist at run time.
Columns = Iterator[tuple[pa.Array, ...]]
Verdicts = Iterator[pa.Array]

REASON = "ts_implausible"  # one of events.REJECT_REASONS

SKEW_SECONDS = 300  # how far the clocks of producers and brokers may be apart
DISORDER_SECONDS = 5  # how far apart neighbours are in a healthy stream
MAX_GAP_SECONDS = 90 * 86_400

NEIGHBOURS = 32  # how many events are compared on either side
SUPPORT = 8  # how many neighbours must reach an event's time to make it plausible
CONTRADICTIONS = 8  # how many events behind it must go on below its time to make it implausible
TAIL_NEIGHBOURS = 256  # how many events before it are compared at the end of a batch
COMPANY = 4  # so many events that leap together are no flips: the leap is real

NOTHING = -(2**62)  # in place of a missing neighbour: below any time, and safe to subtract from
NO_ARRIVAL = 2**62  # in place of an unknown arrival: no event is ahead of it, or near it
BLOCK = 8_192  # how many suspects are compared at once, which bounds memory


def guard_events(validated: DataFrame, max_future_seconds: int | None = 0) -> DataFrame:
    """Rejects, as `ts_implausible`, events of `events.parse_events` that are far ahead of their neighbours.

    Rows and columns stay; `event_time` and `uid` of what is rejected become null. Neighbours are the accepted events of
    the same task, which is an offset range of one Kafka partition, in order. An arrival time (`timestamp`, as Kafka's
    source gives it) is used as `find_implausible` says: events may be ahead of it by `max_future_seconds`, or by
    SKEW_SECONDS when that is more. With None the arrival time is not used.
    """
    skew_seconds = max(max_future_seconds or 0, SKEW_SECONDS)

    def validate(columns: Columns) -> Verdicts:
        return validate_task(columns, skew_seconds)

    # One call sees all batches of a task. Only two numbers an event go to Python; other columns stay in the JVM.
    # Spark repeats a deterministic function for a filter above it, and the function would see fewer neighbours there.
    find = F.arrow_udf(validate, "boolean").asNondeterministic()  # type: ignore[attr-defined]  # left out of its stubs
    arrival = F.lit(None).cast("bigint")
    if max_future_seconds is not None and "timestamp" in validated.columns:
        # Kafka gives records of very old clients no time, -1.
        arrived = F.col("timestamp") >= F.lit(0).cast("timestamp")
        arrival = F.when(arrived, F.unix_seconds("timestamp"))
    flagged = validated.withColumn("implausible", find(F.unix_seconds("event_time"), arrival))
    implausible = F.col("implausible")
    guarded = {
        "event_time": F.when(~implausible, F.col("event_time")),
        "uid": F.when(~implausible, F.col("uid")),
        "reject_reason": F.when(implausible, REASON).otherwise(F.col("reject_reason")),
    }
    return flagged.select(*(guarded.get(name, F.col(name)).alias(name) for name in validated.columns))


def validate_task(columns: Columns, skew_seconds: int) -> Verdicts:
    """Compares the events of one task: (unix seconds, arrival in unix seconds) in, whether implausible out.

    Rows without a time are neither events nor neighbours. Keeps about 60 bytes an event until the last one is read.
    """
    batches = list(columns)
    if not batches:
        return
    ts, arrival = (pa.chunked_array([batch[side] for batch in batches]) for side in (0, 1))
    accepted = ts.is_valid().to_numpy()
    known = arrival.fill_null(NO_ARRIVAL).to_numpy()[accepted] if arrival.null_count < len(arrival) else None
    flags = np.zeros(len(ts), np.bool_)
    flags[accepted] = find_implausible(ts.drop_null().to_numpy(), known, skew_seconds)
    start = 0
    for batch in batches:
        yield pa.array(flags[start : start + len(batch[0])])
        start += len(batch[0])


def find_implausible(ts: Seconds, arrival: Seconds | None = None, skew_seconds: int = SKEW_SECONDS) -> Flags:
    """Flags the events of one task, in offset order, whose `ts` (seconds) is implausibly far ahead of their neighbours.

    An event is supported, and kept, when SUPPORT of the NEIGHBOURS before it, or of those behind it, reach its `ts`
    less DISORDER_SECONDS. (Events behind it in the same batch that reach a flipped `ts` make it harmless: the watermark
    moves between batches.) An event without support is implausible in two cases:

    - CONTRADICTIONS of the events behind it (and 5 more for each one that supports it) continue where the events before
      it stopped.
    - The batch ends too early to tell, and the event is where one flipped bit would put the expected time, by a leap
      far larger than the pauses around it; or it is more than MAX_GAP_SECONDS ahead.

    `arrival` (seconds; NO_ARRIVAL where unknown) overrules this: an event more than `skew_seconds` ahead of its arrival
    is implausible, and one within `skew_seconds` of it, as in a live stream, is not.
    """
    flags = np.zeros(len(ts), np.bool_)
    padding = np.full(NEIGHBOURS, NOTHING)
    padded = np.concatenate([padding, ts, padding])
    windows = sliding_window_view(padded, NEIGHBOURS)
    unclear: list[int] = []
    suspects = find_suspects(ts, padded)
    for block in (suspects[start : start + BLOCK] for start in range(0, len(suspects), BLOCK)):
        alone, contradicted = weigh_neighbours(ts[block], windows[block], windows[block + NEIGHBOURS + 1])
        flags[block[alone & contradicted]] = True
        unclear.extend(block[alone & ~contradicted])
    for index in unclear:
        before, after = slice(max(0, index - TAIL_NEIGHBOURS), index), slice(index + 1, index + 1 + NEIGHBOURS)
        flags[index] = leaps_by_a_bit(int(ts[index]), ts[before][~flags[before]], ts[after][~flags[after]])
    if arrival is not None:
        ahead = ts - arrival
        flags &= np.abs(ahead) > skew_seconds
        flags |= ahead > skew_seconds
    return flags


def find_suspects(ts: Seconds, padded: Seconds) -> NDArray[np.intp]:
    """Indices of the events that are ahead of one of the SUPPORT events behind them, or at the end of the task.

    All others are supported, and need no further work. `padded` is `ts` with NEIGHBOURS times NOTHING on either side.
    """
    lowest = padded[NEIGHBOURS + 1 : NEIGHBOURS + 1 + len(ts)].copy()
    for step in range(2, SUPPORT + 1):
        np.minimum(lowest, padded[NEIGHBOURS + step : NEIGHBOURS + step + len(ts)], out=lowest)
    return np.flatnonzero(ts - DISORDER_SECONDS > lowest)


def weigh_neighbours(ts: Seconds, before: Seconds, after: Seconds) -> tuple[Flags, Flags]:
    """Whether each event lacks support, and whether those behind it contradict it.

    `before` and `after` hold its neighbours, a row an event.
    """
    reached = (ts - DISORDER_SECONDS)[:, None]
    supporting_before, supporting_after = (before >= reached).sum(axis=1), (after >= reached).sum(axis=1)
    due = np.partition(before, -SUPPORT, axis=1)[:, -SUPPORT, None]
    # Events behind it contradict it when they are nearer to where the events before it stopped; late ones don't count.
    stop = np.where(before < reached, before, NOTHING).max(axis=1, keepdims=True)
    halfway = np.where(due > NOTHING, (stop + ts[:, None]) // 2, reached)
    contradicting = (after > NOTHING) & (after >= due - DISORDER_SECONDS) & (after < np.minimum(halfway, reached))
    contradicted = contradicting.sum(axis=1) >= CONTRADICTIONS + 5 * (supporting_before + supporting_after)
    return np.maximum(supporting_before, supporting_after) < SUPPORT, contradicted


def leaps_by_a_bit(ts: int, before: Seconds, after: Seconds) -> bool:
    """Whether `ts`, which too few events follow, is a leap that one flipped bit explains best."""
    others = np.sort(np.concatenate([before, after]))
    if len(others) <= SUPPORT:
        return False  # too few events to tell
    if others[-COMPANY] < ts - MAX_GAP_SECONDS:
        return True
    # The third largest pause of the later half; late events are in the earlier one.
    pauses = np.sort(np.diff(others[len(others) // 2 :]))
    if len(pauses) <= SUPPORT:
        return False
    pause = int(pauses[-3])
    bits = [1 << position for position in range(ts.bit_length()) if ts >> position & 1]
    for company in range(COMPANY):  # so many other events may have leapt too
        top, foot = int(others[-1 - company]), int(others[-company]) if company else ts
        if min(foot, ts) - top <= DISORDER_SECONDS + 4 * pause:
            continue
        last = int(before[before <= top].max(initial=others[0]))
        slacks = [DISORDER_SECONDS + min(3 * pause, bit // 8) for bit in bits]
        if any(last - slack <= ts - bit <= top + slack for bit, slack in zip(bits, slacks, strict=True)):
            return True
    return False


# Executors need not have this package: cloudpickle sends the module itself.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
