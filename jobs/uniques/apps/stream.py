"""The main job as a stream."""

from __future__ import annotations

import logging
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.pipeline import (
    IMPLIED_PARAMETERS,
    counter_of,
    fixed_parameters,
    listen,
    read_events,
    validate_events,
)
from uniques.core.counts import count_unique_users, make_records, observe_counts
from uniques.core.events import accept_events, observe_events, reject_events
from uniques.errors import UsageError
from uniques.kafka.admin import find_topic_id
from uniques.kafka.exactly_once import TransactionalWriter
from uniques.kafka.records import add_topic, make_reject_records
from uniques.kafka.topics import write_topic
from uniques.local_io import print_values
from uniques.runtime.idle import IdleCloser
from uniques.runtime.listener import ProgressListener
from uniques.runtime.run import run_until_stopped
from uniques.state.accounting import Accounting, resume_accounting
from uniques.state.checkpoint import check_mark, query_location
from uniques.state.manifest import check_parameters
from uniques.state.punctuation import read_punctuation, write_punctuation
from uniques.state.sidecar import keep_line
from uniques.times import to_seconds

if TYPE_CHECKING:
    import argparse

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter

    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


# How often --trigger available-now tries to close the last windows while new events keep arriving.
CLOSING_ROUNDS = 5


def run_stream(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> Accounting:
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
    if topic_id and keep_line(spark, location, "topic-id", topic_id) != topic_id:
        # Its offsets would be taken for those of the old one, and what is there skipped without a word.
        raise UsageError(
            f"--input-topic {args.input_topic}: the topic was deleted and made anew, or is another cluster's; take "
            "another --checkpoint-location, which starts with what there is"
        )
    counter = counter_of(args)
    validated = validate_events(read_events(spark, args, cluster), args)
    observed = observe_events(validated, to_seconds(args.window))
    events = accept_events(observed).unionByName(read_punctuation(spark, location))
    counts = observe_counts(count_unique_users(events, args.window, args.watermark, counter))
    records = make_records(counts, counter, final=args.output_mode == "append")
    transactions = None
    if args.output == "-":
        writer = records.writeStream.foreachBatch(print_values)
    else:
        addressed = add_topic(records, args.output_topic)
        if args.rejects_topic:
            addressed = addressed.union(make_reject_records(reject_events(validated), args.rejects_topic))
        if args.exactly_once:
            transactions = open_transactions(spark, args, cluster)
            writer = addressed.writeStream.foreachBatch(transactions.write_batch)
        else:
            writer = write_topic(addressed, cluster)
    writer = (
        writer.queryName(QUERY_NAME).outputMode(args.output_mode).option("checkpointLocation", query_location(location))
    )
    listener = ProgressListener(resume_accounting(spark, query_location(location)))
    idle_seconds = None if args.idle_timeout == "off" else to_seconds(args.idle_timeout or args.window)
    closer = IdleCloser(spark, location, idle_seconds, to_seconds(args.watermark), listener)

    def watch(query: StreamingQuery) -> None:
        closer.close_when_idle(query)
        if transactions:
            transactions.keep_alive()

    with listen(spark, args, cluster, listener), transactions or nullcontext():
        if args.trigger == "available-now":
            drain(writer.trigger(availableNow=True), closer, idle_seconds is not None, stop)
        else:
            run_until_stopped(listener.start(writer.trigger(processingTime=args.trigger)), stop, watch)
    return listener.accounting


def open_transactions(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster) -> TransactionalWriter:
    """The transactional writer of a checkpoint, under the name that is kept beside it."""
    location = args.checkpoint_location
    new_name = f"unique_users-{uuid.uuid4().hex}"
    name = keep_line(spark, location, "transactional-id", new_name)

    def check(mark: int | None) -> None:
        if name != new_name:
            check_mark(spark, location, mark)

    return TransactionalWriter(spark, cluster, args.output_topic, name, check, bool(args.rejects_topic))


def drain(writer: DataStreamWriter, closer: IdleCloser, close: bool, stop: StopSignal) -> None:
    """Runs until everything that is there is read, and with `close` until all its windows are closed."""
    for round_ in range(CLOSING_ROUNDS):
        if round_:
            closer.close_windows()
        run_until_stopped(closer.listener.start(writer), stop)
        closer.listener.wait_until_ended()
        if stop.requested or not close or not closer.accounting.open:
            return
    # New events kept coming: their windows are not at their end.
    log.info("windows are left open: events kept arriving")
