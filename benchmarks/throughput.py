"""How many events a second the job works off, Kafka to Kafka, on this machine: `make bench ARGS=throughput`.

Starts an embedded Kafka, loads events of 2 kB, and in every round runs, one after the other: reading alone (Spark's
Kafka source with the job's fetch settings, values thrown away), the job's own pipeline, the same without the
comparison with the arrival time and without the accounting, and with `--rejects-topic`, all in one warm session, so
that the ratios hold where absolute figures vary. A run's rate leaves its first batch out.
"""

from __future__ import annotations

import tempfile
import uuid
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from report import make_table, save_bars, show_spread
from rows import alternate, ratios
from session import choose_memory, start_session
from uniques.core.counts import DEFAULT_COUNTER, Counter, count_unique_users, make_records
from uniques.core.events import accept_events, parse_events, reject_events
from uniques.core.observation import observe_events
from uniques.decoder import send_decoder
from uniques.kafka.offsets import count_records
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.records import add_topic, make_reject_records
from uniques.kafka.subscription import Subscription
from uniques.kafka.topics import read_topic, write_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter
    from rows import Recorder, Row

READ_ONLY, PARSED = "read only", "read, parsed, accounted for"
FROM_JSON = "--json-parser spark"
MAX_FUTURE_SECONDS = 5
SKETCH = Counter("hll_sketch")
DEFAULT, FAST = "job, default flags", "--counter hll_sketch"
# What the job must reach, of reading alone.
PROMISED = {DEFAULT: 0.30, FAST: 0.45}


def measure_rate(query: StreamingQuery) -> float:
    """Events a second over all batches but the first, once the query has ended."""
    query.awaitTermination()
    batches = [progress for progress in query.recentProgress if progress.numInputRows][1:]
    seconds = sum(progress.durationMs["triggerExecution"] for progress in batches) / 1000
    # Between offsets: numInputRows counts those records again that a plan reads twice.
    kafka = [progress.sources[0] for progress in batches]
    return sum(count_records(source.startOffset, source.endOffset) for source in kafka) / seconds


class Bench:
    """The topics, and the ways to work them off that are compared."""

    def __init__(self, spark: SparkSession, servers: str, folder: Path, batch: int, state_partitions: int) -> None:
        """Sets the session up as the job does; nothing runs yet."""
        self._spark = spark
        self._cluster = KafkaCluster(servers)
        self._folder = folder
        self._batch = batch
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        spark.conf.set("spark.sql.shuffle.partitions", state_partitions)

    def _run(self, writer: DataStreamWriter) -> float:
        location = self._folder / uuid.uuid4().hex
        return measure_rate(writer.option("checkpointLocation", str(location)).trigger(availableNow=True).start())

    def read_only(self) -> float:
        """Spark's Kafka source alone."""
        return self._run(self._source().select("value").writeStream.format("noop"))

    def parsed(self) -> float:
        """The job's pipeline up to counting."""
        return self._run(accept_events(observe_events(self._validated(), 60)).writeStream.format("noop"))

    def job(self, counter: Counter) -> float:
        """The job's pipeline, in append mode, into the topic out."""
        return self._count(observe_events(self._validated(), 60), counter)

    def job_with_sparks_parser(self, counter: Counter) -> float:
        """The job's pipeline with `--json-parser spark`."""
        return self._count(observe_events(parse_events(self._source(), MAX_FUTURE_SECONDS), 60), counter)

    def job_without_guard_and_accounting(self, counter: Counter) -> float:
        """The same, but events are not compared with their arrival, and only counted on their way."""
        # The observation stays: without one Spark parses every record twice.
        validated = parse_events(self._source(), decode=send_decoder(self._spark))
        return self._count(validated.observe("events", F.count(F.lit(1)).alias("read")), counter)

    def job_with_rejects_topic(self, counter: Counter) -> float:
        """The job's pipeline with `--rejects-topic`, which reads and parses twice."""
        validated = self._validated()
        counts = count_unique_users(accept_events(observe_events(validated, 60)), counter=counter)
        records = add_topic(make_records(counts, counter, final=True, revision=0), "out")
        rejects = make_reject_records(reject_events(validated), "rejects")
        return self._run(write_topic(records.union(rejects), self._cluster))

    def _validated(self) -> DataFrame:
        return parse_events(self._source(), MAX_FUTURE_SECONDS, decode=send_decoder(self._spark))

    def _source(self) -> DataFrame:
        return read_topic(self._spark, self._cluster, Subscription(), "earliest", self._batch)

    def _count(self, observed: DataFrame, counter: Counter) -> float:
        counts = count_unique_users(accept_events(observed), counter=counter)
        records = add_topic(make_records(counts, counter, final=True, revision=0), "out")
        return self._run(write_topic(records, self._cluster))


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures rates of all ways on one topic."""
    events, batch, partitions = (150_000, 50_000, 2) if recorder.quick else (1_000_000, 250_000, 2)
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        broker.create_topic("in", partitions)
        broker.create_topic("out")
        broker.create_topic("rejects")
        lines = (event.line for event in generate_events(Settings(events=events)))
        load_lines(lines, broker.bootstrap_servers, "in", progress=True)
        spark = start_session("throughput", choose_memory(recorder.quick))
        bench = Bench(spark, broker.bootstrap_servers, Path(folder), batch, state_partitions=2)
        rates = alternate(
            {
                READ_ONLY: bench.read_only,
                PARSED: bench.parsed,
                DEFAULT: partial(bench.job, DEFAULT_COUNTER),
                "--rsd 0.05": partial(bench.job, Counter(rsd=0.05)),
                FAST: partial(bench.job, SKETCH),
                FROM_JSON: partial(bench.job_with_sparks_parser, DEFAULT_COUNTER),
                f"{FROM_JSON} {FAST}": partial(bench.job_with_sparks_parser, SKETCH),
                "no guard, no accounting": partial(bench.job_without_guard_and_accounting, DEFAULT_COUNTER),
                "--rejects-topic": partial(bench.job_with_rejects_topic, DEFAULT_COUNTER),
            },
            rounds,
        )
        spark.stop()
    for name, values in rates.items():
        recorder.add(name, "rate", "events/s", values, events=events, partitions=partitions, batch=batch)
        recorder.add(name, "ratio", "of read only", ratios(values, rates[READ_ONLY]))


def describe_profile(rates: Sequence[Row]) -> str:
    """Where the time goes: both cores' microseconds an event, by differences between ways."""
    spent = {row.what: 2e6 / row.median for row in rates}
    return (
        "Core time an event, broker included (two cores over the rate, by difference): "
        f"reading {spent[READ_ONLY]:.1f} µs, parsing, validating and accounting "
        f"{spent[PARSED] - spent[READ_ONLY]:.1f} µs, counting {spent[DEFAULT] - spent[PARSED]:.1f} µs, "
        f"with `{FAST}` {spent[FAST] - spent[PARSED]:.1f} µs."
    )


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    rates = [row for row in rows if row.metric == "rate"]
    shares = {row.what: row for row in rows if row.metric == "ratio"}
    held = [
        f"{name}: {shares[name].median:.2f} of read only, {'at least' if shares[name].median >= share else 'BELOW'} "
        f"the promised {share:.2f}"
        for name, share in PROMISED.items()
    ]
    save_bars(rates, plots / "throughput.svg", "The whole job, Kafka to Kafka", "events of 2 kB a second")
    return (
        "## The whole job, Kafka to Kafka\n\nEvents of 2 kB, broker on the same cores, all ways in turn on one topic "
        'in one warm session; a run\'s first batch is left out. "No guard, no accounting" is the job without the '
        "comparison with the arrival time and without the accounting's observation.\n\n" + "; ".join(held) + ".\n\n"
        f"{describe_profile(rates)}\n\n"
        "![Events a second](plots/throughput.svg)\n\n"
        + make_table(
            ["", "events/s: median (range)", "of read only"],
            [[row.what, show_spread(row), show_spread(shares[row.what], 2)] for row in rates],
        )
    )
