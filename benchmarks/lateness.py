"""What the watermark costs in delay and saves in loss: `make bench-late`.

Replays one seeded stream through the job's own functions, once a watermark, and counts the events lost as late and the
time from a window's end to its final record. A micro-batch holds what arrives in one second, as under the job's
default trigger, and a record written in the batch that ends at arrival second A appears at A: delays are in arrival
time, to the second, and hold on any machine. The time a batch takes comes on top.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, positive
from machine import describe_machine
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.apps.plain_stream import ClosedWindows
from uniques.core.counts import Counter, count_unique_users, observe_counts
from uniques.core.events import accept_events, parse_events
from uniques.core.observation import observe_events
from uniques.runtime.listener import ProgressListener
from uniques.times import to_interval

if TYPE_CHECKING:
    from pyspark.sql import DataFrame
    from uniques.state.accounting import Accounting

START = Settings().start
WINDOW_SECONDS = 60
# The challenge: 99.9 % of events arrive within 5 s. Most delays are exponential; a few are much longer.
PROMPT_SECONDS = 5.0
DELAYED_SHARE = 0.001
TAIL_SHARE = 0.0005
TAIL_SECONDS = 60.0
# Spread over the tail, this share of it stays within 5 s; the exponential part makes up the rest of DELAYED_SHARE.
TAIL_DELAYED = TAIL_SHARE * (1 - PROMPT_SECONDS / TAIL_SECONDS)
MEAN_SECONDS = PROMPT_SECONDS / math.log((1 - TAIL_SHARE) / (DELAYED_SHARE - TAIL_DELAYED))
# Only the number of events matters here, not that of users: few registers make for short batches.
RSD = 0.3
EVENT_BYTES = 200
PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Arrival:
    """An event: when it happened and when it arrived, in seconds after START."""

    time: float
    arrived: float

    @property
    def ts(self) -> int:
        """Event time as the event says it, in whole unix seconds."""
        return START + math.floor(self.time)


@dataclass(frozen=True)
class Result:
    """What one watermark did; delays are from a window's end to its final record."""

    watermark_seconds: int
    events: int
    behind_events: int
    lost_events: int
    final_windows: int
    delay_median_seconds: float
    delay_max_seconds: int
    batch_median_seconds: float

    @property
    def behind_percent(self) -> float:
        """Events that arrived behind the watermark, whether their window was open or not."""
        return 100 * self.behind_events / self.events

    @property
    def lost_percent(self) -> float:
        """Events that arrived when their window was closed."""
        return 100 * self.lost_events / self.events


def draw_arrivals(seconds: int, rate: int, seed: int) -> list[Arrival]:
    """All events that arrive in `seconds`, in order of arrival, those on their way when it begins among them."""
    random_ = random.Random(seed)
    arrivals = []
    for index in range(int((TAIL_SECONDS + seconds) * rate)):
        happened = index / rate - TAIL_SECONDS
        in_tail = random_.random() < TAIL_SHARE
        delay = random_.uniform(0, TAIL_SECONDS) if in_tail else random_.expovariate(1 / MEAN_SECONDS)
        if 0 <= happened + delay < seconds:
            arrivals.append(Arrival(happened, happened + delay))
    return sorted(arrivals, key=lambda arrival: arrival.arrived)


def count_behind(arrivals: list[Arrival], watermark_seconds: int) -> int:
    """How many events are more than `watermark_seconds` older than the latest one before them."""
    behind = 0
    latest = arrivals[0].ts
    for arrival in arrivals:
        behind += latest - arrival.ts > watermark_seconds
        latest = max(latest, arrival.ts)
    return behind


def write_stream(arrivals: list[Arrival], seconds: int, seed: int, folder: Path) -> list[int]:
    """Writes a file a second of arrival, and returns how many events each holds."""
    random_ = random.Random(seed)
    batches: list[list[str]] = [[] for _ in range(seconds)]
    for arrival in arrivals:
        event = {"ts": arrival.ts, "uid": f"{random_.getrandbits(64):016x}", "text": ""}
        event["text"] = "." * (EVENT_BYTES - len(json.dumps(event)))
        batches[int(arrival.arrived)].append(json.dumps(event))
    for second, lines in enumerate(batches):
        path = folder / f"{second:06}.jsonl"
        path.write_text("".join(line + "\n" for line in lines))
        # Spark takes files in order of modification time.
        os.utime(path, (START + second, START + second))
    return [len(lines) for lines in batches]


class Replay:
    """A stream in files, and the job's pipeline over it."""

    def __init__(self, spark: SparkSession, folder: Path, arrivals: list[Arrival], batches: list[int]) -> None:
        """`folder` holds the files of `write_stream` in `in/`; `batches` says how many events each has."""
        self._spark = spark
        self._folder = folder
        self._arrivals = arrivals
        self._batches = batches

    def run(self, watermark_seconds: int, label: str) -> Result:
        """Counts with one watermark; raises RuntimeError when the events don't add up."""
        emitted: list[tuple[int, int, int]] = []

        def collect(counts: DataFrame, batch: int) -> None:
            rows = counts.select(F.unix_seconds("window_end").alias("end"), "events").collect()
            emitted.extend((batch, row["end"], row["events"]) for row in rows)

        source = self._spark.readStream.option("maxFilesPerTrigger", 1).text(str(self._folder / "in"))
        events = accept_events(observe_events(parse_events(source), WINDOW_SECONDS))
        events = events.withWatermark("event_time", to_interval(watermark_seconds))
        counts = observe_counts(count_unique_users(events, WINDOW_SECONDS, Counter(rsd=RSD)))
        listener = ProgressListener(ClosedWindows())
        self._spark.streams.addListener(listener)
        writer = counts.writeStream.foreachBatch(collect).outputMode("append").trigger(availableNow=True)
        query = writer.option("checkpointLocation", str(self._folder / f"checkpoint-{watermark_seconds}")).start()
        while not query.awaitTermination(PROGRESS_SECONDS):  # type: ignore[arg-type]
            done = len(query.recentProgress)
            say(f"{label}: {done} of {len(self._batches)} batches")
        listener.wait_until_ended()
        self._spark.streams.removeListener(listener)
        # Without this the second a batch stands for would be a guess.
        read = [progress.numInputRows for progress in query.recentProgress if progress.numInputRows]
        if read != self._batches:
            raise RuntimeError("the batches are not the files, in their order")
        check_sums(listener.accounting, sum(events for _, _, events in emitted), len(self._arrivals))
        delays = [START + batch + 1 - end for batch, end, _ in emitted]
        return Result(
            watermark_seconds,
            len(self._arrivals),
            count_behind(self._arrivals, watermark_seconds),
            listener.accounting.late,
            len(delays),
            float(statistics.median(delays)),
            max(delays),
            statistics.median(progress.durationMs["triggerExecution"] / 1000 for progress in query.recentProgress),
        )


def check_sums(accounting: Accounting, emitted: int, written: int) -> None:
    """Raises RuntimeError unless each event written was accepted, and is in a final record, late, or in an open window.

    The final records are Spark's, the other terms the accounting's: this is where they have to meet.
    """
    totals = accounting.totals()
    accepted = totals["read"] - totals["rejected"]
    if not accounting.exact or accepted != written or emitted + totals["late"] + totals["in_open_windows"] != accepted:
        raise RuntimeError(f"events don't add up: {written} written, {emitted} in final records, {totals}")


def say(message: str) -> None:
    """Progress, on stderr."""
    print(f"lateness: {message}", file=sys.stderr, flush=True)


def print_table(results: list[Result]) -> None:
    """The results for a person."""
    print(f"{'watermark':>9} {'behind it':>14} {'lost as late':>21} {'window end to final record':>29}")
    print(f"{'s':>9} {'% of events':>14} {'% of events':>13} {'events':>7} {'median, s':>18} {'max, s':>10}")
    for result in results:
        print(
            f"{result.watermark_seconds:>9} {result.behind_percent:>14.4f} {result.lost_percent:>13.4f} "
            f"{result.lost_events:>7,} {result.delay_median_seconds:>18g} {result.delay_max_seconds:>10}"
        )


def save_plot(results: list[Result], path: Path) -> None:
    """Draws losses above delays; the same results give the same bytes of SVG."""
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    # Okabe and Ito's: told apart by all eyes.
    blue, orange, black = "#0072B2", "#D55E00", "#000000"
    watermarks = [result.watermark_seconds for result in results]
    style = {
        "svg.hashsalt": "lateness",
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e0e0e0",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.8,
        "lines.markersize": 5,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(7, 5.6), layout="constrained")
        loss, delay = figure.subplots(2, 1, sharex=True)
        behind_percents = [result.behind_percent for result in results]
        loss.plot(watermarks, behind_percents, "s--", color=orange, label="arrive behind the watermark", clip_on=False)
        lost_percents = [result.lost_percent for result in results]
        loss.plot(watermarks, lost_percents, "o-", color=blue, label="lost: their window is closed", clip_on=False)
        loss.set_yscale("symlog", linthresh=0.001, linscale=0.6)
        loss.set_ylim(0, 100)
        loss.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        loss.set_ylabel("share of all events")
        loss.legend(frameon=False)
        medians = [result.delay_median_seconds for result in results]
        maxima = [result.delay_max_seconds for result in results]
        delay.plot(watermarks, medians, "o-", color=blue, label="median of the windows")
        hollow = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 1.2}
        delay.plot(watermarks, maxima, "o", color=black, label="maximum", **hollow)
        delay.set_ylim(bottom=0)
        delay.set_ylabel("window end to final record, s")
        delay.set_xlabel("watermark, s")
        delay.set_xticks(watermarks)
        delay.legend(frameon=False)
        figure.align_ylabels()
        metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else None
        figure.savefig(path, metadata=metadata, dpi=120)


def main() -> None:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(description="Loss and delay of the job's results for different watermarks.")
    parser.add_argument(
        "--watermarks", type=int, nargs="+", default=[0, 1, 2, 5, 10, 20, 30], metavar="S", help="(default: 0 … 30)"
    )
    parser.add_argument("--seconds", type=positive, default=180, help="of the stream (default: %(default)s)")
    parser.add_argument("--rate", type=positive, default=1_000, help="events a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other events (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, a JSON line a watermark")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the results there, .svg or .png")
    args = parser.parse_args()
    if args.seconds < 2 * WINDOW_SECONDS + max(args.watermarks):
        parser.error("argument --seconds: too short for the longest watermark to close two windows")
    arrivals = draw_arrivals(args.seconds, args.rate, args.seed)
    prompt = sum(arrival.arrived - arrival.time <= PROMPT_SECONDS for arrival in arrivals) / len(arrivals)
    print(f"machine: {describe_machine()}")
    print(
        f"load: {len(arrivals):,} events of {EVENT_BYTES} bytes, {args.seconds} s of arrival, a batch a second; "
        f"seed {args.seed}\n"
        f"arrival: {1 - TAIL_SHARE:.2%} exponential with mean {MEAN_SECONDS:.3f} s, {TAIL_SHARE:.2%} uniform up to "
        f"{TAIL_SECONDS:g} s; {prompt:.2%} within {PROMPT_SECONDS:g} s",
        flush=True,
    )
    results = []
    with tempfile.TemporaryDirectory(prefix="lateness-") as folder:
        stream = Path(folder) / "in"
        stream.mkdir()
        batches = write_stream(arrivals, args.seconds, args.seed, stream)
        spark = (
            SparkSession.builder.master("local[2]")
            .appName("lateness")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.session.timeZone", "UTC")
            .config("spark.sql.shuffle.partitions", 1)
            .config("spark.sql.streaming.numRecentProgressUpdates", args.seconds + 10)
            .getOrCreate()
        )
        replay = Replay(spark, Path(folder), arrivals, batches)
        began = time.monotonic()
        for done, watermark in enumerate(args.watermarks, 1):
            result = replay.run(watermark, f"watermark {watermark} s")
            results.append(result)
            if args.json:  # after each, so that a run that is cut short leaves what it measured
                args.json.write_text("".join(json.dumps(asdict(each)) + "\n" for each in results))
            left = (time.monotonic() - began) / done * (len(args.watermarks) - done)
            say(f"watermark {watermark} s: done, {result.lost_events} lost; about {left:.0f} s left")
        spark.stop()
    print_table(results)
    batch_seconds = statistics.median(result.batch_median_seconds for result in results)
    print(f"delays are whole seconds of arrival; a batch took {batch_seconds:.2f} s here, which comes on top")
    if args.plot:
        save_plot(results, args.plot)


if __name__ == "__main__":
    main()
