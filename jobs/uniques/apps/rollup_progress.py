"""Which partitions of the input topic hold unread records behind a batch, so that rollups are not final too early.

The partitions of the topic are read at different speeds while the job catches up. A period is complete only when every
partition with unread records has been read beyond its end; the newest window of one partition proves nothing about the
others.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uniques.kafka.partitions import TopicEnds
from uniques.kafka.subscription import Subscription
from uniques.state.checkpoint import query_location
from uniques.state.sidecar import read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession

    from uniques.apps.rollup_settings import RollupSettings


class UnreadPartitions:
    """Compares what a batch reads with the ends of the topic's partitions."""

    def __init__(self, spark: SparkSession, settings: RollupSettings) -> None:
        """Raises UsageError, one line, when the driver has no Kafka client."""
        self._spark = spark
        self._topic = settings.source.topic
        self._offsets = f"{query_location(settings.running.checkpoint_location)}/offsets"
        self._ends = TopicEnds(spark, settings.cluster, Subscription((self._topic,)))

    def find(self, batch: int) -> set[int]:
        """The partitions with records behind those of a batch, which is planned already."""
        # Spark writes this file before it runs the batch. The records themselves do not say where the batch ends: the
        # last offsets of a partition may be marks of transactions.
        planned = parse_planned(read_lines(self._spark, f"{self._offsets}/{batch}") or [], self._topic)
        return {partition for (_, partition), end in self._ends.read().items() if planned.get(partition, 0) < end}

    def close(self) -> None:
        """Ends the client."""
        self._ends.close()


def parse_planned(lines: list[str], topic: str) -> dict[int, int]:
    """Partition -> the offset where a batch ends, from the lines of Spark's file about it; empty when it has none."""
    for line in lines[1:]:
        found = json.loads(line) if line.startswith("{") else {}
        if isinstance(found.get(topic), dict):
            return {int(partition): offset for partition, offset in found[topic].items()}
    return {}


def bound_completeness(newest: int | None, unread: set[int], positions: Mapping[int, int]) -> int | None:
    """The time, unix seconds, up to which all windows are read; None when that is not known of any time.

    `newest`: the end of the newest final window of all; `unread`: partitions with unread records; `positions`: for each
    partition the end of the oldest final window that was read last from it. A partition holds its windows in order of
    time, but for repairs, so its unread records are no older than that.
    """
    if newest is None or not unread <= positions.keys():
        return None
    return min([newest, *(positions[partition] for partition in unread)])
