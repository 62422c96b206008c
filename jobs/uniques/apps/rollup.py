"""The rollup job: keeps both tables and the topic up to date, answers questions, or rebuilds the rollups."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from uniques.apps.ranges import answer_range, show_tables
from uniques.apps.rebuild import rebuild
from uniques.apps.rollup_flags import QUERY_NAME, make_parser
from uniques.apps.rollup_progress import UnreadPartitions
from uniques.apps.rollup_settings import Between, Rebuild, Show, make_settings
from uniques.apps.rollup_tables import create_tables, read_calendar
from uniques.apps.rollup_topic import RollupTopic
from uniques.apps.rollup_updater import RollupUpdater
from uniques.apps.shared_flags import cluster_of, needed_packages
from uniques.core.calendar import check_zone
from uniques.errors import UsageError
from uniques.kafka.admin import check_topics
from uniques.kafka.connector import check_connector
from uniques.kafka.subscription import Subscription
from uniques.kafka.topics import read_topic
from uniques.runtime.failures import one_line_errors
from uniques.runtime.listener import LagListener, add_listeners
from uniques.runtime.local_files import use_local_files
from uniques.runtime.object_store import guard_commits, use_store_files
from uniques.runtime.run import run_job, run_until_stopped
from uniques.state.checkpoint import query_location
from uniques.state.manifest import check_parameters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener

    from uniques.apps.rollup_settings import RollupSettings
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


STATE_PARTITIONS = 2  # the query has no state; these are the partitions of small shuffles
DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # By default Delta replays a table's log in 50 tasks, which takes seconds even for a small log.
    "spark.databricks.delta.snapshotPartitions": "2",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.errors`)."""
    settings = parse_settings(argv)
    run_job(QUERY_NAME, STATE_PARTITIONS, lambda spark, stop: run(spark, settings, stop), DELTA_SETTINGS)


def parse_settings(argv: Sequence[str] | None = None) -> RollupSettings:
    """The settings that the flags say; ends with one line and status 2 when they can't be used here."""
    parser = make_parser()
    args = parser.parse_args(argv)
    cluster = cluster_of(parser, args)
    try:
        settings = make_settings(args, cluster)
        if settings.running.metrics_address:
            load_metrics()
    except UsageError as error:
        parser.error(str(error))
    return settings


def run(spark: SparkSession, settings: RollupSettings, stop: StopSignal) -> None:
    """Answers a question, rebuilds the rollups, or keeps the tables up to date."""
    task = settings.task
    with one_line_errors():
        if isinstance(task, Between):
            print(json.dumps(answer_range(spark, read_calendar(spark, settings.tables), task)), flush=True)
        elif isinstance(task, Show):
            show_tables(spark, read_calendar(spark, settings.tables), task)
        else:
            check_zone(spark, "--timezone", settings.tables.calendar.timezone)
            tables = settings.tables
            guard_commits(spark, [table.place for table in (tables.minutes, tables.rollups) if table.is_path])
            topic = find_topic(spark, settings)
            if isinstance(task, Rebuild):
                rebuild(spark, settings.tables, topic)
            else:
                run_stream(spark, settings, topic, stop)


def find_topic(spark: SparkSession, settings: RollupSettings) -> RollupTopic | None:
    """The topic that gets the rollups, if any; raises JobError, one line, when a topic that the task needs is
    missing or may not be used.

    Rebuilding the rollups does not read the topic with the minutes.
    """
    rights = [] if settings.task else [(settings.source.topic, "READ")]
    rights += [(settings.topic, "WRITE")] if settings.topic else []
    if rights:
        check_connector(spark)
        check_topics(spark, settings.cluster, rights)
    return RollupTopic(settings.cluster, settings.topic) if settings.topic else None


def run_stream(spark: SparkSession, settings: RollupSettings, topic: RollupTopic | None, stop: StopSignal) -> None:
    """Keeps the tables up to date until it is stopped, or until all records that are there are read."""
    tables, source, running = settings.tables, settings.source, settings.running
    check_parameters(
        spark,
        running.checkpoint_location,
        {
            "--input-topic": source.topic,
            # Other tables would lack the windows that were read before.
            "--minutes-table": tables.minutes.describe(),
            "--rollups-table": tables.rollups.describe(),
        },
        {},
    )
    use_local_files(spark, running.checkpoint_location)
    use_store_files(spark, running.checkpoint_location)
    create_tables(spark, tables)
    if topic:
        topic.publish_pending(spark, tables)
    unread = UnreadPartitions(spark, settings)
    updater = RollupUpdater(tables, topic, settings.upkeep, unread.find)
    topics = Subscription((source.topic,))
    records = read_topic(spark, settings.cluster, topics, "earliest", source.max_offsets_per_trigger)
    writer = records.writeStream.foreachBatch(updater.update).queryName(QUERY_NAME)
    writer = writer.option("checkpointLocation", query_location(running.checkpoint_location))
    if running.trigger_milliseconds is None:
        writer = writer.trigger(availableNow=True)
    else:
        writer = writer.trigger(processingTime=f"{running.trigger_milliseconds} milliseconds")
    with ExitStack() as stack:
        stack.callback(unread.close)
        listeners: list[StreamingQueryListener] = [LagListener(QUERY_NAME)]
        if running.metrics_address:
            listeners.append(stack.enter_context(load_metrics()(running.metrics_address, updater.totals)))
        stack.enter_context(add_listeners(spark, listeners))
        started = writer.start()
        log.info("started query %s, run %s", started.name, started.runId)
        run_until_stopped(started, stop)
    log.info("summary: %s", json.dumps(updater.totals))


def load_metrics() -> Callable[[tuple[str, int], Mapping[str, int]], AbstractContextManager[StreamingQueryListener]]:
    """`metrics.serve_rollup_metrics`; raises UsageError, one line, when a package it needs is missing."""
    with needed_packages("--metrics-port"):
        from uniques.runtime.metrics import serve_rollup_metrics
    return serve_rollup_metrics
