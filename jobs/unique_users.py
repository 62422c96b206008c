"""Unique users per minute: JSON events from a Kafka topic, counts to another.

    spark-submit jobs/unique_users.py --bootstrap-servers localhost:9092 --input-topic in --output-topic out

In:  {"ts": 1468244384, "uid": "ed90…", …}       `ts` unix seconds, a number or a string of digits
Out: key 2016-07-11T13:39:00Z
     {"window_start":"2016-07-11T13:39:00Z","window_end":"2016-07-11T13:40:00Z","unique_users":16193,"events":18977,
      "counter":"approx_count_distinct","relative_error":0.0173,"final":true}
"""

from __future__ import annotations

import json
import logging
import math
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import Observation, functions
from uniques.accounting import Ledger, resume_ledger
from uniques.backfill import Journal, count_pieces, describe_time, stage_events
from uniques.checkpoint import check_parameters, explained_damage, keep_text, query_location
from uniques.clients import GroupCommitter, check_rights, find_topic_id
from uniques.counts import COUNTERS, Counter, count_unique_users, make_records, observe_counts
from uniques.decode import send_decoder
from uniques.events import TS_UNITS, accept_events, limit_events, observe_events, parse_events, reject_events
from uniques.files import open_input, print_values, read_lines, stream_lines
from uniques.idle import IdleCloser, read_punctuation, write_punctuation
from uniques.kafka import (
    address_records,
    check_connector,
    check_topic,
    make_reject_records,
    read_topic,
    write_topic,
    write_topic_once,
)
from uniques.lifecycle import UsageError, explained_failures, run_job, run_until_stopped
from uniques.options import (
    OneLineParser,
    add_kafka_options,
    add_metrics_option,
    cluster_of,
    duration,
    duration_or_off,
    group,
    instant,
    location,
    needed_packages,
    number,
    to_seconds,
    topic,
    trigger,
    whole_number,
)
from uniques.progress import ProgressListener
from uniques.sketches import MAX_LG_K, MIN_LG_K
from uniques.transactions import TransactionalWriter

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter
    from uniques.kafka import KafkaCluster
    from uniques.lifecycle import StopSignal

QUERY_NAME = "unique_users"
# How often --trigger available-now tries to close the last windows while new events keep arriving.
CLOSING_ROUNDS = 5

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

log = logging.getLogger("uniques")


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
        "--input",
        type=location,
        metavar="PATH",
        help="read a file or folder of JSON lines (.gz too), or - for standard input, instead of the topic, and end",
    )
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
    source.add_argument(
        "--backfill",
        action="store_true",
        help="count all that the topic, or --input, holds now, in batch and without a watermark, and end; killed, it "
        "goes on where it was (default: run as a stream)",
    )
    source.add_argument(
        "--json-parser",
        choices=("auto", "bytes", "spark"),
        default="auto",
        help="spark: from_json; bytes: the same events, read from their bytes by a Java function that the driver "
        "compiles; auto: bytes where Spark takes it, else spark (default: %(default)s)",
    )
    judging = parser.add_argument_group("which events count")
    judging.add_argument(
        "--start-time",
        type=instant,
        metavar="TIME",
        help="count only windows that start then or later: ISO 8601, UTC (default: any)",
    )
    judging.add_argument(
        "--end-time",
        type=instant,
        metavar="TIME",
        help="count only windows that end then or earlier; for --backfill and --input (default: any)",
    )
    judging.add_argument(
        "--ts-unit", choices=tuple(TS_UNITS), default="s", help="unit of ts in the events (default: %(default)s)"
    )
    judging.add_argument(
        "--max-future",
        type=duration_or_off(0),
        default="5 seconds",
        metavar="DURATION",
        help="how far ts may be ahead of the event's arrival in Kafka, or off (default: %(default)s)",
    )
    judging.add_argument(
        "--max-age",
        type=duration(1),
        metavar="DURATION",
        help="how far ts may be behind the event's arrival in Kafka (default: any)",
    )
    judging.add_argument(
        "--timestamp-guard",
        choices=("arrival", "neighbours"),
        default="arrival",
        help="arrival: only --max-future and --max-age; neighbours: reject also events far ahead of those around them "
        "in the partition, for history that was loaded lately; needs numpy and pyarrow (default: %(default)s)",
    )
    judging.add_argument(
        "--rejects-topic",
        type=topic,
        metavar="TOPIC",
        help="write every rejected event there, unchanged, with the reason and where it came from in headers; events "
        "are then read and parsed twice (default: they are only counted)",
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
        "--counter",
        choices=COUNTERS,
        default=COUNTERS[0],
        help="how users are counted; exact keeps every user of an open window in memory (default: %(default)s)",
    )
    counting.add_argument(
        "--rsd",
        type=number(0.005, 0.39),
        default=0.02,
        metavar="RATIO",
        help="of approx_count_distinct: relative standard deviation, at most; smaller is slower (default: %(default)s)",
    )
    counting.add_argument(
        "--sketch",
        action="store_true",
        help="add the window's HLL sketch to its record, for rollup_users.py and other tools (default: without)",
    )
    counting.add_argument(
        "--lg-k",
        type=whole_number(MIN_LG_K, MAX_LG_K),
        default=12,
        metavar="N",
        help="of hll_sketch and --sketch: 2^N registers, 2^N bytes, error 1.04 / sqrt(2^N) (default: %(default)s)",
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
    output.add_argument(
        "--exactly-once",
        action="store_true",
        help="write every batch in one Kafka transaction: consumers with isolation.level=read_committed see each "
        "result once, whatever was killed when (default: at least once)",
    )
    output.add_argument(
        "--output", choices=("-",), help="-: write the results to standard output, JSON lines, instead of the topic"
    )
    output.add_argument(
        "--summary", type=Path, metavar="FILE", help="at the end write there, as JSON, where every event went"
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
        "--idle-timeout",
        type=duration_or_off(1),
        metavar="DURATION",
        help="when no event has arrived for that long, close all open windows; off: only events close windows. "
        "available-now closes them at its end, unless off (default: as long as the window)",
    )
    running.add_argument(
        "--consumer-group",
        type=group,
        metavar="GROUP",
        help="commit what was read to this consumer group after every batch, so that Kafka's tools show the job's lag; "
        "the job never starts from there (default: none)",
    )
    add_metrics_option(running)
    running.add_argument(
        "--state-partitions",
        type=whole_number(1, 10_000),
        default=2,
        metavar="N",
        help="partitions of the state, fixed for the life of a checkpoint (default: %(default)s)",
    )
    return parser


def check_flags(args: argparse.Namespace) -> None:
    """Raises UsageError, one line, for flags that are right each by itself but not together."""
    window_seconds = to_seconds(args.window)
    for flag, time in (("--start-time", args.start_time), ("--end-time", args.end_time)):
        if time is not None and time % window_seconds:
            raise UsageError(f"{flag} {describe_time(time)} cuts a window of {args.window}: give the start of a window")
    if args.end_time is not None and args.input is None and not args.backfill:
        raise UsageError("--end-time is for --backfill and --input: a stream has no end")
    if None not in (args.start_time, args.end_time) and args.start_time >= args.end_time:
        raise UsageError(f"--end-time {describe_time(args.end_time)} is not after --start-time")
    if args.backfill and args.input == "-":
        raise UsageError("--backfill can't go on with standard input after a restart: leave it out, or give a file")
    if args.backfill and args.output_mode == "update":
        raise UsageError("--output-mode update is for a stream: --backfill writes one final record a window")
    if args.backfill and args.exactly_once:
        raise UsageError("--exactly-once is for a stream: --backfill may write a record again, equal under its key")
    if args.exactly_once and (args.input is not None or args.output == "-"):
        raise UsageError("--exactly-once: not allowed with --input or --output -: it is about topics")
    if args.rejects_topic and args.output == "-" and args.input is None:
        raise UsageError(
            f"--rejects-topic: {args.rejects_topic!r} is not allowed with --output - on a stream: give an "
            "--output-topic, or --input"
        )


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
        ledger = run_backfill(spark, args, cluster, stop)
    elif args.input is None:
        with explained_damage(spark, args.checkpoint_location):
            ledger = run_stream(spark, args, cluster, stop)
    else:
        ledger = run_bounded(spark, args, cluster)
    log.info("summary: %s", json.dumps(ledger.summary()))
    if args.summary:
        args.summary.write_text(json.dumps(ledger.summary()) + "\n")


def output_topic(args: argparse.Namespace) -> str | None:
    """The topic results go to, or None when they go to standard output."""
    return None if args.output == "-" else args.output_topic


def judge_events(records: DataFrame, args: argparse.Namespace) -> DataFrame:
    """Parses records and decides which are events that count, as the flags say; see `events.parse_events`."""
    max_future = None if args.max_future == "off" else args.max_future
    decode = choose_decoder(records.sparkSession, args)
    judged = parse_events(records, max_future, args.max_age, args.ts_unit, decode)
    if args.timestamp_guard == "neighbours":
        judged = load_guard()(judged, to_seconds(max_future) if max_future else None)
    if args.start_time is None and args.end_time is None:
        return judged
    return limit_events(judged, args.start_time, args.end_time)


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
        from uniques.metrics import serve_metrics
    return serve_metrics


def load_guard() -> Callable[[DataFrame, int | None], DataFrame]:
    """`guard.guard_events`; raises UsageError, one line, when what it needs is missing."""
    flag = "--timestamp-guard neighbours"
    if not hasattr(functions, "arrow_udf"):
        raise UsageError(f"{flag} needs Spark 4.1 or newer")
    with needed_packages(flag):
        from uniques.guard import guard_events
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
            # First the one that commits: when the ledger's listener has seen the end, so have both.
            listeners.insert(0, committer)
        if args.metrics_port:
            # After the ledger's, which it shows.
            listeners.append(stack.enter_context(load_metrics()(args.metrics_port, listener)))
        for each in listeners:
            spark.streams.addListener(each)
            stack.callback(spark.streams.removeListener, each)
        stack.callback(listener.wait_until_ended)
        yield


def run_stream(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> Ledger:
    """The pipeline from Kafka to its end."""
    location = args.checkpoint_location
    check_parameters(
        spark,
        location,
        fixed_parameters(args),
        IMPLIED_PARAMETERS,
        on_new=lambda: write_punctuation(spark, location, []),
    )
    topic_id = find_topic_id(spark, cluster, args.input_topic)
    if topic_id and keep_text(spark, location, "topic-id", topic_id) != topic_id:
        # Its offsets would be taken for those of the old one, and what is there skipped without a word.
        raise UsageError(
            f"--input-topic {args.input_topic}: the topic was deleted and made anew, or is another cluster's; take "
            "another --checkpoint-location, which starts with what there is"
        )
    counter = counter_of(args)
    judged = judge_events(read_events(spark, args, cluster), args)
    observed = observe_events(judged, to_seconds(args.window))
    events = accept_events(observed).unionByName(read_punctuation(spark, location))
    counts = observe_counts(count_unique_users(events, args.window, args.watermark, counter))
    records = make_records(counts, counter, final=args.output_mode == "append")
    transactions = None
    if args.output == "-":
        writer = records.writeStream.foreachBatch(print_values)
    else:
        addressed = address_records(records, args.output_topic)
        if args.rejects_topic:
            addressed = addressed.union(make_reject_records(reject_events(judged), args.rejects_topic))
        if args.exactly_once:
            transactions = TransactionalWriter(spark, cluster, args.output_topic, location, bool(args.rejects_topic))
            writer = addressed.writeStream.foreachBatch(transactions.write_batch)
        else:
            writer = write_topic(addressed, cluster)
    writer = (
        writer.queryName(QUERY_NAME).outputMode(args.output_mode).option("checkpointLocation", query_location(location))
    )
    listener = ProgressListener(resume_ledger(spark, query_location(location)))
    idle_seconds = None if args.idle_timeout == "off" else to_seconds(args.idle_timeout or args.window)
    closer = IdleCloser(spark, location, idle_seconds, to_seconds(args.watermark), listener)

    def watch(query: StreamingQuery) -> None:
        closer.close_when_idle(query)
        if transactions:
            transactions.keep_alive()

    with listen(spark, args, cluster, listener), transactions or nullcontext():
        if args.trigger == "available-now":
            work_off(writer.trigger(availableNow=True), closer, idle_seconds is not None, stop)
        else:
            run_until_stopped(listener.start(writer.trigger(processingTime=args.trigger)), stop, watch)
    return listener.ledger


def work_off(writer: DataStreamWriter, closer: IdleCloser, close: bool, stop: StopSignal) -> None:
    """Runs until everything that is there is read, and with `close` until all its windows are closed."""
    for round_ in range(CLOSING_ROUNDS):
        if round_:
            closer.close_windows()
        run_until_stopped(closer.listener.start(writer), stop)
        closer.listener.wait_until_ended()
        if stop.requested or not close or not closer.ledger.open:
            return
    # New events kept coming: their windows are not at their end.
    log.info("windows are left open: events kept arriving")


def make_results(counts: DataFrame, counter: Counter) -> DataFrame:
    """The final records of a static frame of counts; in one task, for order: results are few."""
    return make_records(counts, counter, final=True).coalesce(1).sortWithinPartitions("key")


def write_results(results: DataFrame, args: argparse.Namespace, cluster: KafkaCluster) -> None:
    """Writes the records of `make_results` where the flags say."""
    if args.output == "-":
        print_values(results, 0)
    else:
        write_topic_once(address_records(results, args.output_topic), cluster)


def run_bounded(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster) -> Ledger:
    """The same pipeline over files or standard input: no watermark, nothing late, all windows closed."""
    with open_input(args.input) as path:
        counter = counter_of(args)
        records = read_lines(spark, path)
        observation = Observation("events")
        judged = judge_events(records, args)
        observed = observe_events(judged, None, observation)
        counts = count_unique_users(accept_events(observed), args.window, args.watermark, counter)
        # Kept, because Kafka's sink never reports the observation of what it writes, and what is counted here is then
        # not counted again.
        results = make_results(counts, counter).persist()
        with explained_failures():
            results.count()
            write_results(results, args, cluster)
            if args.rejects_topic:
                write_topic_once(make_reject_records(reject_events(judged), args.rejects_topic), cluster)
    ledger = Ledger()
    ledger.add_batch(observation.get, watermark=math.inf)
    return ledger


def run_backfill(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> Ledger:
    """History: stages what the input holds now, in batches, then counts it, piece by piece; see `backfill`."""
    location = args.checkpoint_location
    check_parameters(spark, location, fixed_parameters(args), IMPLIED_PARAMETERS, on_new=lambda: None)
    ledger = Ledger()
    if Journal(spark, location).complete:
        log.info("this backfill is complete; to repeat it give another --checkpoint-location")
        return ledger
    records = read_events(spark, args, cluster) if args.input is None else stream_lines(spark, args.input)
    stage = stage_events(location)

    def work_batch(judged: DataFrame, batch: int) -> None:
        if args.rejects_topic:
            judged.persist()  # read, parsed and observed once
            write_topic_once(make_reject_records(reject_events(judged), args.rejects_topic), cluster)
        stage(accept_events(judged), batch)
        judged.unpersist()

    writer = observe_events(judge_events(records, args), None).writeStream.foreachBatch(work_batch)
    writer = writer.queryName(QUERY_NAME).option("checkpointLocation", query_location(location))
    listener = ProgressListener(ledger, bounded=True)
    with listen(spark, args, cluster, listener):
        run_until_stopped(listener.start(writer.trigger(availableNow=True)), stop)
    if stop.requested:
        return ledger
    counter = counter_of(args)

    def count(events: DataFrame) -> None:
        counts = count_unique_users(events, args.window, args.watermark, counter)
        write_results(make_results(counts, counter), args, cluster)

    with explained_failures():
        count_pieces(spark, location, to_seconds(args.window), count, lambda: stop.requested)
    return ledger


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.lifecycle`)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        check_flags(args)
    except UsageError as error:
        parser.error(str(error))
    cluster = cluster_of(parser, args)

    run_job(QUERY_NAME, args.state_partitions, lambda spark, stop: run(spark, args, cluster, stop))


if __name__ == "__main__":
    main()
