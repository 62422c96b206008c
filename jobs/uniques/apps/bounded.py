"""The main job over files or standard input."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import Observation, SparkSession

from uniques.apps.pipeline import counter_of, make_results, validate_events, write_results
from uniques.core.counts import count_unique_users
from uniques.core.events import accept_events, observe_events, reject_events
from uniques.kafka.records import make_reject_records
from uniques.kafka.topics import write_topic_once
from uniques.local_io import open_input, read_lines
from uniques.runtime.failures import one_line_errors
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    import argparse

    from uniques.kafka.properties import KafkaCluster


def run_bounded(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster) -> Accounting:
    """The same pipeline over files or standard input: no watermark, nothing late, all windows closed."""
    with open_input(args.input) as path:
        counter = counter_of(args)
        records = read_lines(spark, path)
        observation = Observation("events")
        validated = validate_events(records, args)
        observed = observe_events(validated, None, observation)
        counts = count_unique_users(accept_events(observed), args.window, args.watermark, counter)
        # Kept, because Kafka's sink never reports the observation of what it writes, and what is counted here is then
        # not counted again.
        results = make_results(counts, counter).persist()
        with one_line_errors():
            results.count()
            write_results(results, args, cluster)
            if args.rejects_topic:
                write_topic_once(make_reject_records(reject_events(validated), args.rejects_topic), cluster)
    accounting = Accounting()
    accounting.add_batch(observation.get, watermark=math.inf)
    return accounting
