"""Windows, watermark and late events on a real stream, one batch a step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from uniques.core.counts import Counter, count_unique_users
from uniques.core.events import accept_events, parse_events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

MINUTE = 1468244340  # 2016-07-11T13:39:00Z
# Few registers compile fast; for as few users as here the estimate is exact all the same.
RSD = 0.3


class Stream:
    """A stream that is fed batch by batch, and its result table."""

    def __init__(self, spark: SparkSession, folder: Path, output_mode: str, watermark_seconds: int = 5) -> None:
        self._spark = spark
        self._folder = folder / "in"
        self._folder.mkdir()
        self._table = f"counts_{output_mode}_{abs(hash(folder))}"
        self._steps = 0
        raw = spark.readStream.text(str(self._folder))
        events = accept_events(parse_events(raw))
        events = events.withWatermark("event_time", f"{watermark_seconds} seconds")
        counts = count_unique_users(events, counter=Counter(rsd=RSD))
        self.query: StreamingQuery = (
            counts.writeStream.format("memory").queryName(self._table).outputMode(output_mode).start()
        )

    def send(self, *events: tuple[int, str]) -> list[tuple[int, int, int]]:
        """Sends events, `(seconds after MINUTE, uid)`, as one batch; see `results`."""
        self._steps += 1
        hidden = self._folder / f".{self._steps}"
        hidden.write_text("".join(json.dumps({"ts": MINUTE + after, "uid": uid}) + "\n" for after, uid in events))
        hidden.rename(self._folder / f"{self._steps}.jsonl")
        self.query.processAllAvailable()
        return self.results()

    def results(self) -> list[tuple[int, int, int]]:
        """All results so far: (window start in seconds after MINUTE, users, events)."""
        rows = self._spark.sql(
            f"SELECT unix_seconds(window_start) AS start, unique_users, events FROM {self._table}"
        ).collect()
        return sorted((row.start - MINUTE, row.unique_users, row.events) for row in rows)

    def count_dropped(self) -> int:
        """How many rows Spark dropped as late."""
        # Spark 3.5 has dictionaries only.
        return sum(
            operator["numRowsDroppedByWatermark"]
            for progress in self.query.recentProgress
            for operator in progress["stateOperators"][:1]
        )


@pytest.fixture
def append(spark: SparkSession, tmp_path: Path) -> Iterator[Stream]:
    stream = Stream(spark, tmp_path, "append")
    yield stream
    stream.query.stop()


@pytest.fixture
def update(spark: SparkSession, tmp_path: Path) -> Iterator[Stream]:
    stream = Stream(spark, tmp_path, "update")
    yield stream
    stream.query.stop()


def test_a_window_is_emitted_once_when_the_watermark_passes_its_end(append: Stream) -> None:
    assert append.send((0, "a"), (59, "b")) == []
    # Its end has passed, but not by the watermark's 5 seconds.
    assert append.send((64, "a")) == []
    # 65 - 5 = 60: the end of the first window. The event that closes it counts in its own window.
    assert append.send((65, "c")) == [(0, 2, 2)]
    assert append.send((125, "d")) == [(0, 2, 2), (60, 2, 2)]


def test_events_out_of_order_count_until_their_window_closes(append: Stream) -> None:
    append.send((63, "x"))
    # Behind the watermark (63 - 5 = 58) and still counted: its window is open.
    append.send((3, "late but in time"))
    append.send((64, "x"), (59, "y"))
    assert append.send((65, "x")) == [(0, 2, 2)]


def test_a_late_event_changes_nothing_and_is_dropped(append: Stream) -> None:
    append.send((0, "a"), (1, "b"), (65, "c"))
    assert append.results() == [(0, 2, 2)]
    assert append.send((59, "too late"), (66, "c")) == [(0, 2, 2)]
    assert append.count_dropped() == 1
    assert append.send((125, "d")) == [(0, 2, 2), (60, 1, 2)]


def test_a_minute_with_one_user_and_a_gap_before_the_next(append: Stream) -> None:
    assert append.send((0, "only"), (3600, "next")) == [(0, 1, 1)]


def test_running_counts_in_update_mode_end_at_the_final_one(update: Stream) -> None:
    assert update.send((0, "a")) == [(0, 1, 1)]
    assert update.send((1, "a"), (2, "b")) == [(0, 1, 1), (0, 2, 3)]
    # Only what changed is written again.
    assert update.send((65, "c")) == [(0, 1, 1), (0, 2, 3), (60, 1, 1)]
    # Late: the first window is closed and its count stands.
    assert update.send((3, "d"), (66, "c")) == [(0, 1, 1), (0, 2, 3), (60, 1, 1), (60, 1, 2)]


def test_rubbish_moves_nothing(append: Stream, tmp_path: Path) -> None:
    append.send((0, "a"))
    (tmp_path / "in" / "rubbish.jsonl").write_bytes(
        b'{"ts":99999999999999999999,"uid":"far"}\n\xff\xfe\n{"ts":"x","uid":"y"}\n{"ts":1e400,"uid":"z"}\n\n'
    )
    append.query.processAllAvailable()
    assert append.results() == []
    assert append.send((65, "c")) == [(0, 1, 1)]
