"""The stream where Python reaches no JVM, as under Spark Connect: a plainer way, without corrections.

Spark's own watermark closes windows, `--allowed-lateness` behind the newest event, and Spark's sink writes each once it
is closed, at least once. Nothing is late that would not be late otherwise; results come later.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from uniques.apps.count_flags import QUERY_NAME
from uniques.apps.pipeline import count_events, listen, read_events, validate_events
from uniques.core.counts import make_records, observe_counts
from uniques.core.events import accept_events, reject_events
from uniques.core.observation import observe_events
from uniques.errors import UsageError
from uniques.kafka.records import add_topic, make_reject_records
from uniques.kafka.topics import write_topic
from uniques.local_io import print_values
from uniques.runtime.listener import ProgressListener, Published, span_offsets
from uniques.runtime.run import run_until_stopped
from uniques.state.accounting import Accounting, WatermarkAccounting
from uniques.state.checkpoint import query_location
from uniques.state.punctuation import read_punctuation, write_punctuation
from uniques.times import describe_duration, parse_progress_time, to_interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryProgress
    from pyspark.sql.streaming.readwriter import DataStreamWriter

    from uniques.apps.count_settings import CountSettings
    from uniques.kafka.admin import TopicDescription
    from uniques.runtime.signals import StopSignal

log = logging.getLogger("uniques")


class ClosedWindows:
    """Adds the batches of the query to the accounting of a watermark."""

    def __init__(self) -> None:
        """See `listener.Follower`."""
        self.accounting = WatermarkAccounting()

    def add_batch(self, progress: StreamingQueryProgress) -> Published:
        """Adds a batch, and the windows that Spark closed in it."""
        observed, results = (progress.observedMetrics.get(name) for name in ("events", "results"))
        watermark = parse_progress_time(progress.eventTime.get("watermark"))
        if observed is None:
            self.accounting.close_windows(watermark)
        else:
            self.accounting.add_batch(observed, watermark, span_offsets(progress))
        return Published(results["rows"] if results else 0, watermark, self.accounting.open_windows)


def run_plain_stream(
    spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription], stop: StopSignal
) -> Accounting:
    """Counts the input topic as a stream; returns where the events of this run went."""
    counting, output, running = settings.counting, settings.output, settings.running
    if output.exactly_once or output.mode == "update":
        flag = "--delivery exactly-once" if output.exactly_once else "--output-mode update"
        raise UsageError(f"{flag} needs a classic Spark driver: Spark Connect gives no access to Kafka's client")
    log.info(
        "without a classic driver a window is written %s after its end (--allowed-lateness), once, at least once, and "
        "is not corrected",
        describe_duration(counting.keep_seconds),
    )
    follower = ClosedWindows()
    listener = ProgressListener(follower)
    writer = make_writer(spark, settings, topics)
    with listen(spark, settings, listener):
        if running.trigger_milliseconds is not None:
            trigger = f"{running.trigger_milliseconds} milliseconds"
            run_until_stopped(listener.start(writer.trigger(processingTime=trigger)), stop)
            return follower.accounting
        began = int(time.time())
        run_until_stopped(listener.start(writer.trigger(availableNow=True)), stop)
        listener.wait_until_ended()
        if running.idle_seconds is not None and follower.accounting.open and not stop.requested:
            # What ended longer ago is complete, as far as the clock says.
            write_punctuation(spark, running.checkpoint_location, [began])
            run_until_stopped(listener.start(writer.trigger(availableNow=True)), stop)
    return follower.accounting


def make_writer(
    spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription]
) -> DataStreamWriter:
    """A writer, not yet started, of the windows that close, with the rejected events beside them."""
    counting, output, location = settings.counting, settings.output, settings.running.checkpoint_location
    validated = validate_events(read_events(spark, settings, topics), settings.events)
    events = accept_events(observe_events(validated, counting.window_seconds))
    events = events.unionByName(read_punctuation(spark, location))
    events = events.withWatermark("event_time", to_interval(counting.keep_seconds))
    counts = count_events(events, settings)
    records: DataFrame = make_records(observe_counts(counts), counting.counter, final=True, revision=0)
    if output.topic is None:
        writer = records.writeStream.foreachBatch(print_values)
    else:
        addressed = add_topic(records, output.topic)
        if output.rejects_topic:
            addressed = addressed.union(make_reject_records(reject_events(validated), output.rejects_topic))
        writer = write_topic(addressed, settings.cluster)
    return writer.queryName(QUERY_NAME).outputMode("append").option("checkpointLocation", query_location(location))
