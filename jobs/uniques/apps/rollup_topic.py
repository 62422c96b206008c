"""The topic that gets every changed row of the rollups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniques.core.rollups import make_rollup_records
from uniques.kafka.records import add_topic
from uniques.kafka.topics import write_topic_once

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from uniques.core.calendar import Calendar
    from uniques.kafka.properties import KafkaCluster


@dataclass(frozen=True)
class RollupTopic:
    """The topic `name` of a cluster. The last record of a key holds, as in a compacted topic."""

    cluster: KafkaCluster
    name: str

    def publish(self, rows: DataFrame, calendar: Calendar) -> None:
        """Writes rows of ROLLUPS_SCHEMA, in order of time, smaller periods first."""
        records = make_rollup_records(rows.orderBy("period_end", "period_start"), calendar)
        write_topic_once(add_topic(records.coalesce(1), self.name), self.cluster)
