"""The topic that gets every changed row of the rollups."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.apps.rollup_tables import UNPUBLISHED, Tables
from uniques.core.choices import PERIODS
from uniques.core.rollups import make_rollup_records
from uniques.kafka.records import add_topic
from uniques.kafka.topics import CONSUMER_PROPERTIES, write_topic_once
from uniques.tables import read_properties, set_property

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from uniques.core.calendar import Calendar
    from uniques.kafka.properties import KafkaCluster

log = logging.getLogger("uniques")

# Keys of `make_rollup_records`: whatever else the topic may hold is left alone.
KEY = rf"^({'|'.join(PERIODS)}) [0-9]{{4,}}-[0-9]{{2}}-[0-9]{{2}}T[0-9:]{{8}}Z( \{{.*\}}( other)?)?$"


@dataclass(frozen=True)
class RollupTopic:
    """The topic `name` of a cluster. The last record of a key holds, as in a compacted topic."""

    cluster: KafkaCluster
    name: str

    def publish(self, rows: DataFrame, calendar: Calendar) -> None:
        """Writes rows of ROLLUPS_SCHEMA, in order of time, smaller periods first."""
        records = make_rollup_records(rows.orderBy("period_end", "period_start"), calendar)
        write_topic_once(add_topic(records.coalesce(1), self.name), self.cluster)

    def publish_pending(self, spark: SparkSession, tables: Tables) -> None:
        """Publishes rebuilt rollups and are not published yet, as after a kill; else does nothing.

        The keys of the topic that the table does not have any more get a tombstone, first. They are found in the topic
        itself, so it does not matter how often this was cut short.
        """
        table = tables.rollups.open(spark)
        if read_properties(table).get(UNPUBLISHED) != "true":
            return
        rows = table.toDF()
        keys = make_rollup_records(rows, tables.calendar).select("key")
        vanished = self._read_keys(spark).join(keys, "key", "left_anti").withColumn("value", F.lit(None).cast("string"))
        write_topic_once(add_topic(vanished.orderBy("key").coalesce(1), self.name), self.cluster)
        self.publish(rows, tables.calendar)
        set_property(spark, tables.rollups, UNPUBLISHED, "false")
        log.info("published all rows of %s to %s", tables.rollups.describe(), self.name)

    def _read_keys(self, spark: SparkSession) -> DataFrame:
        """The keys of this job in the topic whose last record is no tombstone, as `key` STRING."""
        records = (
            spark.read.format("kafka")
            .options(**self.cluster.options(CONSUMER_PROPERTIES))
            .option("subscribe", self.name)
            # Compaction and retention may remove records meanwhile.
            .option("failOnDataLoss", "false")
            .load()
        )
        last = F.max_by(F.col("value").isNotNull(), "offset").alias("held")
        keys = records.withColumn("key", F.col("key").cast("string")).where(F.col("key").rlike(KEY))
        return keys.groupBy("key", "partition").agg(last).where("held").select("key").distinct()
