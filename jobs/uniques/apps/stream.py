"""The main job as a stream: from one Kafka topic to another, until it is stopped or all is read."""

from __future__ import annotations

import logging
import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.count_settings import IMPLIED_PARAMETERS, list_fixed_parameters
from uniques.apps.pipeline import listen, read_events, validate_events
from uniques.core.counts import count_unique_users, make_records, observe_counts
from uniques.core.events import accept_events, observe_events, reject_events
from uniques.errors import UsageError
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

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter

    from uniques.apps.count_settings import CountSettings
    from uniques.kafka.admin import TopicDescription
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")

# How often an available-now run tries to close the last windows while new events keep arriving.
CLOSING_ROUNDS = 5


def run_stream(
    spark: SparkSession, settings: CountSettings, source: TopicDescription | None, stop: StopSignal
) -> Accounting:
    """Counts the input topic, `source`, as a stream; returns where the events of this run went."""
    location, counting, running = settings.running.checkpoint_location, settings.counting, settings.running
    check_checkpoint(spark, settings, source.topic_id if source else None)

    validated = validate_events(read_events(spark, settings), settings.events)
    observed = observe_events(validated, counting.window_seconds)
    events = accept_events(observed).unionByName(read_punctuation(spark, location))
    counts = count_unique_users(events, counting.window_seconds, counting.watermark_seconds, counting.counter)
    final = settings.output.mode == "append"
    records = make_records(observe_counts(counts), counting.counter, final=final, revision=0)

    transactions = open_transactions(spark, settings) if settings.output.exactly_once else None
    writer = make_writer(records, validated, settings, transactions)
    writer = writer.outputMode(settings.output.mode).option("checkpointLocation", query_location(location))
    listener = ProgressListener(resume_accounting(spark, query_location(location)))
    closer = IdleCloser(spark, location, running.idle_seconds, counting.watermark_seconds, listener)

    def watch(query: StreamingQuery) -> None:
        closer.close_when_idle(query)
        if transactions:
            transactions.keep_alive()

    with listen(spark, settings, listener), transactions or nullcontext():
        if running.trigger_milliseconds is None:
            drain(writer.trigger(availableNow=True), closer, running.idle_seconds is not None, stop)
        else:
            trigger = f"{running.trigger_milliseconds} milliseconds"
            run_until_stopped(listener.start(writer.trigger(processingTime=trigger)), stop, watch)
    return listener.accounting


def check_checkpoint(spark: SparkSession, settings: CountSettings, topic_id: str | None) -> None:
    """Makes the files beside a new checkpoint, and raises UsageError, one line, when an old one does not fit.

    `topic_id` is that of the input topic, None where it is not known.
    """
    location, topic = settings.running.checkpoint_location, settings.source.topic
    check_parameters(
        spark,
        location,
        list_fixed_parameters(settings),
        IMPLIED_PARAMETERS,
        on_new=lambda: write_punctuation(spark, location, []),
    )
    if topic_id and keep_line(spark, location, "topic-id", topic_id) != topic_id:
        # The saved offsets belong to the old topic; resuming would silently skip records of the new one.
        raise UsageError(
            f"--input-topic {topic}: the topic was deleted and created again, or is another cluster's; take another "
            "--checkpoint-location, which starts with what there is"
        )


def make_writer(
    records: DataFrame, validated: DataFrame, settings: CountSettings, transactions: TransactionalWriter | None
) -> DataStreamWriter:
    """A writer, not yet started, of the results to where the settings say, with the rejected events beside them."""
    output = settings.output
    if output.topic is None:
        return records.writeStream.foreachBatch(print_values).queryName(QUERY_NAME)
    addressed = add_topic(records, output.topic)
    if output.rejects_topic:
        addressed = addressed.union(make_reject_records(reject_events(validated), output.rejects_topic))
    if transactions:
        return addressed.writeStream.foreachBatch(transactions.write_batch).queryName(QUERY_NAME)
    return write_topic(addressed, settings.cluster).queryName(QUERY_NAME)


def open_transactions(spark: SparkSession, settings: CountSettings) -> TransactionalWriter:
    """The transactional writer of a checkpoint, under the name that is kept beside it."""
    location, output = settings.running.checkpoint_location, settings.output
    new_name = f"unique_users-{uuid.uuid4().hex}"
    name = keep_line(spark, location, "transactional-id", new_name)

    def check(mark: int | None) -> None:
        if name != new_name:
            check_mark(spark, location, mark)

    return TransactionalWriter(spark, settings.cluster, output.topic or "", name, check, bool(output.rejects_topic))


def drain(writer: DataStreamWriter, closer: IdleCloser, close: bool, stop: StopSignal) -> None:
    """Runs until everything that is there is read, and with `close` until all its windows are closed."""
    for round_ in range(CLOSING_ROUNDS):
        if round_:
            closer.close_windows()
        run_until_stopped(closer.listener.start(writer), stop)
        closer.listener.wait_until_ended()
        if stop.requested or not close or not closer.accounting.open:
            return
    log.info("windows are left open, because new events kept arriving")
