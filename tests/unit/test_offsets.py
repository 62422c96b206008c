"""Offsets are no records: markers of transactions and removed records have offsets too."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pyspark.sql.streaming.listener import SourceProgress
from uniques.kafka.offsets import count_advance, count_lag

KAFKA = "KafkaV2[Subscribe[in]]"


def source(start: Any, end: Any, latest: Any, description: str = KAFKA) -> SourceProgress:
    """A source as a progress shows it: offsets of partitions 0, 1, … of the topic `in`, None where Spark has none."""

    def offsets(partitions: list[int] | None) -> str:
        topic = {str(partition): offset for partition, offset in enumerate(partitions or [])}
        return "None" if partitions is None else json.dumps({"in": topic})

    return SourceProgress(description, offsets(start), offsets(end), offsets(latest), 0, 0.0, 0.0, {})


@pytest.mark.parametrize(
    ("progress", "lag", "advance"),
    [
        (source([5, 7], [6, 9], [6, 9]), 0, 3),
        (source([5, 7], [6, 9], [10, 9]), 4, 3),
        (source(None, [6, 9], [10, 9]), 4, 0),
        (source([5, 7], [6, 9], None), 0, 3),
        (source([5], [6, 9], [6, 9]), 0, 10),
        (source([5], [6], [7], "FileStreamSource[file:/punctuation]"), 0, 0),
    ],
    ids=["at the end", "behind", "first batch", "repeated batch", "new partition", "files"],
)
def test_lag_and_advance_of_a_batch(progress: SourceProgress, lag: int, advance: int) -> None:
    assert (count_lag(progress), count_advance(progress)) == (lag, advance)
