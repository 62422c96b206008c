"""Unique users per minute: JSON events from a Kafka topic, counts to another.

    spark-submit jobs/unique_users.py --bootstrap-servers localhost:9092 --input-topic in --output-topic out

In:  {"ts": 1468244384, "uid": "ed90…", …}       `ts` unix seconds, a number or a string of digits
Out: key 2016-07-11T13:39:00Z
     {"window_start":"2016-07-11T13:39:00Z","window_end":"2016-07-11T13:40:00Z","unique_users":16193,"events":18977,
      "counter":"approx_count_distinct","relative_error":0.0173,"final":true}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniques.checkpoint import check_parameters, query_location
from uniques.counts import count_unique_users, make_records
from uniques.events import accept_events, parse_events
from uniques.kafka import check_topic, read_topic, write_topic
from uniques.lifecycle import run_job, run_until_stopped
from uniques.options import (
    OneLineParser,
    add_kafka_options,
    cluster_of,
    duration,
    location,
    number,
    topic,
    trigger,
    whole_number,
)
from uniques.progress import ProgressListener

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from pyspark.sql import SparkSession
    from uniques.kafka import KafkaCluster
    from uniques.lifecycle import StopSignal

QUERY_NAME = "unique_users"


def make_parser() -> OneLineParser:
    """The job's flags."""
    parser = OneLineParser(
        prog=QUERY_NAME,
        description="Counts unique users per window of event time: JSON events from a Kafka topic, counts to another.",
        allow_abbrev=False,
    )
    add_kafka_options(parser)
    source = parser.add_argument_group("input")
    source.add_argument("--input-topic", type=topic, default="in", metavar="TOPIC", help="(default: %(default)s)")
    source.add_argument(
        "--starting-offsets",
        choices=("earliest", "latest"),
        default="earliest",
        help="where a new checkpoint starts in the input topic; an old one goes on where it was (default: %(default)s)",
    )
    source.add_argument(
        "--max-offsets-per-trigger",
        type=whole_number(1, 10**9),
        default=250_000,
        metavar="N",
        help="most events in one batch: bounds memory and time of a batch after an outage (default: %(default)s)",
    )
    counting = parser.add_argument_group("counting")
    counting.add_argument(
        "--window",
        type=duration(1),
        default="1 minute",
        metavar="DURATION",
        help="window size (default: %(default)s)",
    )
    counting.add_argument(
        "--watermark",
        type=duration(0),
        default="5 seconds",
        metavar="DURATION",
        help="how far behind the latest event time events may arrive; delays final results (default: %(default)s)",
    )
    counting.add_argument(
        "--rsd",
        type=number(0.005, 0.39),
        default=0.02,
        metavar="RATIO",
        help="relative standard deviation of the estimate, at most; smaller is slower (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output-topic", type=topic, default="out", metavar="TOPIC", help="(default: %(default)s)")
    output.add_argument(
        "--output-mode",
        choices=("append", "update"),
        default="append",
        help="append: one final record a window; update: the running count of a window after every batch that "
        "changed it, with final=false (default: %(default)s)",
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--checkpoint-location",
        type=location,
        default="checkpoint/unique_users",
        metavar="DIR",
        help="folder or URL (s3a:, abfss:, gs:, hdfs:, dbfs:) of the job's state; one per running job "
        "(default: %(default)s)",
    )
    running.add_argument(
        "--trigger",
        type=trigger,
        default="1 second",
        metavar="DURATION",
        help="start a batch this often, or available-now: work off what is there and end (default: %(default)s)",
    )
    running.add_argument(
        "--state-partitions",
        type=whole_number(1, 10_000),
        default=2,
        metavar="N",
        help="partitions of the state, fixed for the life of a checkpoint (default: %(default)s)",
    )
    return parser


def run(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> None:
    """The pipeline, from its checks to its end."""
    check_topic(spark, cluster, args.input_topic)
    check_topic(spark, cluster, args.output_topic)
    check_parameters(
        spark,
        args.checkpoint_location,
        {
            "--input-topic": args.input_topic,
            "--window": args.window,
            "--rsd": f"{args.rsd:g}",
            "--output-mode": args.output_mode,
            "--state-partitions": str(args.state_partitions),
        },
    )
    source = read_topic(spark, cluster, args.input_topic, args.starting_offsets, args.max_offsets_per_trigger)
    events = accept_events(parse_events(source))
    counts = count_unique_users(events, args.window, args.watermark, args.rsd)
    records = make_records(counts, args.rsd, final=args.output_mode == "append")
    writer = (
        write_topic(records, cluster, args.output_topic)
        .queryName(QUERY_NAME)
        .outputMode(args.output_mode)
        .option("checkpointLocation", query_location(args.checkpoint_location))
    )
    if args.trigger == "available-now":
        writer = writer.trigger(availableNow=True)
    else:
        writer = writer.trigger(processingTime=args.trigger)
    listener = ProgressListener()
    spark.streams.addListener(listener)
    try:
        run_until_stopped(writer.start(), stop)
    finally:
        spark.streams.removeListener(listener)


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.lifecycle`)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    cluster = cluster_of(parser, args)

    run_job(QUERY_NAME, args.state_partitions, lambda spark, stop: run(spark, args, cluster, stop))


if __name__ == "__main__":
    main()
