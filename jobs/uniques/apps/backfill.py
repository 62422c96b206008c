"""The main job over history, in batch: stages the events that count, then counts them piece by piece."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.fixed_parameters import IMPLIED_PARAMETERS, list_fixed_parameters
from uniques.apps.formats import SchemaGuard, follow_schemas
from uniques.apps.pipeline import count_events, listen, make_results, read_events, validate_events, write_results
from uniques.core.events import accept_events, reject_events
from uniques.core.observation import observe_events
from uniques.kafka.records import make_reject_records
from uniques.kafka.topics import write_topic_once
from uniques.local_io import stream_lines
from uniques.runtime.failures import one_line_errors
from uniques.runtime.gate import BatchGate
from uniques.runtime.listener import ProgressListener, Published, span_offsets
from uniques.runtime.run import run_until_stopped
from uniques.state.accounting import Accounting
from uniques.state.backfill import Journal, count_pieces, delete_staged, keep_revision, stage_events
from uniques.state.checkpoint import query_location
from uniques.state.manifest import check_parameters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryProgress

    from uniques.apps.count_settings import CountSettings
    from uniques.kafka.admin import TopicDescription
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


class StagedBatches:
    """Adds the batches of the reading query to an accounting; whatever is staged will be counted."""

    def __init__(self, accounting: Accounting) -> None:
        """See `listener.Follower`."""
        self.accounting = accounting

    def add_batch(self, progress: StreamingQueryProgress) -> Published:
        """Adds a batch; nothing is published yet."""
        observed = progress.observedMetrics.get("events")
        if observed is not None:
            self.accounting.add_counted(observed, span_offsets(progress))
        return Published(0)


def run_backfill(
    spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription], stop: StopSignal
) -> Accounting:
    """Counts all that the input holds now; returns where the events of this run went."""
    location, counting = settings.running.checkpoint_location, settings.counting
    check_parameters(spark, location, list_fixed_parameters(settings), IMPLIED_PARAMETERS)
    accounting = Accounting()
    if Journal(spark, location).complete:
        log.info("this backfill is complete; to repeat it give another --checkpoint-location")
        return accounting
    revision = keep_revision(spark, location)
    records = (
        read_events(spark, settings, topics)
        if settings.source.path is None
        else stream_lines(spark, settings.source.path)
    )
    stage_input(settings, records, accounting, stop)
    if stop.requested:
        return accounting

    def count(events: DataFrame) -> None:
        counts = count_events(events, settings)
        write_results(make_results(counts, counting.counter, revision), settings.output, settings.cluster)

    dimensions = len(settings.events.shape.dimensions)
    with one_line_errors():
        complete = count_pieces(spark, location, counting.window_seconds, count, lambda: stop.requested, dimensions)
        if complete and not settings.running.keep_staged:
            delete_staged(spark, location)
    return accounting


def stage_input(settings: CountSettings, records: DataFrame, accounting: Accounting, stop: StopSignal) -> None:
    """Reads the records to their end, in batches, stages the events that count, and adds all to the accounting."""
    location, rejects_topic = settings.running.checkpoint_location, settings.output.rejects_topic
    stage = stage_events(location)

    guard = SchemaGuard(records.sparkSession, settings.events.format)

    def run() -> None:
        gate = BatchGate()

        def stage_batch(validated: DataFrame, batch: int) -> None:
            if rejects_topic:
                validated.persist()  # so that it is read, parsed and observed once
                guard.check(gate, validated)
                write_topic_once(make_reject_records(reject_events(validated), rejects_topic), settings.cluster)
            stage(accept_events(validated), batch)
            guard.check(gate)  # a batch that is done again is staged in place of the one before
            validated.unpersist()

        writer = observe_events(validate_events(records, settings.events)).writeStream.foreachBatch(stage_batch)
        writer = writer.queryName(QUERY_NAME).option("checkpointLocation", query_location(location))
        run_until_stopped(listener.start(writer.trigger(availableNow=True)), stop, gate=gate)

    listener = ProgressListener(StagedBatches(accounting), bounded=True)
    with listen(records.sparkSession, settings, listener):
        follow_schemas(settings.events.format, run)
