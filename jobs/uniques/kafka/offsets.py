"""Offsets of a Kafka source, as the progress of a query shows them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql.streaming.listener import SourceProgress


def read_offsets(text: str) -> dict[tuple[str, int], int]:
    """A Kafka source's offsets in a progress, `(topic, partition) -> next offset`; empty for what is no JSON object."""
    # A batch that is repeated after a crash has no latest offset, and the first one no start: PySpark shows None.
    topics = json.loads(text) if text.startswith("{") else {}
    return {
        (topic, int(partition)): offset
        for topic, partitions in topics.items()
        for partition, offset in partitions.items()
    }


def count_records(start: str, end: str) -> int:
    """Offsets between two positions of a Kafka source, as a progress shows them; 0 when there is no end.

    That is the largest number of records there can be: markers of transactions and records that compaction removed
    have offsets too. A partition without a start counts from 0.
    """
    before = read_offsets(start)
    return sum(max(0, offset - before.get(partition, 0)) for partition, offset in read_offsets(end).items())


def count_lag(source: SourceProgress) -> int:
    """Offsets between the end of a batch and the end of its topic; 0 for a source that is not Kafka.

    It is exact in one case: 0, when all is read. Otherwise there may be fewer records; see `count_records`. Records of
    transactions that are still open are not there yet.
    """
    return count_records(source.endOffset, source.latestOffset) if source.description.startswith("Kafka") else 0


def count_advance(source: SourceProgress) -> int:
    """Offsets that a batch advanced by; 0 for a source that is not Kafka, and for a batch without a known start."""
    known = source.description.startswith("Kafka") and read_offsets(source.startOffset)
    return count_records(source.startOffset, source.endOffset) if known else 0
