"""What a small batch costs, however little is in it: `make bench ARGS=batches`.

The whole job with its default flags, and the 1 GB that Spark gives a driver by default, drains topics of 2, 16 and 64
partitions in batches of 10,000 events of 2 kB, in turn in every round, in one warm session. Beside the seconds of a
batch: the processes that the job's JVM starts in a run, from Java's own flight recorder.
"""

from __future__ import annotations

import statistics
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from pyspark.sql import SparkSession
from report import make_table, show_spread
from rows import ratios, say
from uniques.jvm import require_jvm
from whole_job import BatchWatcher, drain
from workers import SparkWorker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pyspark.sql.streaming.listener import StreamingQueryProgress
    from rows import Parameter, Recorder, Row

EVENTS_A_BATCH = 10_000
COUNTERS = {"default flags": (), "--counter hll_sketch": ("--counter", "hll_sketch")}
PARTITIONS = (2, 16, 64)
BASE = (2, "default flags")
# The first batches of a run fill the caches of its plan.
LEFT_OUT = 3
ASKED_MS = {2: 200, 16: 220}


@dataclass(frozen=True)
class Run:
    """What one run of the job cost: milliseconds of its batches, without the first ones, and processes started."""

    milliseconds: list[float]
    processes: int


class BatchTimes(BatchWatcher):
    """Notes what each batch took."""

    def __init__(self) -> None:
        """Nothing is noted yet."""
        super().__init__()
        self.durations: list[dict[str, int]] = []

    def take(self, progress: StreamingQueryProgress, events: int) -> None:  # noqa: ARG002  # all are alike
        """Notes a batch."""
        self.durations.append(dict(progress.durationMs))


def drain_topic(servers: str, folder: str, partitions: int, events: int, flags: Sequence[str]) -> Run:
    """Runs the whole job, in this process, over a topic with so many events, to its end."""
    spark = SparkSession.builder.getOrCreate()
    location = tempfile.mkdtemp(dir=folder)
    said = ["--bootstrap-servers", servers, "--input-topic", f"in-{partitions}", "--checkpoint-location", location]
    times = BatchTimes()
    recording = require_jvm(spark, "batches").jdk.jfr.Recording()
    recording.enable("jdk.ProcessStart")
    recording.start()
    drain(spark, [*said, "--max-offsets-per-trigger", str(EVENTS_A_BATCH), *flags], events, times)
    recording.stop()
    counted = times.durations[LEFT_OUT:]
    return Run([float(one["triggerExecution"]) for one in counted], count_processes(spark, recording, folder))


def count_processes(spark: SparkSession, recording: Any, folder: str) -> int:
    """How many processes a recording of Java's flight recorder saw start."""
    jvm = require_jvm(spark, "batches")
    path = jvm.java.io.File(f"{folder}/recording.jfr").toPath()
    recording.dump(path)
    recording.close()
    return int(jvm.jdk.jfr.consumer.RecordingFile.readAllEvents(path).size())


def measure(recorder: Recorder, rounds: int) -> None:
    """Runs all ways in turn; the first round warms up."""
    events = 100_000 if recorder.quick else 300_000
    found: dict[tuple[int, str], list[Run]] = defaultdict(list)
    with (
        KafkaBroker() as broker,
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        SparkWorker(2, "1g") as worker,
    ):
        broker.create_topic("out")
        for partitions in PARTITIONS:
            broker.create_topic(f"in-{partitions}", partitions)
            lines = (event.line for event in generate_events(Settings(events=events)))
            load_lines(lines, broker.bootstrap_servers, f"in-{partitions}")
        for round_ in range(rounds + 1):
            for partitions in PARTITIONS:
                for name, flags in COUNTERS.items():
                    say(f"  {'warming up' if not round_ else f'round {round_} of {rounds}'}: {partitions}, {name}")
                    run = worker.call(drain_topic, broker.bootstrap_servers, folder, partitions, events, flags)
                    say(f"    {statistics.median(run.milliseconds):.0f} ms a batch")
                    if round_:
                        found[partitions, name].append(run)
    medians = {way: [statistics.median(run.milliseconds) for run in runs] for way, runs in found.items()}
    for (partitions, name), values in medians.items():
        parameters: dict[str, Parameter] = {"partitions": partitions, "flags": name, "events": EVENTS_A_BATCH}
        what, runs = f"{partitions} partitions, {name}", found[partitions, name]
        recorder.add(what, "batch", "ms", values, **parameters)
        recorder.add(what, "ratio", "of 2 partitions, default flags", ratios(values, medians[BASE]), **parameters)
        recorder.add(what, "processes", "a run", [float(run.processes) for run in runs], **parameters)


def describe(rows: Sequence[Row], plots: Path) -> str:  # noqa: ARG001  # a table says it
    """The chapter of the report."""
    batches = [row for row in rows if row.metric == "batch"]
    shares = {row.what: row for row in rows if row.metric == "ratio"}
    started = {row.what: row for row in rows if row.metric == "processes"}
    held = [
        f"{row.what}: {row.median:.0f} ms, {'within' if row.median <= ASKED_MS[partitions] else 'ABOVE'} the asked "
        f"{ASKED_MS[partitions]} ms"
        for row in batches
        if (partitions := int(row.parameters["partitions"] or 0)) in ASKED_MS and row.parameters["flags"] == BASE[1]
    ]
    return (
        f"## A small batch\n\nThe whole job with 1 GB of memory, exactly once, batches of {EVENTS_A_BATCH:,} events of "
        "2 kB, all lines in turn in one warm session, the broker on the same cores. A value is the median batch of a "
        "run.\n\n"
        + "; ".join(held)
        + ".\n\n"
        + make_table(
            ["", "a batch, ms: median (range)", "of 2 partitions", "processes started a run"],
            [
                [row.what, show_spread(row), show_spread(shares[row.what], 2), show_spread(started[row.what])]
                for row in batches
            ],
        )
    )
