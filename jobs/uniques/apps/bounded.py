"""The main job over files or standard input: no watermark, no late events, all windows closed at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import Observation
from pyspark.sql import functions as F

from uniques.apps.pipeline import count_events, make_results, validate_events, write_results
from uniques.core.events import accept_events, reject_events
from uniques.core.observation import observe_events
from uniques.kafka.records import make_reject_records
from uniques.kafka.topics import write_topic_once
from uniques.local_io import open_input, read_lines
from uniques.runtime.failures import one_line_errors
from uniques.runtime.session import changed_setting
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pyspark.sql import SparkSession

    from uniques.apps.count_settings import CountSettings

EXCLUDED_RULES = "spark.sql.adaptive.optimizer.excludedRules"
# It replaces the plan of an empty result, and the observation then never comes.
EMPTY_RESULTS = "org.apache.spark.sql.execution.adaptive.AQEPropagateEmptyRelation"


def run_bounded(spark: SparkSession, settings: CountSettings) -> Accounting:
    """Counts what the input holds; returns where its events went."""
    counting, output = settings.counting, settings.output
    with open_input(settings.source.path or "") as path, empty_results_observed(spark), one_line_errors():
        observation = Observation("events")
        validated = validate_events(read_lines(spark, path), settings.events)
        observed = observe_events(validated, observation=observation)
        counts = count_events(accept_events(observed), settings)
        # Kept, because Kafka's sink never reports an observation, and so that nothing is counted twice.
        counts.persist()
        # Of hopping windows those that lie end to end have each event once.
        once = counts.where(F.unix_seconds("window_start") % counting.window_seconds == 0)
        counted = once.agg(F.coalesce(F.sum("events"), F.lit(0))).collect()[0][0]
        write_results(make_results(counts, counting.counter, revision=0), output, settings.cluster)
        if output.rejects_topic:
            write_topic_once(make_reject_records(reject_events(validated), output.rejects_topic), settings.cluster)
        counts.unpersist()
        observed_counts = observation.get
    accounting = Accounting()
    accounting.add_counted(observed_counts)
    accounting.check_counted(counted)
    return accounting


def empty_results_observed(spark: SparkSession) -> AbstractContextManager[None]:
    """Switches off, for what is done inside, the rule that drops the observation of an empty result."""
    before = spark.conf.get(EXCLUDED_RULES, None)
    return changed_setting(spark, EXCLUDED_RULES, f"{before},{EMPTY_RESULTS}" if before else EMPTY_RESULTS)
