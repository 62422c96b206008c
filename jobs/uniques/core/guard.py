"""The neighbour guard: which timestamps are implausible beside their neighbours in a Kafka partition.

For history that was loaded lately, where the arrival time says nothing. Only leads are dangerous: an event ahead of
its time moves the watermark, and what follows it is dropped as late. Keeps no state: a batch is validated by itself.

Needs numpy and pyarrow, on the driver and on the executors; nothing else in this package does, so it is imported only
when asked for.
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

SKEW_SECONDS = 300  # so far the clocks of producers and brokers may be apart
DISORDER_SECONDS = 5  # so far apart neighbours are in a healthy stream
MAX_GAP_SECONDS = 90 * 86_400

NEIGHBOURS = 32  # looked at on either side
SUPPORT = 8  # so many of them that reach an event's time make it plausible
CONTRADICTIONS = 8  # so many behind it that go on as if it had not been there make it implausible
TAIL_NEIGHBOURS = 256  # looked at before an event that too few follow
COMPANY = 4  # so many events beside a leap are no coincidence of flipped ones: it is a real one

NOTHING = -(2**62)  # stands where there is no neighbour; far below any time, and safe to subtract from
NO_ARRIVAL = 2**62  # stands where the arrival is unknown: no event is ahead of it, or near it
BLOCK = 8_192  # suspects validated at once, which bounds memory


def guard_events(validated: DataFrame, max_future_seconds: int | None = 0) -> DataFrame:
    """Rejects, as `ts_implausible`, events of `events.parse_events` that are far ahead of their neighbours.

    Rows and columns stay; `event_time` and `uid` of what is rejected become null. Neighbours are the accepted events of
    the same task, which is an offset range of one Kafka partition, in order. Where there is an arrival time
    (`timestamp`, as Kafka's source gives it), it decides as `find_implausible` says, and events may be ahead of it by
    `max_future_seconds`, or by SKEW_SECONDS when that is more; None: it is not to be trusted, and not asked.
    """
    skew_seconds = max(max_future_seconds or 0, SKEW_SECONDS)

    def validate(columns: Columns) -> Verdicts:
        return validate_task(columns, skew_seconds)

    # The batches of a task in one call; only two numbers an event go to Python, all other columns wait in the JVM.
    # Spark calls a function that it takes for deterministic again for a filter above, with fewer neighbours.
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
    """Judges the events of one task: (unix seconds, arrival in unix seconds) in, whether implausible out.

    Rows without a time are no events, and no neighbours. Takes some 60 bytes an event until the last one is read.
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

    An event is supported, and so kept, when SUPPORT of the NEIGHBOURS before it, or of those behind it, reach its `ts`,
    less DISORDER_SECONDS. (Followers in the same batch that reach a flipped `ts` also make it harmless: the watermark
    moves between batches.) One without support is implausible when

    - CONTRADICTIONS of those behind it (and 5 more for each one that supports it) continue where those before it had
      stopped, as if it had not been there; or,
    - where a batch ends too early to tell, it stands where one flipped bit takes the time that was due, by a leap far
      larger than the pauses of the events around it, or is more than MAX_GAP_SECONDS ahead of them.

    `arrival` (seconds; NO_ARRIVAL where unknown) is an upper bound, and a proof: events more than `skew_seconds` ahead
    of it are implausible, those within `skew_seconds` of it, as in a live stream, are not.
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
    """Indices of the events that lead one of the SUPPORT behind them, or stand at the end; all others are supported.

    `padded` is `ts` with NEIGHBOURS times NOTHING on either side. It is all that most events cost.
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
    # Nearer to where the events before it had stopped than to itself; late ones, below that, say nothing.
    stop = np.where(before < reached, before, NOTHING).max(axis=1, keepdims=True)
    halfway = np.where(due > NOTHING, (stop + ts[:, None]) // 2, reached)
    contradicting = (after > NOTHING) & (after >= due - DISORDER_SECONDS) & (after < np.minimum(halfway, reached))
    contradicted = contradicting.sum(axis=1) >= CONTRADICTIONS + 5 * (supporting_before + supporting_after)
    return np.maximum(supporting_before, supporting_after) < SUPPORT, contradicted


def leaps_by_a_bit(ts: int, before: Seconds, after: Seconds) -> bool:
    """Whether `ts`, which too few events follow, is a leap that one flipped bit explains best."""
    others = np.sort(np.concatenate([before, after]))
    if len(others) <= SUPPORT:
        return False  # too little to go by
    if others[-COMPANY] < ts - MAX_GAP_SECONDS:
        return True
    # The third largest pause, of the later half, because late events stand in the other.
    pauses = np.sort(np.diff(others[len(others) // 2 :]))
    if len(pauses) <= SUPPORT:
        return False
    pause = int(pauses[-3])
    bits = [1 << position for position in range(ts.bit_length()) if ts >> position & 1]
    for company in range(COMPANY):  # that many others may have leapt along
        top, foot = int(others[-1 - company]), int(others[-company]) if company else ts
        if min(foot, ts) - top <= DISORDER_SECONDS + 4 * pause:
            continue
        last = int(before[before <= top].max(initial=others[0]))
        slacks = [DISORDER_SECONDS + min(3 * pause, bit // 8) for bit in bits]
        if any(last - slack <= ts - bit <= top + slack for bit, slack in zip(bits, slacks, strict=True)):
            return True
    return False


# Executors need not have this package: it is sent along, where other modules are only named.
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # type: ignore[no-untyped-call]
