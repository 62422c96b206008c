"""Where the partitions of the input are: how far the query has read them, and whether more is there."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from uniques.core.observation import MAX_PARTITIONS, code_topic, read_position
from uniques.errors import JobError
from uniques.state.accounting import read_bins
from uniques.state.checkpoint import Plan, last_batch, query_location, read_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from uniques.kafka.partitions import TopicEnds
    from uniques.kafka.subscription import Partition


class InputPartitions:
    """The partitions of the topics that a query reads; `plan` is its last batch."""

    def __init__(
        self, spark: SparkSession, location: str, topics: Sequence[str], ends: TopicEnds, max_offsets_per_trigger: int
    ) -> None:
        """Goes on where the checkpoint at `location` ends. `topics` are those of `observation.observe_events`."""
        self._spark = spark
        self._query = query_location(location)
        self._topics = topics
        self._ends = ends
        self._limit = max_offsets_per_trigger
        last = last_batch(spark, f"{self._query}/commits")
        self.plan = read_plan(spark, self._query, last) if last >= 0 else Plan(0.0, {})
        self.is_between_batches = last_batch(spark, f"{self._query}/offsets") == last

    def advance(self, batch: int) -> list[Partition]:
        """Takes over the plan of the next batch; returns the partitions that had more records than it takes.

        None in a batch below the limit.
        """
        plan, before = read_plan(self._spark, self._query, batch), self.plan.offsets
        self.plan = plan
        advance = sum(offset - before.get(partition, 0) for partition, offset in plan.offsets.items())
        # Spark gives each partition its share of the limit, rounded down.
        if before and advance < self._limit - len(plan.offsets):
            return []
        return plan.list_unread(self._ends.read())

    def is_all_read(self) -> bool:
        """Whether Kafka says that nothing is left to read."""
        with suppress(JobError):  # while Kafka is away nobody can say that nothing is left
            return not self.plan.list_unread(self._ends.read())
        return False

    def find_positions(self, bins: str) -> dict[tuple[Partition, float], int]:
        """How many events of a batch each partition had at which time, from the observation `positions`."""
        places: dict[tuple[int, int], list[Partition]] = {}
        for topic, partition in self.plan.offsets:
            place = code_topic(topic, self._topics), partition % MAX_PARTITIONS
            places.setdefault(place, []).append((topic, partition))
        found = {}
        for x, number in read_bins(bins):
            code, partition, time = read_position(x)
            partitions = places.get((code, partition), [])
            if len(partitions) == 1:  # else nobody knows which; without a position it holds progress back
                found[partitions[0], time] = number
        return found

    def describe(self, partition: Partition) -> str:
        """The name of a partition, with its topic where there are several."""
        several = len({topic for topic, _ in self.plan.offsets}) > 1
        return f"{partition[1]} of topic {partition[0]}" if several else str(partition[1])
