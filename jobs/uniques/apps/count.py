"""The main job: counts a stream, a bounded input or history, and says where every event went."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from uniques.apps.backfill import run_backfill
from uniques.apps.bounded import run_bounded
from uniques.apps.count_flags import QUERY_NAME, check_flags, make_parser
from uniques.apps.pipeline import choose_decoder, load_guard, load_metrics, output_topic
from uniques.apps.shared_flags import cluster_of
from uniques.apps.stream import run_stream
from uniques.errors import UsageError
from uniques.kafka.admin import check_rights
from uniques.kafka.connector import check_connector
from uniques.kafka.topics import check_topic
from uniques.runtime.run import run_job
from uniques.state.checkpoint import report_damage

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


def run(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> None:
    """Counts a stream or a bounded input, and says at the end where every event went."""
    # What a flag needs is missed before anything starts.
    if args.timestamp_guard == "neighbours":
        load_guard()
    if args.metrics_port:
        load_metrics()
    if args.json_parser == "bytes":
        choose_decoder(spark, args)
    rights = [(args.input_topic, "READ")] if args.input is None else []
    rights += [(topic_name, "WRITE") for topic_name in (output_topic(args), args.rejects_topic) if topic_name]
    if args.exactly_once:
        rights.append((args.output_topic, "READ"))  # which Kafka asks of who commits offsets of a topic
    if rights:
        check_connector(spark)
        for topic_name in dict(rights):
            check_topic(spark, cluster, topic_name)
        check_rights(spark, cluster, rights)
    if args.backfill:
        accounting = run_backfill(spark, args, cluster, stop)
    elif args.input is None:
        with report_damage(spark, args.checkpoint_location):
            accounting = run_stream(spark, args, cluster, stop)
    else:
        accounting = run_bounded(spark, args, cluster)
    log.info("summary: %s", json.dumps(accounting.summary()))
    if args.summary:
        args.summary.write_text(json.dumps(accounting.summary()) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.errors`)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        check_flags(args)
    except UsageError as error:
        parser.error(str(error))
    cluster = cluster_of(parser, args)

    run_job(QUERY_NAME, args.state_partitions, lambda spark, stop: run(spark, args, cluster, stop))
