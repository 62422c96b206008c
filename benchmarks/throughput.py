"""How many events a second the job works off, Kafka to Kafka, on this machine: `make bench`.

Starts an embedded Kafka, loads events of 2 kB, and in every round runs, one after the other: reading alone (Spark's
Kafka source with the job's fetch settings, values thrown away), the job's own pipeline with each `--rsd`, the same
without the timestamp guard and the accounting, with `--timestamp-guard neighbours`, and with `--rejects-topic`, all in
one warm session, so that the ratios hold where absolute figures vary. A run's rate leaves its first batch out.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import uuid
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from machine import describe_machine
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.counts import Counter, count_unique_users, make_records
from uniques.events import accept_events, observe_events, parse_events, reject_events
from uniques.guard import guard_events
from uniques.kafka import KafkaCluster, address_records, make_reject_records, read_topic, write_topic
from uniques.progress import count_records

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import DataFrame
    from pyspark.sql.streaming.query import StreamingQuery
    from pyspark.sql.streaming.readwriter import DataStreamWriter

READ_ONLY = "read only"
MAX_FUTURE = "5 seconds"


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

    def job(self, rsd: float) -> float:
        """The job's pipeline, in append mode, into the topic out."""
        return self._count(observe_events(parse_events(self._source(), MAX_FUTURE), 60), rsd)

    def job_without_guard_and_accounting(self, rsd: float) -> float:
        """The same, but events are not compared with their arrival, and only counted on their way."""
        # The observation stays: without one Spark parses every record twice.
        return self._count(parse_events(self._source()).observe("events", F.count(F.lit(1)).alias("read")), rsd)

    def job_with_neighbour_guard(self, rsd: float) -> float:
        """The job's pipeline with `--timestamp-guard neighbours`."""
        return self._count(observe_events(guard_events(parse_events(self._source(), MAX_FUTURE)), 60), rsd)

    def job_with_rejects_topic(self, rsd: float) -> float:
        """The job's pipeline with `--rejects-topic`, which reads and parses twice."""
        judged = parse_events(self._source(), MAX_FUTURE)
        counts = count_unique_users(accept_events(observe_events(judged, 60)), counter=Counter(rsd=rsd))
        records = address_records(make_records(counts, Counter(rsd=rsd), final=True), "out")
        rejects = make_reject_records(reject_events(judged), "rejects")
        return self._run(write_topic(records.union(rejects), self._cluster))

    def _source(self) -> DataFrame:
        return read_topic(self._spark, self._cluster, "in", "earliest", self._batch)

    def _count(self, observed: DataFrame, rsd: float) -> float:
        counts = count_unique_users(accept_events(observed), counter=Counter(rsd=rsd))
        return self._run(
            write_topic(address_records(make_records(counts, Counter(rsd=rsd), final=True), "out"), self._cluster)
        )


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description="Throughput of the job on an embedded Kafka.")
    parser.add_argument("--events", type=int, default=1_000_000, help="(default: %(default)s)")
    parser.add_argument("--partitions", type=int, default=2, help="of the input topic (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="counted; one more warms up (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=250_000, help="events a batch (default: %(default)s)")
    parser.add_argument("--rsd", type=float, nargs="+", default=[0.02], help="(default: 0.02)")
    parser.add_argument("--state-partitions", type=int, default=2, help="(default: %(default)s)")
    args = parser.parse_args()
    if args.events <= args.batch:
        parser.error("argument --events: must be more than one batch, because the first one is left out")
    print(f"machine: {describe_machine()}")
    print(
        f"load: {args.events:,} events of 2 kB, {args.partitions} partitions, {args.batch:,} events a batch", flush=True
    )
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        broker.create_topic("in", args.partitions)
        broker.create_topic("out")
        broker.create_topic("rejects")
        events = generate_events(Settings(events=args.events))
        load_lines((event.line for event in events), broker.bootstrap_servers, "in", progress=True)
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # which has what the neighbour guard needs
        spark = (
            SparkSession.builder.master("local[2]")
            .appName("throughput")
            # Every run leaves its consumers, with what they fetched, in the cache for five minutes.
            .config("spark.driver.memory", "6g")
            .getOrCreate()
        )
        bench = Bench(spark, broker.bootstrap_servers, Path(folder), args.batch, args.state_partitions)
        ways: dict[str, Callable[[], float]] = {READ_ONLY: bench.read_only}
        for rsd in args.rsd:
            ways[f"job, --rsd {rsd:g}"] = partial(bench.job, rsd)
        ways["job, no guard, no accounting"] = partial(bench.job_without_guard_and_accounting, args.rsd[0])
        ways["job, neighbours guard"] = partial(bench.job_with_neighbour_guard, args.rsd[0])
        ways["job, --rejects-topic"] = partial(bench.job_with_rejects_topic, args.rsd[0])
        rates = defaultdict(list)
        for round_ in range(args.rounds + 1):
            for name, way in ways.items():
                rate = way()
                print(f"round {round_ or 'warm-up'}: {name}: {rate:,.0f} events/s", file=sys.stderr, flush=True)
                if round_:
                    rates[name].append(rate)
        spark.stop()
    print(f"{'':<28} {'events/s: min':>14} {'median':>9} {'max':>9}   of read only")
    for name, values in rates.items():
        ratio = statistics.median(value / base for value, base in zip(values, rates[READ_ONLY], strict=True))
        print(f"{name:<28} {min(values):>14,.0f} {statistics.median(values):>9,.0f} {max(values):>9,.0f}   {ratio:.2f}")


if __name__ == "__main__":
    main()
