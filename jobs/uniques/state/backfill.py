"""History, in batch: each window of a bounded input is counted from all its events, however far apart they arrive.

No watermark is involved, so nothing is late. A stream with `availableNow` reads the input in bounded batches and stages
the events that count, parsed and sorted by time, as Parquet files beside its checkpoint. Then the staged events are
counted piece by piece: whole windows, a bounded number at a time. A run that was killed goes on with the batch or the
piece it was at; a piece counted twice gives equal records. At the end the staged events are deleted.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from uniques.core.events import list_dimensions
from uniques.state.folder import is_missing
from uniques.state.sidecar import beside, keep_line, read_lines, write_lines
from uniques.times import describe_time

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("uniques")


@dataclass(frozen=True)
class Bounds:
    """Of a piece: as many windows and events are counted at once at the most, but for one stretch of `unit_seconds`."""

    windows: int
    events: int
    unit_seconds: int


# 40 MB of sketches of 4 KiB.
BOUNDS = Bounds(10_000, 5_000_000, 86_400)
# A window has thousands of sketches.
BOUNDS_WITH_GROUPS = Bounds(360, 1_000_000, 3_600)
STAGED = "time_us BIGINT, uid STRING"


@dataclass(frozen=True)
class Piece:
    """Whole windows that are counted together: event times in `[start, end)`, unix seconds, and their `events`."""

    start: int
    end: int
    events: int


def staged_location(location: str) -> str:
    """The folder of the staged events of a checkpoint."""
    return beside(location, "events")


def stage_events(location: str) -> Callable[[DataFrame, int], None]:
    """A writer of batches of countable events, dimensions included; a batch that is done again replaces itself."""

    def write(events: DataFrame, batch: int) -> None:
        staged = events.select(F.unix_micros("event_time").alias("time_us"), "uid", *list_dimensions(events))
        # Sorted, so that a piece reads only the row groups it needs.
        writer = staged.sortWithinPartitions("time_us").write.mode("overwrite").option("compression", "zstd")
        writer.parquet(f"{staged_location(location)}/batch={batch}")

    return write


def read_staged(spark: SparkSession, location: str, dimensions: int = 0) -> DataFrame:
    """The staged events, `time_us` BIGINT, `uid` STRING and so many dimensions; empty when nothing was staged."""
    columns = "".join(f", dimension_{at} STRING" for at in range(dimensions))
    try:
        return spark.read.schema(f"{STAGED}{columns}, batch INT").parquet(staged_location(location)).drop("batch")
    except AnalysisException as error:
        if not is_missing(error):
            raise
        return stage_nothing(spark, dimensions)


def stage_nothing(spark: SparkSession, dimensions: int = 0) -> DataFrame:
    """An empty frame of staged events."""
    # A frame made of Python rows, even of none, would start a Python worker on an executor.
    names = ["uid", *(f"dimension_{at}" for at in range(dimensions))]
    texts = [F.lit(None).cast("string").alias(name) for name in names]
    return spark.range(0).select(F.lit(None).cast("bigint").alias("time_us"), *texts)


def delete_staged(spark: SparkSession, location: str) -> None:
    """Deletes the staged events of a checkpoint; an empty file stays."""
    # Spark has no delete that Spark Connect reaches too; overwriting removes what is there.
    stage_nothing(spark).coalesce(1).write.mode("overwrite").parquet(staged_location(location))


def plan_pieces(staged: DataFrame, window_seconds: int, bounds: Bounds = BOUNDS) -> list[Piece]:
    """Cuts the time of the staged events into pieces of whole windows, in order of time, each within the bounds.

    A stretch of time with more events is a piece of its own.
    """
    # A multiple of the window, so that no window is cut; windows are aligned to the epoch.
    unit = -(-bounds.unit_seconds // window_seconds) * window_seconds
    start = (F.floor(F.col("time_us") / (unit * 1_000_000)) * unit).alias("start")
    rows = staged.groupBy(start).agg(F.count(F.lit(1)).alias("events")).orderBy("start").collect()
    pieces: list[Piece] = []
    windows = 0
    for row in rows:
        most = min(row["events"], unit // window_seconds)
        last = pieces[-1] if pieces else None
        if last and windows + most <= bounds.windows and last.events + row["events"] <= bounds.events:
            pieces[-1] = Piece(last.start, row["start"] + unit, last.events + row["events"])
            windows += most
        else:
            pieces.append(Piece(row["start"], row["start"] + unit, row["events"]))
            windows = most
    return pieces


def select_piece(staged: DataFrame, piece: Piece) -> DataFrame:
    """The events of a piece: `event_time` TIMESTAMP, `uid` STRING, dimensions."""
    inside = (F.col("time_us") >= piece.start * 1_000_000) & (F.col("time_us") < piece.end * 1_000_000)
    return staged.where(inside).select(
        F.timestamp_micros("time_us").alias("event_time"), "uid", *list_dimensions(staged)
    )


def keep_revision(spark: SparkSession, location: str) -> int:
    """The revision of a backfill's records: when it was first started, in unix seconds, kept beside its checkpoint.

    So a run that is started again writes equal records, and a later backfill writes a higher revision than an earlier
    one and than a stream, which counts from 0.
    """
    return int(keep_line(spark, location, "revision", str(int(time.time()))))


class Journal:
    """Which pieces of a backfill are counted, kept beside its checkpoint."""

    def __init__(self, spark: SparkSession, location: str) -> None:
        """Reads what an earlier run left."""
        self._spark = spark
        self._path = beside(location, "counted")
        lines = read_lines(spark, self._path)
        state: dict[str, Any] = json.loads(lines[0]) if lines else {"pieces": [], "complete": False}
        self._pieces = {Piece(*piece) for piece in state["pieces"]}
        self.complete: bool = state["complete"]

    def __contains__(self, piece: Piece) -> bool:
        """Whether a piece was counted with the events it has now."""
        return piece in self._pieces

    def add(self, piece: Piece) -> None:
        """Notes that a piece is counted and written."""
        self._pieces.add(piece)
        self._write()

    def finish(self) -> None:
        """Notes that there is nothing left to do."""
        self.complete = True
        self._write()

    def _write(self) -> None:
        pieces = sorted((piece.start, piece.end, piece.events) for piece in self._pieces)
        text = json.dumps({"pieces": pieces, "complete": self.complete})
        write_lines(self._spark, self._path, [text])


def count_pieces(
    spark: SparkSession,
    location: str,
    window_seconds: int,
    write: Callable[[DataFrame], None],
    stopped: Callable[[], bool],
    dimensions: int = 0,
) -> bool:
    """Counts the staged events piece by piece: calls `write` with the events of each that is not yet counted.

    Says after each piece how far it is. Returns whether all are counted: False when `stopped` said so before.
    """
    journal = Journal(spark, location)
    staged = read_staged(spark, location, dimensions)
    pieces = plan_pieces(staged, window_seconds, BOUNDS_WITH_GROUPS if dimensions else BOUNDS)
    todo = [piece for piece in pieces if piece not in journal]
    log.info(
        "counting %s events in %s pieces, %s done before",
        sum(p.events for p in pieces),
        len(pieces),
        len(pieces) - len(todo),
    )
    began = time.monotonic()
    for number, piece in enumerate(todo, 1):
        if stopped():
            log.info("stopping: the next start counts the pieces that are left")
            return False
        write(select_piece(staged, piece))
        journal.add(piece)
        log.info(
            "counted %s to %s: events=%s piece=%s of=%s left_s=%.0f",
            describe_time(piece.start),
            describe_time(piece.end),
            piece.events,
            number,
            len(todo),
            (time.monotonic() - began) / number * (len(todo) - number),
        )
    journal.finish()
    return True
