"""The main job: counts a stream, a bounded input or history, and says at the end where every event went."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from uniques.apps.backfill import run_backfill
from uniques.apps.bounded import run_bounded
from uniques.apps.count_flags import QUERY_NAME, make_parser
from uniques.apps.count_settings import check_record_fields, make_settings
from uniques.apps.formats import open_registry, prepare_format
from uniques.apps.hints import explain_rejects
from uniques.apps.pipeline import choose_decoder, find_shape, load_metrics
from uniques.apps.shared_flags import cluster_of
from uniques.apps.stream import run_stream
from uniques.errors import UsageError
from uniques.kafka.admin import check_topics, list_topics
from uniques.kafka.connector import check_connector
from uniques.runtime.local_files import use_local_files
from uniques.runtime.object_store import use_store_files
from uniques.runtime.run import run_job
from uniques.state.checkpoint import report_damage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import SparkSession

    from uniques.apps.count_settings import CountSettings
    from uniques.kafka.admin import TopicDescription
    from uniques.runtime.signals import StopSignal
    from uniques.state.accounting import Accounting

log = logging.getLogger("uniques")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.errors`)."""
    settings = parse_settings(argv)
    run_job(QUERY_NAME, settings.running.state_partitions, lambda spark, stop: run(spark, settings, stop))


def parse_settings(argv: Sequence[str] | None = None) -> CountSettings:
    """The settings that the flags say; ends with one line and status 2 when they can't be used here."""
    parser = make_parser()
    args = parser.parse_args(argv)
    cluster = cluster_of(parser, args)
    try:
        settings = make_settings(args, cluster)
        check_packages(settings)
    except UsageError as error:
        parser.error(str(error))
    return settings


def run(spark: SparkSession, settings: CountSettings, stop: StopSignal) -> None:
    """Counts the input, then says where every event went, and why if most were rejected."""
    check_record_fields(settings, find_shape(spark, settings.events))  # fails here rather than in the first batch
    if settings.events.json_parser == "bytes":
        choose_decoder(spark, settings.events)
    topics = describe_topics(spark, settings)
    prepare_format(spark, settings.events.format, topics)
    accounting = run_mode(spark, settings, topics, stop)
    summary = json.dumps(accounting.summary())
    log.info("summary: %s", summary)
    if settings.output.summary:
        settings.output.summary.write_text(summary + "\n")
    hint = explain_rejects(accounting)
    if hint:
        log.warning("warning: %s", hint)


def run_mode(
    spark: SparkSession, settings: CountSettings, topics: Mapping[str, TopicDescription], stop: StopSignal
) -> Accounting:
    """Runs as a backfill, over a bounded input, or as a stream from the topics that are described."""
    if settings.source.path is not None and not settings.running.backfill:
        return run_bounded(spark, settings)
    use_local_files(spark, settings.running.checkpoint_location)
    use_store_files(spark, settings.running.checkpoint_location)
    if settings.running.backfill:
        return run_backfill(spark, settings, topics, stop)
    with report_damage(spark, settings.running.checkpoint_location):
        return run_stream(spark, settings, topics, stop)


def check_packages(settings: CountSettings) -> None:
    """Raises UsageError, one line, when a setting needs a package that is not there."""
    if settings.running.metrics_address:
        load_metrics()
    if settings.events.format.needs_registry:
        open_registry(settings.events.format)


def describe_topics(spark: SparkSession, settings: CountSettings) -> dict[str, TopicDescription]:
    """What Kafka says of the input topics; nothing without any, and without a JVM.

    Raises JobError, one line, when any topic is not there or the job may not use it.
    """
    output = settings.output
    rights = [(topic, "WRITE") for topic in (output.topic, output.rejects_topic) if topic]
    if settings.is_stream and output.exactly_once is not False and output.topic:
        rights.append((output.topic, "READ"))  # Kafka asks this of whoever commits offsets of a topic
    reads_topics = settings.source.path is None
    if not rights and not reads_topics:
        return {}
    check_connector(spark)
    inputs = list_topics(spark, settings.cluster, settings.source.subscription) if reads_topics else ()
    rights = [*((topic, "READ") for topic in inputs), *rights]
    topics = check_topics(spark, settings.cluster, rights)
    return {name: topics[name] for name in inputs if name in topics}
