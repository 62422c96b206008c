"""The second job: keeps both tables up to date, answers questions, mends the tables."""

from __future__ import annotations

import json
import logging
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques.apps.ranges import answer_range, show_tables
from uniques.apps.rebuild import rebuild
from uniques.apps.rollup_flags import QUERY_NAME, make_parser
from uniques.apps.rollup_tables import Tables, create_tables, read_calendar, tables_of
from uniques.apps.rollup_updater import RollupUpdater
from uniques.apps.shared_flags import cluster_of, needed_packages
from uniques.core.rollups import PERIODS
from uniques.errors import UsageError
from uniques.kafka.connector import check_connector
from uniques.kafka.topics import check_topic, read_topic
from uniques.runtime.failures import one_line_errors
from uniques.runtime.listener import LagListener
from uniques.runtime.run import run_job, run_until_stopped
from uniques.state.checkpoint import query_location
from uniques.state.manifest import check_parameters

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql.streaming.listener import StreamingQueryListener

    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


STATE_PARTITIONS = 2  # there is no state; partitions of small shuffles
DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Delta replays a table's log in 50 tasks unless told otherwise: seconds, for logs as small as these.
    "spark.databricks.delta.snapshotPartitions": "2",
}


def run(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> None:
    """Answers a question, mends the tables, or keeps them up to date."""
    if args.metrics_port:
        load_metrics()  # what it needs is missed before anything starts
    tables = tables_of(args)
    if args.between or args.show is not None:
        tables = read_calendar(spark, tables)
    with one_line_errors():
        if args.between:
            print(json.dumps(answer_range(spark, tables, args.between, args.and_between)), flush=True)
        elif args.show is not None:
            show_tables(spark, tables, args.show or list(PERIODS))
        elif args.rebuild:
            check_zone(spark, args.timezone)
            rebuild(spark, tables, cluster, args.rollup_topic)
        else:
            run_stream(spark, args, tables, cluster, stop)


def check_zone(spark: SparkSession, zone: str) -> None:
    """Raises UsageError, one line, for a zone that Spark does not know."""
    try:
        spark.range(1).select(F.from_utc_timestamp(F.current_timestamp(), zone)).collect()
    except PySparkException as error:
        raise UsageError(f"--timezone {zone} is not known: give one such as UTC or Europe/Zurich") from error


def run_stream(
    spark: SparkSession, args: argparse.Namespace, tables: Tables, cluster: KafkaCluster, stop: StopSignal
) -> None:
    """Keeps the tables up to date with the topic, as a stream or until all that is there is read."""
    check_zone(spark, args.timezone)
    check_connector(spark)
    topics = [args.input_topic] if args.rollup_topic == "off" else [args.input_topic, args.rollup_topic]
    for name in topics:
        check_topic(spark, cluster, name)
    check_parameters(
        spark,
        args.checkpoint_location,
        {
            "--input-topic": args.input_topic,
            # In other tables the records that are read already would be missing.
            "--minutes-table": args.minutes_table,
            "--rollups-table": args.rollups_table,
        },
        {},
        on_new=lambda: None,
    )
    create_tables(spark, tables)
    updater = RollupUpdater(args, tables, cluster)
    records = read_topic(spark, cluster, args.input_topic, "earliest", args.max_offsets_per_trigger)
    writer = records.writeStream.foreachBatch(updater.update).queryName(QUERY_NAME)
    writer = writer.option("checkpointLocation", query_location(args.checkpoint_location))
    now = args.trigger == "available-now"
    query = writer.trigger(availableNow=True) if now else writer.trigger(processingTime=f"{args.trigger} milliseconds")
    with ExitStack() as stack:
        listeners: list[StreamingQueryListener] = [LagListener(QUERY_NAME)]
        if args.metrics_port:
            listeners.append(stack.enter_context(load_metrics()(args.metrics_port, updater.totals)))
        for each in listeners:
            spark.streams.addListener(each)
            stack.callback(spark.streams.removeListener, each)
        started = query.start()
        log.info("started query %s, run %s", started.name, started.runId)
        run_until_stopped(started, stop)
    log.info("summary: %s", json.dumps(updater.totals))


def load_metrics() -> Callable[[tuple[str, int], Mapping[str, int]], AbstractContextManager[StreamingQueryListener]]:
    """`metrics.serve_rollup_metrics`; raises UsageError, one line, when what it needs is missing."""
    with needed_packages("--metrics-port"):
        from uniques.runtime.metrics import serve_rollup_metrics
    return serve_rollup_metrics


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.errors`)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    cluster = cluster_of(parser, args)
    questions = {"--between": args.between, "--show": args.show is not None, "--rebuild": args.rebuild}
    asked = [flag for flag, given in questions.items() if given]
    if len(asked) > 1:
        parser.error(f"{' and '.join(asked)}: give one of them")
    if args.and_between and not args.between:
        parser.error("--and needs --between")
    run_job(QUERY_NAME, STATE_PARTITIONS, lambda spark, stop: run(spark, args, cluster, stop), DELTA_SETTINGS)
