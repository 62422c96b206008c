"""Offsets of a Kafka source, as the progress of a query shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql.streaming.listener import SourceProgress


def read_offsets(text: str) -> dict[tuple[str, int], int]:
    """A Kafka source's offsets in a progress, `(topic, partition) -> next offset`; none for what is no JSON object."""
    # A batch that is done again after a crash has no latest offset: PySpark shows the text None.
    topics = json.loads(text) if text.startswith("{") else {}
    return {
        (topic, int(partition)): offset
        for topic, partitions in topics.items()
        for partition, offset in partitions.items()
    }


def count_records(start: str, end: str) -> int:
    """Records between two offsets of a Kafka source, as a progress shows them; 0 when there is no end."""
    before = read_offsets(start)
    return sum(max(0, offset - before.get(partition, 0)) for partition, offset in read_offsets(end).items())


def count_lag(source: SourceProgress) -> int:
    """Records in the source topic behind those that this batch read; 0 for a source that is not Kafka."""
    return count_records(source.endOffset, source.latestOffset) if source.description.startswith("Kafka") else 0
