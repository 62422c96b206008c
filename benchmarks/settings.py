"""What Spark's and Kafka's settings do to the rate and to a batch: `make bench ARGS=settings`.

The job's pipeline works off one topic, each time with one thing set differently from the job's defaults, all in turn in
one warm session: partitions of the state, events a batch, where the state is kept, and how the consumer fetches. A run
ends after some batches; its first one is left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from pyspark.sql import SparkSession
from report import make_table, save_bars, show_spread
from rows import alternate, ratios
from uniques.core.counts import DEFAULT_COUNTER
from uniques.kafka.offsets import count_records
from workers import SparkWorker, TopicBench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql.streaming.readwriter import DataStreamWriter
    from rows import Recorder, Row

BASE = "the job's defaults"
ROCKSDB = "state in RocksDB"
FETCH = "Kafka's own fetch sizes"
PROVIDER = "spark.sql.streaming.stateStore.providerClass"
CHANGELOG = "spark.sql.streaming.stateStore.rocksdb.changelogCheckpointing.enabled"
PROVIDERS = "org.apache.spark.sql.execution.streaming.state."
# What a Kafka consumer takes when it is told nothing; the receive buffer is what Spark sets.
FETCH_DEFAULTS = {
    "max.partition.fetch.bytes": "1048576",
    "fetch.max.bytes": "52428800",
    "max.poll.records": "500",
    "receive.buffer.bytes": "65536",
}
# A run ends with whichever comes first, beyond its first batch.
COUNTED_EVENTS = 500_000
COUNTED_BATCHES = 8
RUN_SECONDS = 300
# What is within a few percent of the best is as good: that much is noise here.
NOISE = 0.05


@dataclass(frozen=True)
class Setting:
    """What a run is set to; `batch` None: the question's usual one."""

    state_partitions: int = 2
    batch: int | None = None
    rocksdb: bool = False
    fetch: dict[str, str] = field(default_factory=dict)


def list_settings(batches: Sequence[int]) -> dict[str, Setting]:
    """The settings that are compared: name -> setting."""
    return {
        BASE: Setting(),
        **{f"state partitions: {number}": Setting(state_partitions=number) for number in (1, 4, 8, 200)},
        **{f"events a batch: {batch:,}": Setting(batch=batch) for batch in batches},
        ROCKSDB: Setting(rocksdb=True),
        FETCH: Setting(fetch=FETCH_DEFAULTS),
    }


class SettingsBench(TopicBench):
    """Runs that end after some batches."""

    batches: list[tuple[int, float]]
    counted_events = COUNTED_EVENTS

    def _run(self, writer: DataStreamWriter) -> float:
        location = tempfile.mkdtemp(dir=self._folder)
        query = writer.option("checkpointLocation", location).trigger(processingTime="0 seconds").start()
        deadline = time.monotonic() + RUN_SECONDS
        while not self._is_enough() and query.isActive and time.monotonic() < deadline:
            time.sleep(0.05)
            self.batches = [
                (
                    count_records(progress.sources[0].startOffset, progress.sources[0].endOffset),
                    progress.durationMs["triggerExecution"] / 1000,
                )
                for progress in query.recentProgress
                if progress.numInputRows
            ][1:]
        query.stop()
        return sum(events for events, _ in self.batches) / sum(seconds for _, seconds in self.batches)

    def _is_enough(self) -> bool:
        read = sum(events for events, _ in self.batches)
        return read >= self.counted_events or len(self.batches) >= COUNTED_BATCHES


def run_setting(servers: str, folder: str, batch: int, counted_events: int, setting: Setting) -> tuple[float, float]:
    """Events a second, and the median of the batches in seconds, in this process's session."""
    spark = SparkSession.builder.getOrCreate()
    name = "RocksDBStateStoreProvider" if setting.rocksdb else "HDFSBackedStateStoreProvider"
    spark.conf.set(PROVIDER, PROVIDERS + name)
    spark.conf.set(CHANGELOG, "true")  # RocksDB's faster way to commit
    bench = SettingsBench(servers, Path(folder), "in", setting.batch or batch, setting.state_partitions, setting.fetch)
    bench.batches, bench.counted_events = [], counted_events
    rate = bench.job(DEFAULT_COUNTER)
    return rate, statistics.median(seconds for _, seconds in bench.batches)


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures all settings in turn."""
    events, batch, batches, counted = (
        (60_000, 20_000, (5_000, 30_000), 20_000)
        if recorder.quick
        else (2_000_000, 250_000, (10_000, 50_000, 1_000_000), COUNTED_EVENTS)
    )
    settings = list_settings(batches)
    seconds: dict[str, list[float]] = {name: [] for name in settings}
    with (
        KafkaBroker() as broker,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        SparkWorker(2, "4g") as worker,
    ):
        broker.create_topic("in", 2)
        broker.create_topic("out")
        lines = (event.line for event in generate_events(Settings(events=events)))
        load_lines(lines, broker.bootstrap_servers, "in", progress=True)

        def run(name: str) -> float:
            rate, batch_seconds = worker.call(
                run_setting, broker.bootstrap_servers, folder, batch, counted, settings[name]
            )
            seconds[name].append(batch_seconds)
            return rate

        rates = alternate({name: partial(run, name) for name in settings}, rounds)
    for name, values in rates.items():
        setting = settings[name]
        usual = setting.batch or batch
        recorder.add(name, "rate", "events/s", values, batch=usual, state_partitions=setting.state_partitions)
        recorder.add(name, "ratio", "of the defaults", ratios(values, rates[BASE]))
        recorder.add(name, "batch", "s", seconds[name][-rounds:], batch=usual)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    rates = [row for row in rows if row.metric == "rate"]
    shares = {row.what: row for row in rows if row.metric == "ratio"}
    batches = {row.what: row for row in rows if row.metric == "batch"}
    save_bars(
        rates, plots / "settings.svg", "One thing set differently from the job's defaults", "events of 2 kB a second"
    )
    base = next(row for row in rates if row.what == BASE)
    return (
        "## What to set\n\nThe job's pipeline on one topic, in one warm session, all lines in turn; each line sets one "
        f"thing differently from the defaults: {base.parameters['state_partitions']} state partitions, "
        f"{int(base.parameters['batch'] or 0):,} events a batch, state in memory and in files (Spark's default), and "
        "fetch sizes for events of kilobytes.\n\n![Rates](plots/settings.svg)\n\n"
        + make_table(
            ["", "events/s: median (range)", "of the defaults", "a batch, s"],
            [
                [row.what, show_spread(row), show_spread(shares[row.what], 2), show_spread(batches[row.what], 2)]
                for row in rates
            ],
        )
        + "\n"
        + "\n".join(f"- {line}" for line in advise(rates, shares, batches))
        + "\n"
    )


def advise(rates: Sequence[Row], shares: dict[str, Row], batches: dict[str, Row]) -> list[str]:
    """What to set and why, a line a setting, as the rows have it."""
    base = next(row for row in rates if row.what == BASE)
    parts = [row for row in rates if row is base or row.what.startswith("state partitions")]
    most = max(parts, key=lambda row: int(row.parameters["state_partitions"] or 0))
    sizes = sorted(
        (row for row in rates if row is base or row.what.startswith("events a batch")),
        key=lambda row: int(row.parameters["batch"] or 0),
    )
    low, high = sizes[0], sizes[-1]
    partitions = (
        f"**State partitions**: {name_good(parts, shares, 'state_partitions')}. {most.parameters['state_partitions']} "
        f"(Spark's own default is 200) bring {shares[most.what].median:.2f} of the rate, and a batch takes "
        f"{batches[most.what].median:.1f} s instead of {batches[base.what].median:.1f} s: every partition is a task "
        "and a file a batch, however little is in it. The number is fixed for the life of a checkpoint."
    )
    size = (
        f"**Events a batch** (`--max-offsets-per-trigger`): {name_good(sizes, shares, 'batch')}. From "
        f"{int(low.parameters['batch'] or 0):,} to {int(high.parameters['batch'] or 0):,} a batch takes from "
        f"{batches[low.what].median:.1f} s to {batches[high.what].median:.1f} s, which is how long results wait behind "
        f"an outage, at {shares[low.what].median:.2f} to {shares[high.what].median:.2f} of the rate."
    )
    rocksdb = (
        f"**State in RocksDB**: {describe_share(shares[ROCKSDB])}. The state is a row a window and fits memory: "
        "RocksDB is for states that do not."
    )
    fetch = f"**Fetch sizes**: with Kafka's own {describe_share(shares[FETCH])}."
    return [partitions, size, rocksdb, fetch]


def name_good(rows: Sequence[Row], shares: dict[str, Row], parameter: str) -> str:
    """Which values of a parameter are as good as the best of them."""
    best = max(shares[row.what].median for row in rows)
    good = sorted(int(row.parameters[parameter] or 0) for row in rows if shares[row.what].median >= best * (1 - NOISE))
    return f"as good as the best, within {NOISE:.0%}: {', '.join(f'{number:,}' for number in good)}"


def describe_share(row: Row) -> str:
    """A ratio in words."""
    if abs(row.median - 1) <= NOISE:
        return f"{row.median:.2f} of the defaults' rate, which is no difference here"
    return f"{row.median:.2f} of the defaults' rate"
