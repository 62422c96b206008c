"""How long the job takes to start, to recover from a kill, and to drain an outage: `make bench ARGS=recovery`.

The real job, started with spark-submit on a live stream of events of 2 kB; a read_committed consumer notes its results.
A repetition: a first start on a new checkpoint, `kill -9` of all its processes at a random moment and a start at once,
then `kill -9` again and an outage in which events pile up, and a start behind it.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from kafka_broker import KafkaBroker
from live import EVENT_BYTES, Generator, LiveJob, PacedProducer
from report import make_table, save_bars, show_spread
from result_watcher import ResultWatcher
from rows import say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rows import Recorder, Row

RATE = 1_000
WINDOW_SECONDS = 1
WATERMARK_SECONDS = 5
# Of stream before a first start: windows that can close.
AHEAD_SECONDS = 10.0
STREAM_SECONDS = 1_800.0
# The second one is the default.
WAYS = {"at least once": ("--delivery", "at-least-once"), "--exactly-once": ()}
STEPS = {
    "first batch": "from spark-submit to the end of the first batch",
    "first result": "from spark-submit to the first result",
    "next result": "from kill -9, with a start at once, to the result of a new window",
    "backlog": "from spark-submit behind an outage to the result of its last window",
}
PACKAGES = ("confluent-kafka",)


def measure(recorder: Recorder, rounds: int) -> None:
    """Repeats all steps, the ways in turn."""
    backlog = 20_000 if recorder.quick else 300_000
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    random_ = random.Random(1)
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for round_ in range(rounds):
            for number, way in enumerate(WAYS):
                say(f"  round {round_ + 1} of {rounds}: {way}")
                place = Path(folder) / f"{round_}-{number}"
                for step, seconds in measure_life(broker, place, way, backlog, random_).items():
                    found[way, step].append(seconds)
    for (way, step), values in found.items():
        events = backlog if step == "backlog" else RATE
        recorder.add(f"{step}, {way}", step, "s", values, way=way, events=events, rate=RATE)


def measure_life(broker: KafkaBroker, folder: Path, way: str, backlog: int, random_: random.Random) -> dict[str, float]:
    """The seconds of every step of one repetition, on topics and a checkpoint of their own."""
    servers, source, sink = broker.bootstrap_servers, f"in-{folder.name}", f"out-{folder.name}"
    broker.create_topic(source, 2)
    broker.create_topic(sink)
    flags = ("--window", f"{WINDOW_SECONDS} second", "--watermark", f"{WATERMARK_SECONDS} seconds", *WAYS[way])
    # The stream runs behind the clock, so that the events of the outage are none of the future.
    behind = backlog // RATE
    seconds = {}
    with ResultWatcher(servers, sink) as watcher, LiveJob(servers, folder, source, sink, *flags) as job:
        with Generator(servers, source, RATE, STREAM_SECONDS, -behind):
            time.sleep(AHEAD_SECONDS)
            began = job.start()
            seconds["first batch"] = job.wait_for(job.batches, "no first batch") - began
            job.wait_for(lambda: watcher.seen, "no first result")
            seconds["first result"] = watcher.seen[0].arrived - began
            time.sleep(random_.uniform(1, 4))
            killed = job.kill()
            # At least once, a restart first repeats what was written last.
            newest = max(result.window_end for result in watcher.seen)
            job.start()
            seconds["next result"] = (
                job.wait_for(
                    lambda: any(result.window_end > newest for result in list(watcher.seen)), "no result after a kill"
                )
                - killed
            )
            time.sleep(random_.uniform(1, 4))
            job.kill()
        last = load_outage(servers, source, behind)
        began = job.start()
        # The last window that the events of the outage close.
        end = last - last % WINDOW_SECONDS - WATERMARK_SECONDS
        job.wait_for(
            lambda: any(result.window_end >= end for result in list(watcher.seen)), "the backlog was not drained"
        )
        seconds["backlog"] = next(result.arrived for result in watcher.seen if result.window_end >= end) - began
    return seconds


def load_outage(servers: str, topic: str, seconds: int) -> int:
    """Loads what an outage of that many seconds leaves, as fast as it goes; returns the last `ts`."""
    producer = PacedProducer(servers, topic, 2)
    start = int(time.time()) - seconds
    for index in range(RATE * seconds):
        producer.send(start + index / RATE)
    producer.flush()
    return start + seconds - 1


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    ways = list(dict.fromkeys(str(row.parameters["way"]) for row in rows))
    cells = {(row.metric, str(row.parameters["way"])): row for row in rows}
    bars = [cells[step, way] for step in STEPS for way in ways]
    save_bars(bars, plots / "recovery.svg", "Start, kill and outage", "seconds")
    body = [[text, *(show_spread(cells[step, way], 1) for way in ways)] for step, text in STEPS.items()]
    backlog = int(next(row for row in rows if row.metric == "backlog").parameters["events"] or 0)
    rate = int(rows[0].parameters["rate"] or 0)
    lines = []
    for way in ways:
        start, worked = cells["first batch", way].median, cells["backlog", way].median
        lines.append(
            f"- {way}: an outage of {backlog / rate:,.0f} s at {rate:,} events/s, {backlog:,} events, is drained "
            f"{worked:.1f} s after the start, {backlog / worked:,.0f} events/s with the start-up in it; a start on an "
            f"almost empty topic takes {start:.1f} s to its first batch."
        )
    return (
        "## Start and recovery\n\nThe job as its users start it, under a live stream of "
        f"{rate:,} events of {EVENT_BYTES // 1000} kB a second, with windows of {WINDOW_SECONDS} s and a watermark of "
        f"{WATERMARK_SECONDS} s. Killed at random moments, with all its processes, and started again at once.\n\n"
        "![Seconds](plots/recovery.svg)\n\n"
        + make_table(["seconds: median (range)", *ways], body)
        + "\n"
        + "\n".join(lines)
        + "\n"
    )
