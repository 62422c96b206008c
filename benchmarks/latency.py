"""How long after a window's end its record is in `out`: `make bench ARGS=latency`.

The real job, started with spark-submit, under steady streams of events of 2 kB that a process of its own stamps with
the moment of sending; a read_committed consumer notes when each record arrives. A window lasts one second, so that
every second brings a delay: a minute's window closes in the same way, once in sixty times. Each way and rate is one run
with a warm-up that is not counted, and its repetitions are its windows.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kafka_broker import KafkaBroker
from live import Generator, LiveJob
from report import COLOURS, make_table, save_plot, start_plot
from result_watcher import ResultWatcher
from rows import say
from soak import RETENTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rows import Recorder, Row

WINDOW_SECONDS = 1
WATERMARK_SECONDS = 5
ALLOWED_SECONDS = WATERMARK_SECONDS + 0.8
WARM_UP_SECONDS = 60
# After the last window that counts: what the job is behind by then.
PATIENCE_SECONDS = 60.0
STREAM_SECONDS = 3_600.0  # it is stopped before
RATES = (1_000, 10_000)
AT_LEAST_ONCE = ("--delivery", "at-least-once")
SOON = ("--trigger", "100 milliseconds")
DEFAULTS = "defaults"
WAYS = {
    DEFAULTS: (),
    "--delivery at-least-once": AT_LEAST_ONCE,
    "--rsd 0.03": ("--rsd", "0.03"),
    "--rsd 0.02": ("--rsd", "0.02"),
    "--trigger 100 ms --counter hll_sketch": (*SOON, "--counter", "hll_sketch"),
}
# The others at the highest rate only: they show the shares of transactions, registers, trigger and counter.
AT_ALL_RATES = (DEFAULTS,)
PACKAGES = ("confluent-kafka",)


def take_percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def measure(recorder: Recorder, rounds: int) -> None:  # noqa: ARG001  # windows are the repetitions
    """One run for each rate and way."""
    rates, warm_up, seconds = ((1_000,), 10, 20) if recorder.quick else (RATES, WARM_UP_SECONDS, 60)
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        cases = [(rate, way) for rate in rates for way in WAYS if way in AT_ALL_RATES or rate == max(rates)]
        for done, (rate, way) in enumerate(cases):
            say(f"  {rate:,} events/s, {way}   ({done} of {len(cases)} done)")
            measure_case(recorder, broker, Path(folder) / str(done), rate, way, warm_up, seconds)


def measure_case(
    recorder: Recorder, broker: KafkaBroker, folder: Path, rate: int, way: str, warm_up: float, seconds: int
) -> None:
    """Runs the job under one rate and adds its rows."""
    servers, source, sink = broker.bootstrap_servers, f"in-{folder.name}", f"out-{folder.name}"
    broker.create_topic(source, 2, RETENTION)
    broker.create_topic(sink)
    flags = ("--window", f"{WINDOW_SECONDS} second", "--watermark", f"{WATERMARK_SECONDS} seconds", *WAYS[way])
    with (
        ResultWatcher(servers, sink) as watcher,
        LiveJob(servers, folder, source, sink, *flags) as job,
        Generator(servers, source, rate, STREAM_SECONDS) as generator,
    ):
        job.start()
        job.wait_for(lambda: watcher.seen, "no result")
        time.sleep(warm_up)
        since = math.ceil(time.time())
        until = since + seconds * WINDOW_SECONDS
        time.sleep(max(0.0, until + ALLOWED_SECONDS - time.time()))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(watcher.delays(since, until)) < seconds and time.monotonic() < deadline:
            time.sleep(0.1)
        batches = job.batches()
    delays = watcher.delays(since, until)
    pace = generator.pace
    if not delays or pace is None:
        raise RuntimeError(f"{rate:,} events/s, {way}: no result, or the generator ended")
    name = f"{rate:,} events/s, {way}"
    parameters: dict[str, str | int] = {
        "rate": rate,
        "way": way,
        "window_seconds": WINDOW_SECONDS,
        "watermark_seconds": WATERMARK_SECONDS,
    }
    recorder.add(name, "delay", "s", delays, **parameters, missing=seconds - len(delays))
    recorder.add(name, "generator behind", "s", [pace.behind], **parameters, median=pace.behind_median)
    recorder.add(name, "batch", "s", [float(batch["seconds"]) for batch in batches[-seconds:]], **parameters)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    delays = [row for row in rows if row.metric == "delay"]
    behind = {row.what: row for row in rows if row.metric == "generator behind"}
    batches = {row.what: row for row in rows if row.metric == "batch"}
    save_delays(delays, plots / "latency.svg")
    counts = sorted({len(row.values) for row in delays})
    windows = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shares = (0.5, 0.95, 0.99, 1.0)
    return (
        "## From a window's end to its record\n\nThe job under a steady stream of events of 2 kB, stamped when they "
        f"are sent; generator, broker and job share the machine. A window lasts {WINDOW_SECONDS} s, {windows} windows "
        f"a line; the watermark is {WATERMARK_SECONDS} s, so no record can come earlier than that. What a line does "
        "not name is the job's default: a batch every 200 ms, exactly once.\n\n![Delays](plots/latency.svg)\n\n"
        + make_table(
            ["", "p50, s", "p95, s", "p99, s", "largest, s", "a batch, s", "generator late at most, s"],
            [
                [
                    row.what,
                    *(f"{take_percentile(row.values, share):.2f}" for share in shares),
                    f"{batches[row.what].median:.1f}",
                    f"{behind[row.what].median:.2f}",
                ]
                for row in delays
            ],
        )
        + "\n"
        + "\n".join(compare_delays(delays))
        + "\n"
    )


def compare_delays(delays: Sequence[Row]) -> list[str]:
    """At the highest rate, whether p99 is within what is asked for, a line a way; and what never came."""
    highest = max(int(row.parameters["rate"] or 0) for row in delays)
    lines = []
    for row in delays:
        if row.parameters["rate"] == highest:
            p99 = take_percentile(row.values, 0.99)
            holds = "holds" if p99 <= ALLOWED_SECONDS else "does **not** hold"
            lines.append(f"- {row.what}: p99 is {p99:.2f} s; at most watermark + 0.8 s = {ALLOWED_SECONDS} s: {holds}.")
    lost = [f"{row.what}: {row.parameters['missing']}" for row in delays if row.parameters["missing"]]
    return [*lines, f"- Windows without a record at the end: {', '.join(lost) or 'none'}."]


def save_delays(delays: Sequence[Row], path: Path) -> None:
    """A bar a line, its median, with a whisker from there to p99 and a dot at the largest."""
    figure, axes = start_plot(
        "From a window's end to its record: p50 / p99", "seconds", height=0.55 * len(delays) + 1.8
    )
    ways = list(dict.fromkeys(str(row.parameters["way"]) for row in delays))
    for place, row in enumerate(delays):
        p50, p99, largest = take_percentile(row.values, 0.5), take_percentile(row.values, 0.99), max(row.values)
        colour = COLOURS[ways.index(str(row.parameters["way"]))]
        error = [[0.0], [p99 - p50]]
        axes.barh(place, p50, xerr=error, color=colour, error_kw={"capsize": 4, "ecolor": "#444444"})
        axes.plot(largest, place, ".", color="#444444")
        label = f"{p50:.2f} / {p99:.2f}"
        # Beside the plot, where no line crosses it.
        axes.annotate(label, (1.01, place), xycoords=("axes fraction", "data"), va="center")
    axes.axvline(WATERMARK_SECONDS, color="#888888", linestyle=":", label="watermark")
    axes.axvline(ALLOWED_SECONDS, color=COLOURS[3], linestyle="--", label="watermark + 0.8 s")
    axes.plot([], [], ".", color="#444444", label="largest")
    axes.errorbar([], [], xerr=[], color="#444444", capsize=4, label="bar: p50, whisker: to p99")
    axes.set_yticks(range(len(delays)), [row.what.replace(", ", "\n", 1) for row in delays])
    axes.invert_yaxis()
    axes.margins(x=0.05)
    axes.set_xlim(left=0)
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize="small")
    save_plot(figure, path)
