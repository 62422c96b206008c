"""How the rate changes with cores, partitions, event size, users and windows, and what years cost.

`make bench ARGS=scaling`. The job's pipeline works off topics that differ from one base load in one thing each, all in
turn in every round: in a warm session with two cores, and in another one, in a process of its own, with one. Then the
whole job walks two years of minutes as a stream, an event a minute; at batches spread over the way its state, and the
memory of its driver after a garbage collection, are looked at.
"""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from pyspark.sql import SparkSession
from report import COLOURS, make_table, save_plot, show_spread, start_plot
from rows import alternate, ratios, say
from uniques.jvm import require_jvm
from whole_job import BatchWatcher, drain
from workers import SparkWorker, run_job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql.streaming.listener import StreamingQueryProgress
    from rows import Recorder, Row

BASE = "base"
MINUTES_OF_TWO_YEARS = 1_051_200  # of 365 days
BATCHES_LOOKED_AT = 40
FLAT = 1.1


@dataclass(frozen=True)
class Load:
    """A topic of events, and the cores that work it off; `windows`: minutes that one batch spans."""

    cores: int = 2
    partitions: int = 2
    size: int = 2_000
    users: int = 100_000
    windows: int = 1

    @property
    def topic(self) -> str:
        """Loads that differ in cores only share a topic."""
        return f"in-{self.partitions}-{self.size}-{self.users}-{self.windows}"


# One thing changed at a time: heading -> line -> load.
FAMILIES: dict[str, dict[str, Load]] = {
    "cores": {"1": Load(cores=1)},
    "partitions": {str(number): Load(partitions=number) for number in (1, 8, 16, 64, 256)},
    "bytes an event": {f"{size:,}": Load(size=size) for size in (200, 10_000)},
    "users": {f"{users:,}": Load(users=users) for users in (10, 10_000, 10_000_000)},
    "windows a batch": {f"{windows:,}": Load(windows=windows) for windows in (100, 1_000, 10_000)},
}
BASE_LABELS = {
    "cores": "2",
    "partitions": "2",
    "bytes an event": "2,000",
    "users": "100,000",
    "windows a batch": "1",
}


def load_topic(broker: KafkaBroker, load: Load, events: int, batch: int) -> None:
    """Makes the topic of a load."""
    broker.create_topic(load.topic, load.partitions)
    settings = Settings(events=events, rate=batch / (60 * load.windows), users=load.users, size=load.size)
    load_lines((event.line for event in generate_events(settings)), broker.bootstrap_servers, load.topic)


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures the rates of all loads in turn, then the two years."""
    events, batch = (40_000, 10_000) if recorder.quick else (300_000, 75_000)
    loads = {(BASE, ""): Load()}
    loads |= {(family, line): load for family, lines in FAMILIES.items() for line, load in lines.items()}
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        broker.create_topic("out")
        topics = {load.topic: load for load in loads.values()}
        for done, load in enumerate(topics.values()):
            say(f"  loading {load.topic}   ({done} of {len(topics)} done)")
            load_topic(broker, load, events, batch)
        with SparkWorker(1) as one, SparkWorker(2) as two:
            workers = {1: one, 2: two}
            ways = {
                f"{family} {line}".strip(): partial(
                    workers[load.cores].call, run_job, broker.bootstrap_servers, folder, load.topic, batch
                )
                for (family, line), load in loads.items()
            }
            rates = alternate(ways, rounds)
        for (family, line), load in loads.items():
            name = f"{family} {line}".strip()
            recorder.add(name, "rate", "events/s", rates[name], family=family, line=line, batch=batch, **vars(load))
            recorder.add(name, "ratio", "of base", ratios(rates[name], rates[BASE]), family=family, line=line)
    measure_years(recorder)


@dataclass(frozen=True)
class Look:
    """The job after a batch: `heap_mb` is what the JVM uses after a garbage collection, `python_mb` resident."""

    batch: int
    events: int
    seconds: float
    state_rows: int
    state_mb: float
    heap_mb: float | None = None
    python_mb: float | None = None


class Looker(BatchWatcher):
    """Looks at every batch, and every so many at the memory."""

    def __init__(self, spark: SparkSession, every: int) -> None:
        """`every`: batches from one garbage collection to the next."""
        super().__init__()
        self.looks: list[Look] = []
        self._spark = spark
        self._every = every

    def take(self, progress: StreamingQueryProgress, events: int) -> None:
        """Takes the figures of a batch with events."""
        look = Look(
            progress.batchId,
            events,
            progress.durationMs["triggerExecution"] / 1000,
            sum(operator.numRowsTotal for operator in progress.stateOperators),
            sum(operator.memoryUsedBytes for operator in progress.stateOperators) / 1e6,
        )
        if progress.batchId % self._every == 0:
            look = replace(look, heap_mb=self._read_heap(), python_mb=read_own_memory())
        self.looks.append(look)

    def _read_heap(self) -> float:
        jvm = require_jvm(self._spark, "scaling")
        jvm.java.lang.System.gc()
        runtime = jvm.java.lang.Runtime.getRuntime()
        return float(runtime.totalMemory() - runtime.freeMemory()) / 1e6


def read_own_memory() -> float:
    """Resident memory of this Python process, MB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def walk_minutes(servers: str, folder: str, minutes: int, batch: int, every: int) -> list[Look]:
    """Runs the whole job, in this process, over the topic `minutes`, with as many events, to its end."""
    spark = SparkSession.builder.getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.shuffle.partitions", 2)
    flags = ["--bootstrap-servers", servers, "--input-topic", "minutes", "--output-topic", "minutes-out"]
    flags += ["--checkpoint-location", f"{folder}/years", "--max-offsets-per-trigger", str(batch)]
    looker = Looker(spark, every)
    drain(spark, flags, minutes, looker)
    return looker.looks


def generate_minutes(minutes: int) -> Iterator[bytes]:
    """An event a minute, of 200 B, in order."""
    settings = Settings(events=minutes, rate=1 / 60, size=200, delayed=0)
    return (event.line for event in generate_events(settings))


def measure_years(recorder: Recorder) -> None:
    """Walks two years of minutes and adds rows: the batches of the first quarter, and of the last one."""
    minutes, batch = 50_000 if recorder.quick else MINUTES_OF_TWO_YEARS, 5_000
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder, SparkWorker(2) as worker:
        broker.create_topic("minutes", 2)
        broker.create_topic("minutes-out")
        load_lines(generate_minutes(minutes), broker.bootstrap_servers, "minutes")
        every = max(1, minutes // batch // BATCHES_LOOKED_AT)
        say(f"  {minutes:,} minutes, {batch:,} a batch")
        looks = worker.call(walk_minutes, broker.bootstrap_servers, folder, minutes, batch, every)
    # The first batches warm up, and the last is not full.
    full = [look for look in looks if look.events == batch][1:]
    figures = {
        "batch": ("s", [(look.batch, look.seconds) for look in full]),
        "rows of state": ("rows", [(look.batch, float(look.state_rows)) for look in full]),
        "memory of state": ("MB", [(look.batch, look.state_mb) for look in full]),
        "heap after GC": ("MB", [(look.batch, look.heap_mb) for look in full if look.heap_mb is not None]),
        "driver's Python": ("MB", [(look.batch, look.python_mb) for look in full if look.python_mb is not None]),
    }
    for metric, (unit, found) in figures.items():
        quarter = max(1, len(found) // 4)
        for part, values in (("first quarter", found[:quarter]), ("last quarter", found[-quarter:])):
            recorder.add(f"two years, {part}", metric, unit, (value for _, value in values), part=part, minutes=minutes)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    rates = [row for row in rows if row.metric == "rate"]
    shares = {row.what: row for row in rows if row.metric == "ratio"}
    base = next(row for row in rates if row.what == BASE)
    save_families(rates, plots / "scaling.svg")
    body = []
    for family in FAMILIES:
        lines = {str(row.parameters["line"]): row for row in rates if row.parameters["family"] == family}
        lines[BASE_LABELS[family]] = base
        for line, row in sort_lines(lines):
            megabytes = row.median * float(row.parameters["size"] or 0) / 1e6
            share = show_spread(shares[row.what], 2) if row is not base else "base"
            body.append([f"{family}: {line}", show_spread(row), f"{megabytes:,.0f}", share])
    size, batch = int(base.parameters["size"] or 0), int(base.parameters["batch"] or 0)
    return (
        "## What the rate depends on\n\nThe job's pipeline, Kafka to Kafka, in turn on topics that differ from one "
        f"base load in one thing: {base.parameters['cores']} cores, {base.parameters['partitions']} partitions, events "
        f"of {size:,} bytes, {int(base.parameters['users'] or 0):,} users, {batch:,} events a batch within a window. "
        f"Rounds: {len(base.values)}. Users are the pool that events draw from; broker and job share the machine."
        "\n\n![Rates](plots/scaling.svg)\n\n"
        + make_table(["", "events/s: median (range)", "MB/s", "of base"], body)
        + describe_years([row for row in rows if "part" in row.parameters])
    )


def sort_lines(lines: dict[str, Row]) -> list[tuple[str, Row]]:
    """Lines in order of the numbers they show."""
    return sorted(lines.items(), key=lambda item: int(item[0].replace(",", "")))


def describe_years(rows: Sequence[Row]) -> str:
    """What two years of minutes cost, and whether that stays flat."""
    if not rows:
        return ""
    body, risen = [], []
    for metric in dict.fromkeys(row.metric for row in rows):
        first, last = (
            next(row for row in rows if (row.metric, row.parameters["part"]) == (metric, part))
            for part in ("first quarter", "last quarter")
        )
        growth = last.median / first.median if first.median else float("nan")
        if metric != "batch" and growth > FLAT:
            risen.append(metric)
        digits = 0 if first.unit == "rows" else 2 if first.unit == "s" else 1
        body.append([f"{metric}, {first.unit}", show_spread(first, digits), show_spread(last, digits), f"{growth:.2f}"])
    verdict = "are flat" if not risen else f"are **not** flat ({', '.join(risen)})"
    return (
        f"\n### A stream through {int(rows[0].parameters['minutes'] or 0):,} minutes of history\n\nThe whole job, an "
        "event a minute, every event a window of its own. Heap is what the driver's JVM, which runs the tasks too, "
        "uses after a garbage collection.\n\n"
        + make_table(["", "first quarter", "last quarter", "ratio of medians"], body)
        + f"\nState and driver memory {verdict}: at most {FLAT:g} times as much in the last quarter as in the first "
        "is taken for flat.\n"
    )


def save_families(rates: Sequence[Row], path: Path) -> None:
    """A group of bars a family, in each the base load too."""
    base = next(row for row in rates if row.what == BASE)
    bars: list[tuple[str, Row, int]] = []
    for index, family in enumerate(FAMILIES):
        lines = {str(row.parameters["line"]): row for row in rates if row.parameters["family"] == family}
        lines[BASE_LABELS[family]] = base
        bars += [(f"{family}: {line}", row, index) for line, row in sort_lines(lines)]
    figure, axes = start_plot(
        "What the rate depends on (pale: the base load)", "events a second", height=0.34 * len(bars) + 1.4
    )
    places, place = [], 0.0
    for position, (_, row, index) in enumerate(bars):
        place += 1.6 if position and bars[position - 1][2] != index else 1
        places.append(place)
        low, high = row.spread
        axes.barh(
            place,
            row.median,
            xerr=[[row.median - low], [high - row.median]],
            color=COLOURS[index],
            alpha=0.45 if row is base else 1.0,
            error_kw={"capsize": 3, "ecolor": "#444444"},
        )
        axes.annotate(f"{row.median:,.0f}", (high, place), xytext=(6, 0), textcoords="offset points", va="center")
    axes.set_yticks(places, [label for label, _, _ in bars])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    save_plot(figure, path)
