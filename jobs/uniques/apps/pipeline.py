"""What the three modes of the main job share: from the flags to the parts of the pipeline."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame, SparkSession, functions

from uniques.apps.shared_flags import needed_packages
from uniques.core.counts import Counter, make_records
from uniques.core.events import limit_events, parse_events
from uniques.decoder import send_decoder
from uniques.errors import UsageError
from uniques.kafka.consumer_group import GroupCommitter
from uniques.kafka.records import add_topic
from uniques.kafka.topics import read_topic, write_topic_once
from uniques.local_io import print_values
from uniques.times import describe_time, to_seconds

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from pyspark.sql.streaming.listener import StreamingQueryListener

    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.listener import ProgressListener

log = logging.getLogger("uniques")


# What a checkpoint that says nothing about one of `fixed_parameters` was made with: a flag that a later release added
# gets its line here, with what the job did before.
IMPLIED_PARAMETERS = {
    "--backfill": "off",
    "--input": "none",
    "--start-time": "any",
    "--end-time": "any",
    "--counter": "approx_count_distinct",
    "--sketch": "off",
    "--lg-k": "any",
}


def output_topic(args: argparse.Namespace) -> str | None:
    """The topic results go to, or None when they go to standard output."""
    return None if args.output == "-" else args.output_topic


def validate_events(records: DataFrame, args: argparse.Namespace) -> DataFrame:
    """Parses records and decides which are events that count, as the flags say; see `events.parse_events`."""
    max_future = None if args.max_future == "off" else args.max_future
    decode = choose_decoder(records.sparkSession, args)
    validated = parse_events(records, max_future, args.max_age, args.ts_unit, decode)
    if args.timestamp_guard == "neighbours":
        validated = load_guard()(validated, to_seconds(max_future) if max_future else None)
    if args.start_time is None and args.end_time is None:
        return validated
    return limit_events(validated, args.start_time, args.end_time)


def counter_of(args: argparse.Namespace) -> Counter:
    """How users are counted, as the flags say."""
    return Counter(args.counter, args.rsd, args.lg_k, args.sketch)


def read_events(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster) -> DataFrame:
    """The input topic as a stream, from the first record that --start-time leaves to count."""
    from_time = None
    if args.start_time is not None and args.max_future != "off":
        # No event that counts arrived before: it would be ahead of its arrival by more than --max-future.
        from_time = args.start_time - to_seconds(args.max_future)
    return read_topic(spark, cluster, args.input_topic, args.starting_offsets, args.max_offsets_per_trigger, from_time)


def load_metrics() -> Callable[[tuple[str, int], ProgressListener], AbstractContextManager[StreamingQueryListener]]:
    """`metrics.serve_metrics`; raises UsageError, one line, when what it needs is missing."""
    with needed_packages("--metrics-port"):
        from uniques.runtime.metrics import serve_metrics
    return serve_metrics


def load_guard() -> Callable[[DataFrame, int | None], DataFrame]:
    """`guard.guard_events`; raises UsageError, one line, when what it needs is missing."""
    flag = "--timestamp-guard neighbours"
    if not hasattr(functions, "arrow_udf"):
        raise UsageError(f"{flag} needs Spark 4.1 or newer")
    with needed_packages(flag):
        from uniques.core.guard import guard_events
    return guard_events


def choose_decoder(spark: SparkSession, args: argparse.Namespace) -> Callable[[Column], Column] | None:
    """`decode.send_decoder`'s, or None when Spark's own parser reads all; raises UsageError, one line."""
    if args.json_parser == "spark":
        return None
    try:
        return send_decoder(spark, args.ts_unit)
    except UsageError:
        if args.json_parser == "bytes":
            raise
        log.info("json parser: spark, because this Spark takes no Java function")
        return None


def fixed_parameters(args: argparse.Namespace) -> dict[str, str]:
    """The flags that stay as they are for the life of a checkpoint: its state and its offsets are made with them."""
    sketched = args.sketch or args.counter == "hll_sketch"
    return {
        "--backfill": "on" if args.backfill else "off",
        "--input": args.input or "none",
        "--input-topic": args.input_topic,
        # A window before it was counted by somebody else, and would be overwritten by what came late.
        "--start-time": "any" if args.start_time is None else describe_time(args.start_time),
        "--end-time": "any" if args.end_time is None else describe_time(args.end_time),
        "--window": args.window,
        "--counter": args.counter,
        "--rsd": f"{args.rsd:g}" if args.counter == "approx_count_distinct" else "any",
        "--sketch": "on" if args.sketch else "off",
        # Spark would go on with it, and sketches of two sizes in the state end the query weeks later.
        "--lg-k": str(args.lg_k) if sketched else "any",
        "--output-mode": args.output_mode,
        "--state-partitions": str(args.state_partitions),
        # Spark takes the second reading of the topic for another source, which can't come or go.
        "--rejects-topic": "on" if args.rejects_topic else "off",
    }


@contextmanager
def listen(
    spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, listener: ProgressListener
) -> Iterator[None]:
    """Has the listener called while a query runs, and those that the flags ask for."""
    with ExitStack() as stack:
        listeners: list[StreamingQueryListener] = [listener]
        if args.consumer_group:
            committer = GroupCommitter(spark, cluster, args.consumer_group)
            stack.callback(committer.close)
            # First the one that commits: when the accounting's listener has seen the end, so have both.
            listeners.insert(0, committer)
        if args.metrics_port:
            # After the accounting's, which it shows.
            listeners.append(stack.enter_context(load_metrics()(args.metrics_port, listener)))
        for each in listeners:
            spark.streams.addListener(each)
            stack.callback(spark.streams.removeListener, each)
        stack.callback(listener.wait_until_ended)
        yield


def make_results(counts: DataFrame, counter: Counter) -> DataFrame:
    """The final records of a static frame of counts; in one task, for order: results are few."""
    return make_records(counts, counter, final=True).coalesce(1).sortWithinPartitions("key")


def write_results(results: DataFrame, args: argparse.Namespace, cluster: KafkaCluster) -> None:
    """Writes the records of `make_results` where the flags say."""
    if args.output == "-":
        print_values(results, 0)
    else:
        write_topic_once(add_topic(results, args.output_topic), cluster)
