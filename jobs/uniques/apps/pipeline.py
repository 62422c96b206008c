"""What the modes of the main job share: the steps of its pipeline, made from its settings."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from uniques.apps.formats import read_format
from uniques.apps.shared_flags import needed_packages
from uniques.core.calendar import check_zone
from uniques.core.counts import count_unique_users, make_records
from uniques.core.events import limit_events, parse_events
from uniques.core.formats import restore_values
from uniques.decoder import send_decoder
from uniques.errors import UsageError
from uniques.filters import read_filter
from uniques.grouping import send_grouper
from uniques.kafka.consumer_group import GroupCommitter
from uniques.kafka.reading import plan_reading
from uniques.kafka.records import add_topic
from uniques.kafka.topics import read_topic, write_topic_once
from uniques.local_io import print_values
from uniques.runtime.listener import add_listeners
from uniques.runtime.session import changed_setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener

    from uniques.apps.count_settings import CountSettings, EventSettings, OutputSettings
    from uniques.core.counts import Counter
    from uniques.core.fields import EventShape
    from uniques.kafka.admin import TopicDescription
    from uniques.kafka.properties import KafkaCluster
    from uniques.runtime.listener import ProgressListener

log = logging.getLogger("uniques")


def read_events(spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription]) -> DataFrame:
    """The input topics, as Kafka describes them, as a stream.

    It starts with the first record that can hold an event after `start_time`.
    """
    start, max_future = settings.events.start_time, settings.events.max_future_seconds
    # An event that counts arrived `max_future` before its time at the earliest.
    from_time = None if start is None or max_future is None else start - max_future
    source = settings.source
    partitions = sum(topic.partitions for topic in topics.values())
    with_headers = settings.output.rejects_topic is not None or uses_headers(find_shape(spark, settings.events))
    reading = plan_reading(spark, partitions or None, source.read_tasks)
    return read_topic(
        spark,
        settings.cluster,
        source.subscription,
        source.starting_offsets,
        source.max_offsets_per_trigger,
        from_time,
        with_headers=with_headers,
        reading=reading,
    )


def validate_events(records: DataFrame, events: EventSettings) -> DataFrame:
    """Parses records and decides which are events that count; see `events.parse_events`."""
    spark = records.sparkSession
    shape = find_shape(spark, events)
    decode = choose_decoder(spark, events)
    # A text that is no number is null in a condition, and ends no query.
    with changed_setting(spark, "spark.sql.ansi.enabled", "false"):
        texts = records if events.format.is_plain else read_format(records, events.format)
        validated = parse_events(texts, events.max_future_seconds, events.max_age_seconds, shape, decode)
    if not events.format.is_plain:
        validated = restore_values(validated)
    if events.start_time is None and events.end_time is None:
        return validated
    return limit_events(validated, events.start_time, events.end_time)


def uses_headers(shape: EventShape) -> bool:
    """Whether a header of the record is part of the event."""
    return any(field.names[0] == "@header" for field in shape.record_fields)


def count_events(events: DataFrame, settings: CountSettings) -> DataFrame:
    """Counts users per window, and those of its groups; see `counts.count_unique_users`."""
    spark, counting = events.sparkSession, settings.counting
    grouper = send_grouper(spark, find_shape(spark, settings.events), counting.counter, counting.max_groups)
    return count_unique_users(events, counting.window_seconds, counting.counter, grouper, counting.slide_seconds)


@lru_cache
def find_shape(spark: SparkSession, events: EventSettings) -> EventShape:
    """The shape of events with its condition; raises UsageError, one line, when Spark can't use what was given."""
    shape = events.shape
    check_zone(spark, "--time-zone", shape.time_format.zone)
    check_pattern(spark, shape.time_format.pattern)
    if events.where is None:
        return shape
    with changed_setting(spark, "spark.sql.ansi.enabled", "false"):
        return replace(shape, where=read_filter(spark, events.where))


def check_pattern(spark: SparkSession, pattern: str | None) -> None:
    """Raises UsageError, one line, for a pattern of times that Spark does not know."""
    if pattern is None:
        return
    try:
        row = spark.sql("SELECT * FROM VALUES ('x') AS row(text)")
        row.select(F.try_to_timestamp("text", F.lit(pattern))).collect()
    except (PySparkException, Py4JError) as error:
        raise UsageError(
            f"--time-format {pattern!r} is no pattern of Spark's: give one such as 'dd/MMM/yyyy:HH:mm:ss Z'"
        ) from error


def choose_decoder(spark: SparkSession, events: EventSettings) -> Callable[[Column], Column] | None:
    """The fast parser of `decoder.send_decoder`; None when Spark's own parser reads all records.

    Raises UsageError, one line, when the fast parser is asked for and Spark does not take it.
    """
    if events.json_parser == "spark":
        return None
    try:
        return send_decoder(spark, find_shape(spark, events))
    except UsageError:
        if events.json_parser == "bytes":
            raise
        log.info("json parser: spark, because this Spark takes no Java function")
        return None


def load_metrics() -> Callable[[tuple[str, int], ProgressListener], AbstractContextManager[StreamingQueryListener]]:
    """`metrics.serve_metrics`; raises UsageError, one line, when the package it needs is missing."""
    with needed_packages("--metrics-port"):
        from uniques.runtime.metrics import serve_metrics
    return serve_metrics


@contextmanager
def listen(spark: SparkSession, settings: CountSettings, listener: ProgressListener) -> Iterator[None]:
    """While a query runs inside, calls the listener and those that the settings ask for."""
    running = settings.running
    with ExitStack() as stack:
        listeners: list[StreamingQueryListener] = []
        # Register the committer first: Spark calls listeners in order, and the end waits for the progress listener.
        if running.consumer_group:
            committer = GroupCommitter(spark, settings.cluster, running.consumer_group)
            stack.callback(committer.close)
            listeners.append(committer)
        listeners.append(listener)
        # The metrics show the accounting of the progress listener, so they come after it.
        if running.metrics_address:
            listeners.append(stack.enter_context(load_metrics()(running.metrics_address, listener)))
        stack.enter_context(add_listeners(spark, listeners))
        stack.callback(listener.wait_until_ended)
        yield


def make_results(counts: DataFrame, counter: Counter, revision: int) -> DataFrame:
    """The final records of a static frame of counts, in order; in one task, because results are few."""
    return make_records(counts, counter, final=True, revision=revision).coalesce(1).sortWithinPartitions("key")


def write_results(results: DataFrame, output: OutputSettings, cluster: KafkaCluster) -> None:
    """Writes the records of `make_results` to the output topic, or to standard output."""
    if output.topic is None:
        print_values(results, 0)
    else:
        write_topic_once(add_topic(results, output.topic), cluster)
