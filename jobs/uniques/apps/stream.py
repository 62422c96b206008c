"""The main job as a stream: from one Kafka topic to another, until it is stopped or all is read."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.fixed_parameters import IMPLIED_PARAMETERS, list_fixed_parameters
from uniques.apps.formats import SchemaGuard, follow_schemas
from uniques.apps.input_partitions import InputPartitions
from uniques.apps.pipeline import count_events, listen, read_events, validate_events
from uniques.apps.plain_stream import run_plain_stream
from uniques.apps.publisher import Publisher
from uniques.core.counts import make_changes, set_watermark
from uniques.core.events import accept_events, reject_events
from uniques.core.observation import observe_events
from uniques.errors import JobError, UsageError
from uniques.jvm import jvm_of
from uniques.kafka.delivery import AtLeastOnceWriter, TransactionalWriter, Writer
from uniques.kafka.partitions import TopicEnds
from uniques.kafka.records import make_reject_records
from uniques.kafka.subscription import Subscription
from uniques.kafka.truncation import TruncationCheck
from uniques.local_io import PrintWriter
from uniques.runtime.gate import BatchGate
from uniques.runtime.listener import ProgressListener
from uniques.runtime.run import run_until_stopped
from uniques.runtime.session import changed_setting
from uniques.state.checkpoint import query_location
from uniques.state.manifest import PLAN, PLAN_VERSION, check_parameters, check_plan
from uniques.state.punctuation import read_punctuation, relocate_punctuation, write_punctuation
from uniques.state.sidecar import keep_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame, SparkSession

    from uniques.apps.count_settings import CountSettings
    from uniques.kafka.admin import TopicDescription
    from uniques.runtime.signals import StopSignal
    from uniques.state.accounting import Accounting

log = logging.getLogger("uniques")


def run_stream(
    spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription], stop: StopSignal
) -> Accounting:
    """Counts the input topics, as Kafka describes them, as a stream; returns where the events of this run went."""
    check_checkpoint(spark, settings, topics)
    for timestamp_type in sorted({topic.timestamp_type or "" for topic in topics.values()}):
        log.info("%s", describe_clock(timestamp_type))
    if jvm_of(spark) is None:
        return run_plain_stream(spark, settings, topics, stop)
    ends = TopicEnds(spark, settings.cluster, settings.source.subscription)
    truncation = TruncationCheck(ends)
    with closing(ends), closing(open_writer(spark, settings)) as output:
        milliseconds, began = settings.running.trigger_milliseconds, time.time()
        drain_to = ends.read() if milliseconds is None else None
        partitions = InputPartitions(
            spark,
            settings.running.checkpoint_location,
            list(topics),
            ends,
            settings.source.max_offsets_per_trigger,
        )
        publisher = Publisher(spark, settings, partitions, output, drain_to)

        def poll() -> None:
            truncation.check(partitions.plan.offsets)
            publisher.poll()

        if not publisher.gate.is_closed:
            follow_schemas(
                settings.events.format,
                lambda: run_query(spark, settings, count_changes(spark, settings, topics), publisher, poll, stop),
            )
        is_drained = drain_to is not None and not stop.requested and settings.running.idle_seconds is not None
        publisher.finish(began if is_drained else None)
    return publisher.accounting


def describe_clock(timestamp_type: str) -> str:
    """One line about whose clock the arrival times of topics are of, which --max-future and --max-age compare with."""
    clocks = {
        "LogAppendTime": "the broker's clock (message.timestamp.type=LogAppendTime)",
        "CreateTime": "the producers' clocks (message.timestamp.type=CreateTime): where one is ahead, its events pass "
        "--max-future, count in the windows they name, and close no others",
    }
    return f"arrival times are of {clocks.get(timestamp_type, 'a clock that Kafka does not tell')}"


def run_query(
    spark: SparkSession,
    settings: CountSettings,
    changes: DataFrame,
    publisher: Publisher,
    poll: Callable[[], None],
    stop: StopSignal,
) -> None:
    """Runs the query of `count_changes` until a stop is requested, or the publisher has all it waits for.

    Calls `poll` again and again meanwhile.
    """
    publisher.gate = BatchGate()  # a query before this one may have closed its own
    take = SchemaGuard(spark, settings.events.format).wrap(publisher.take_batch, publisher.gate)
    listener = ProgressListener(publisher)
    writer = changes.writeStream.foreachBatch(take).outputMode("update")
    # Spark's own available-now reads no punctuation that is written meanwhile, and would keep all windows.
    writer = writer.trigger(processingTime=f"{settings.running.trigger_milliseconds or 0} milliseconds")
    writer = writer.queryName(QUERY_NAME)
    writer = writer.option("checkpointLocation", query_location(settings.running.checkpoint_location))
    with listen(spark, settings, listener):
        # A watermark that moved needs no batch of its own: the next one forgets the windows.
        with changed_setting(spark, "spark.sql.streaming.noDataMicroBatches.enabled", "false"):
            query = listener.start(writer)
        try:
            run_until_stopped(query, stop, poll, publisher.gate)
        except JobError:
            publisher.raise_failure()  # says more than Spark's own error
            raise


def count_changes(spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription]) -> DataFrame:
    """The windows that each batch changes, as `counts.make_changes` gives them, with the rejected events beside them.

    Rows of rejected events have the columns of `records.make_reject_records`, and null in all others.
    """
    output = settings.output
    validated = validate_events(read_events(spark, settings, topics), settings.events)
    events = accept_events(observe_events(validated, topics=list(topics)))
    punctuation = read_punctuation(spark, settings.running.checkpoint_location)
    counts = count_events(set_watermark(events, punctuation), settings)
    changes = make_changes(counts)
    if output.rejects_topic:
        rejects = make_reject_records(reject_events(validated), output.rejects_topic)
        changes = changes.unionByName(rejects, allowMissingColumns=True)
    return changes


def check_checkpoint(spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription]) -> None:
    """Makes the files beside a new checkpoint, and raises UsageError, one line, when an old one does not fit.

    `topics` is what Kafka says of the input topics.
    """
    location, subscription = settings.running.checkpoint_location, settings.source.subscription
    check_plan(spark, location, settings.counting.window_seconds)
    check_parameters(
        spark,
        location,
        {PLAN: PLAN_VERSION, **list_fixed_parameters(settings)},
        IMPLIED_PARAMETERS,
        on_new=lambda: write_punctuation(spark, location, []),
    )
    relocate_punctuation(spark, location, query_location(location))
    for topic, described in topics.items():
        name = "topic-id" if subscription == Subscription((topic,)) else f"topic-id-{topic}"
        if not described.topic_id or keep_line(spark, location, name, described.topic_id) == described.topic_id:
            continue
        # The saved offsets belong to the old topic; resuming would silently skip records of the new one.
        raise UsageError(
            f"{subscription.flag} {topic}: the topic was deleted and created again, or is another cluster's; take "
            "another --checkpoint-location, which starts with what there is"
        )


def open_writer(spark: SparkSession, settings: CountSettings) -> Writer:
    """The writer of a checkpoint's records, to where the settings say."""
    output = settings.output
    if output.topic is None:
        return PrintWriter()
    if output.exactly_once is False:
        return AtLeastOnceWriter(spark, settings.cluster, output.topic)
    location = settings.running.checkpoint_location
    name = keep_line(spark, location, "transactional-id", f"unique_users-{uuid.uuid4().hex}")
    return TransactionalWriter(spark, settings.cluster, output.topic, name)
