"""The main job over history, in batch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.pipeline import (
    IMPLIED_PARAMETERS,
    counter_of,
    fixed_parameters,
    listen,
    make_results,
    read_events,
    validate_events,
    write_results,
)
from uniques.core.counts import count_unique_users
from uniques.core.events import accept_events, observe_events, reject_events
from uniques.kafka.records import make_reject_records
from uniques.kafka.topics import write_topic_once
from uniques.local_io import stream_lines
from uniques.runtime.failures import one_line_errors
from uniques.runtime.listener import ProgressListener
from uniques.runtime.run import run_until_stopped
from uniques.state.accounting import Accounting
from uniques.state.backfill import Journal, count_pieces, stage_events
from uniques.state.checkpoint import query_location
from uniques.state.manifest import check_parameters
from uniques.times import to_seconds

if TYPE_CHECKING:
    import argparse

    from pyspark.sql import DataFrame, SparkSession

    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


def run_backfill(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> Accounting:
    """History: stages what the input holds now, in batches, then counts it, piece by piece; see `backfill`."""
    location = args.checkpoint_location
    check_parameters(spark, location, fixed_parameters(args), IMPLIED_PARAMETERS, on_new=lambda: None)
    accounting = Accounting()
    if Journal(spark, location).complete:
        log.info("this backfill is complete; to repeat it give another --checkpoint-location")
        return accounting
    records = read_events(spark, args, cluster) if args.input is None else stream_lines(spark, args.input)
    stage = stage_events(location)

    def stage_batch(validated: DataFrame, batch: int) -> None:
        if args.rejects_topic:
            validated.persist()  # read, parsed and observed once
            write_topic_once(make_reject_records(reject_events(validated), args.rejects_topic), cluster)
        stage(accept_events(validated), batch)
        validated.unpersist()

    writer = observe_events(validate_events(records, args), None).writeStream.foreachBatch(stage_batch)
    writer = writer.queryName(QUERY_NAME).option("checkpointLocation", query_location(location))
    listener = ProgressListener(accounting, bounded=True)
    with listen(spark, args, cluster, listener):
        run_until_stopped(listener.start(writer.trigger(availableNow=True)), stop)
    if stop.requested:
        return accounting
    counter = counter_of(args)

    def count(events: DataFrame) -> None:
        counts = count_unique_users(events, args.window, args.watermark, counter)
        write_results(make_results(counts, counter), args, cluster)

    with one_line_errors():
        count_pieces(spark, location, to_seconds(args.window), count, lambda: stop.requested)
    return accounting
