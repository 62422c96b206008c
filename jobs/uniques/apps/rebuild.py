"""Makes the rollups table anew from the minutes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques.apps.rollup_tables import TIMEZONE, WEEK_START, Tables, read_kept_from
from uniques.apps.rollup_updater import period_is_over
from uniques.core.rollups import ROLLUPS_SCHEMA, unite_all
from uniques.errors import UsageError
from uniques.tables import merge_rows, set_property

if TYPE_CHECKING:
    from uniques.apps.rollup_topic import RollupTopic

log = logging.getLogger("uniques")


def rebuild(spark: SparkSession, tables: Tables, topic: RollupTopic | None) -> None:
    """Makes the rollups table anew from the minutes, in the calendar of `tables`, and publishes all its rows."""
    opened = tables.minutes.open(spark)
    if read_kept_from(opened) is not None:
        raise UsageError("--rebuild needs all minutes, and some were removed by --minutes-retention")
    minutes = opened.toDF()
    rows = unite_all(minutes, tables.calendar).withColumn("final", period_is_over(minutes)).persist()
    table = tables.rollups.create(spark, ROLLUPS_SCHEMA, {}, partition=["period"])
    for name, value in ((TIMEZONE, tables.calendar.timezone), (WEEK_START, tables.calendar.week_start)):
        set_property(spark, tables.rollups, name, value)
    table.delete()
    merge_rows(table, rows, ["period", "period_start"], F.lit(True), F.lit(True))
    if topic:
        topic.publish(rows, tables.calendar)
    log.info("rebuilt %s rows of %s", rows.count(), tables.rollups.describe())
    rows.unpersist()
