"""Ways to count the users of a minute: error against the promised bound, memory and speed: `make bench ARGS=counters`.

Every counter counts the same number of seeded draws, each a minute of users that are in no other. A counter promises a
standard error; all draws together show whether its errors keep to it. Speed is measured apart, on few draws in which
every user has two events, in turns.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasketches import hll_sketch, update_theta_sketch
from matplotlib.lines import Line2D
from pyspark.sql import functions as F
from report import COLOURS, make_table, save_bars, save_plot, show_spread, start_plot
from rows import alternate, ratios
from session import choose_memory, start_session
from uniques.core.counts import Counter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from pyspark.sql import Column, DataFrame, SparkSession
    from rows import Recorder, Row

    Hashes = NDArray[np.uint64]

PACKAGES = ("datasketches", "numpy", "pyarrow")
CORES = 2
LG_K = 12
# As many bits as HyperLogLog has in 2^12 registers of a byte.
BITMAP_BITS = 8 << LG_K
UID_LENGTH = 20
# Users of a minute, and draws of it; fewer draws where they take long.
DRAWS = {1_000: 400, 20_000: 200, 100_000: 100}
# Shares of a normal distribution within 1, 2 and 3 standard errors.
SHARES = {1: math.erf(1 / math.sqrt(2)), 2: math.erf(2 / math.sqrt(2)), 3: math.erf(3 / math.sqrt(2))}
# A counter that keeps its promise is said to break it no more often than this, a level.
FALSE_ALARMS = 0.001
EVENTS_A_SECOND = "million events a second"
PYTHON_BASE = "Python: set"
SPARK_BASE = "Spark: events only"
SPARK_EXACT = "Spark: collect_set"
# Draws that the state store is looked at with, and users of all draws together that are counted exactly.
STATE_DRAWS = 10
EXACT_USERS = 2_000_000


@dataclass(frozen=True)
class State:
    """What counting a minute leaves: the users counted, and the bytes it takes to keep and, if it can be, to write."""

    users: float
    kept: int
    written: int | None = None


@dataclass(frozen=True)
class PythonWay:
    """A counter in plain Python: what it collects of a minute, and what that says.

    `promise`: the relative standard error that it promises for a number of users, 0 when it is exact.
    """

    collect: Callable[[list[str]], Any]
    look: Callable[[Any], State]
    promise: Callable[[int], float]


@dataclass(frozen=True)
class SparkWay:
    """A counter in Spark: the aggregate `counted`, and what that says; `written`: bytes, null where it can't be."""

    aggregate: Column
    users: Column
    written: Column
    promise: float


def draw_users(users: int, seed: int, copies: int = 1) -> list[str]:
    """Seeded users, each `copies` times, as strings that nothing has hashed before."""
    text = random.Random(seed).randbytes(users * UID_LENGTH // 2).hex()
    return [text[at : at + UID_LENGTH] for _ in range(copies) for at in range(0, len(text), UID_LENGTH)]


def hash_texts(texts: Sequence[str]) -> Hashes:
    """A 64-bit hash of each text: the finalizer of MurmurHash3, over 8 bytes after the other."""
    values = np.array([text.encode() for text in texts])
    width = -(-values.dtype.itemsize // 8)
    words = values.astype(f"S{8 * width}").view(np.uint64).reshape(-1, width)
    hashes: Hashes = np.zeros(len(values), np.uint64)
    for word in words.T:
        mixed = hashes ^ word
        for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
            mixed ^= mixed >> np.uint64(33)
            mixed *= np.uint64(factor)
        mixed ^= mixed >> np.uint64(33)
        # Behind a text's end there are zeros up to the end of the longest one.
        np.copyto(hashes, mixed, where=word != 0)
    return hashes


def count_linearly(hashes: Hashes, bits: int) -> float:
    """Linear counting: -m ln(share of the m bits that no hash has set); infinite when all are set.

    Whang, Vander-Zanden, Taylor, "A Linear-Time Probabilistic Counting Algorithm for Database Applications", 1990.
    """
    bitmap = np.zeros(bits, np.bool_)
    bitmap[hashes % np.uint64(bits)] = True
    empty = bits - int(np.count_nonzero(bitmap))
    return -bits * math.log(empty / bits) if empty else math.inf


def promise_linear(users: int, bits: int) -> float:
    """One standard error of linear counting, relative: sqrt(m (e^t - t - 1)) / n, t = n / m (Whang et al. 1990)."""
    load = users / bits
    return math.sqrt(bits * (math.exp(load) - load - 1)) / users


def collect_hll(uids: list[str]) -> hll_sketch:
    """A sketch of DataSketches."""
    sketch = hll_sketch(LG_K)
    for uid in uids:
        sketch.update(uid)
    return sketch


def collect_theta(uids: list[str]) -> update_theta_sketch:
    """A sketch of DataSketches."""
    sketch = update_theta_sketch(LG_K)
    for uid in uids:
        sketch.update(uid)
    return sketch


def collect_array(uids: list[str]) -> tuple[pa.Array, int]:
    """All values, and how many they are."""
    values = pa.array(uids)
    return values, pc.count_distinct(values).as_py()


def look_at_set(found: set[str]) -> State:
    """A set, its strings included."""
    return State(len(found), sys.getsizeof(found) + sum(map(sys.getsizeof, found)), sum(map(len, found)))


def look_at_hll(sketch: hll_sketch) -> State:
    """As large as it is written."""
    updatable, compact = sketch.get_updatable_serialization_bytes(), sketch.get_compact_serialization_bytes()
    return State(sketch.get_estimate(), updatable, compact)


def look_at_theta(sketch: update_theta_sketch) -> State:
    """As large as it is written."""
    written = len(sketch.compact().serialize())
    return State(sketch.get_estimate(), written, written)


def make_python_ways() -> dict[str, PythonWay]:
    """All of them, by name."""

    def promise_nothing(_users: int) -> float:
        return 0.0

    hll_error = max(abs(hll_sketch.get_rel_err(upper, False, LG_K, 1)) for upper in (True, False))
    return {
        PYTHON_BASE: PythonWay(set, look_at_set, promise_nothing),
        "numpy: unique": PythonWay(
            lambda uids: np.unique(np.array([uid.encode() for uid in uids])),
            lambda found: State(len(found), found.nbytes, found.nbytes),
            promise_nothing,
        ),
        # All values have to be kept until they are counted.
        "pyarrow: count_distinct": PythonWay(
            collect_array,
            lambda found: State(found[1], found[0].nbytes),
            promise_nothing,
        ),
        f"numpy: linear counting, 2^{LG_K + 3} bits": PythonWay(
            lambda uids: count_linearly(hash_texts(uids), BITMAP_BITS),
            lambda users: State(users, BITMAP_BITS // 8, BITMAP_BITS // 8),  # as bits
            partial(promise_linear, bits=BITMAP_BITS),
        ),
        f"DataSketches: HLL, lg_k {LG_K}": PythonWay(collect_hll, look_at_hll, lambda _: hll_error),
        f"DataSketches: theta, lg_k {LG_K}": PythonWay(collect_theta, look_at_theta, lambda _: 2 ** (-LG_K / 2)),
    }


def make_spark_ways() -> dict[str, SparkWay]:
    """All of them, by name: the job's own counters as the job uses them, and theta."""

    def use(counter: Counter, written: Column | None = None) -> SparkWay:
        nothing = F.lit(None).cast("int")
        return SparkWay(
            counter.aggregates()[0],
            counter.unique_users(),
            nothing if written is None else written,
            counter.relative_error,
        )

    return {
        SPARK_EXACT: use(Counter("exact")),
        **{f"Spark: approx_count_distinct, rsd {rsd}": use(Counter(rsd=rsd)) for rsd in (0.05, 0.02, 0.01)},
        **{
            f"Spark: hll_sketch_agg, lgK {lg_k}": use(Counter("hll_sketch", lg_k=lg_k), F.length("counted"))
            for lg_k in (10, 12, 14)
        },
        f"Spark: theta_sketch_agg, lgK {LG_K}": SparkWay(
            F.theta_sketch_agg("uid", LG_K).alias("counted"),
            F.theta_sketch_estimate("counted").alias("unique_users"),
            F.length("counted"),
            2 ** (-LG_K / 2),
        ),
    }


def record_errors(recorder: Recorder, name: str, users: int, promise: float, found: Sequence[float]) -> None:
    """A row with every draw's error."""
    errors = [count / users - 1 for count in found]
    recorder.add(name, "error", "of the count", errors, users=users, draws=len(errors), promised=promise)


def measure_python(recorder: Recorder, rounds: int, draws: dict[int, int], speed: tuple[int, int]) -> None:
    """The counters in plain Python: errors and bytes of all draws, then speed."""
    ways = make_python_ways()
    for name, way in ways.items():
        for users, number in draws.items():
            states = [way.look(way.collect(draw_users(users, seed))) for seed in range(number)]
            record_errors(recorder, name, users, way.promise(users), [state.users for state in states])
            recorder.add(name, "kept", "bytes", [state.kept for state in states], users=users)
            written = [state.written for state in states if state.written is not None]
            if written:
                recorder.add(name, "written", "bytes", written, users=users)

    users, number = speed

    def run(way: PythonWay) -> float:
        seconds = 0.0
        for seed in range(number):
            uids = draw_users(users, seed, copies=2)
            began = time.perf_counter()
            way.collect(uids)
            seconds += time.perf_counter() - began
        return 2 * users * number / seconds

    record_speed(
        recorder, alternate({name: partial(run, way) for name, way in ways.items()}, rounds), users, PYTHON_BASE
    )


def record_speed(recorder: Recorder, rates: dict[str, list[float]], users: int, base: str) -> None:
    """Rates, and what they are of the base."""
    for name, values in rates.items():
        recorder.add(name, "rate", "events/s", values, users=users)
        recorder.add(name, "ratio", f"of {base}", ratios(values, rates[base]), users=users)


def make_draws(spark: SparkSession, users: int, draws: int, copies: int = 1) -> DataFrame:
    """Seeded draws in one frame: `draw`, and `uid` STRING, each `copies` times; all parts have users of a draw."""
    rows = spark.range(0, copies * draws * users, 1, 2 * CORES).withColumn("id", F.col("id") % (draws * users))
    return rows.select((F.col("id") % draws).alias("draw"), F.hex(F.xxhash64("id", F.lit("uid"))).alias("uid"))


def measure_state(spark: SparkSession, folder: Path, way: SparkWay, draws: int) -> float:
    """Bytes that a streaming query keeps of a draw, as its state store tells; the draws lie in a folder."""
    source = spark.readStream.schema("draw BIGINT, uid STRING").parquet(str(folder))
    counts = source.groupBy("draw").agg(way.aggregate).select("draw", way.users)
    with tempfile.TemporaryDirectory(prefix="bench-") as checkpoint:
        writer = counts.writeStream.format("noop").outputMode("update").option("checkpointLocation", checkpoint)
        query = writer.trigger(availableNow=True).start()
        query.awaitTermination()
    (state,) = query.recentProgress[-1].stateOperators
    return int(state.customMetrics["stateOnCurrentVersionSizeBytes"]) / draws


def measure_spark(recorder: Recorder, rounds: int, draws: dict[int, int], speed: tuple[int, int]) -> None:
    """The counters in Spark: errors of all draws, bytes, then speed."""
    spark = start_session("counters", choose_memory(recorder.quick), CORES)
    # Or else Spark sorts as soon as a task has 128 groups.
    spark.conf.set("spark.sql.objectHashAggregate.sortBased.fallbackThreshold", "10000")
    ways = make_spark_ways()
    for users, number in draws.items():
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            make_draws(spark, users, STATE_DRAWS).write.parquet(f"{folder}/draws")
            for name, way in ways.items():
                # Sets of all draws would not fit.
                exact = min(number, EXACT_USERS // users)
                frame = make_draws(spark, users, exact if name == SPARK_EXACT else number)
                found = (
                    frame.groupBy("draw").agg(way.aggregate).select(way.users, way.written.alias("written")).collect()
                )
                record_errors(recorder, name, users, way.promise, [row["unique_users"] for row in found])
                kept = measure_state(spark, Path(folder) / "draws", way, STATE_DRAWS)
                recorder.add(name, "kept", "bytes", [kept], users=users)
                written = [row["written"] for row in found if row["written"] is not None]
                if written:
                    recorder.add(name, "written", "bytes", written, users=users)
    users, number = speed
    events = make_draws(spark, users, number, copies=2).persist()
    rows = events.count()

    def run(aggregate: Column, users: Column) -> float:
        began = time.perf_counter()
        events.groupBy("draw").agg(aggregate).select("draw", users).write.format("noop").mode("overwrite").save()
        return rows / (time.perf_counter() - began)

    base = {SPARK_BASE: partial(run, F.count(F.lit(1)).alias("counted"), F.col("counted"))}
    timed = {name: partial(run, way.aggregate, way.users) for name, way in ways.items()}
    rates = alternate({**base, **timed}, rounds)
    spark.stop()
    record_speed(recorder, rates, users, SPARK_BASE)


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures both: errors and bytes once, as they are the same each time, and speed in rounds."""
    draws, speed = ({1_000: 100}, (1_000, 50)) if recorder.quick else (DRAWS, (20_000, 25))
    measure_python(recorder, rounds, draws, speed)
    measure_spark(recorder, rounds, draws, speed)


def count_within(errors: Sequence[float], promised: float, level: int) -> int:
    """How many errors are no larger than `level` promised standard errors."""
    return sum(abs(error) <= level * promised for error in errors)


def least_within(draws: int, share: float) -> int:
    """How many of the draws a counter must have within a bound that holds for `share` of them.

    Fewer happen by chance in at most FALSE_ALARMS of all cases (the binomial distribution).
    """
    below = 0.0
    for number in range(draws + 1):
        below += math.comb(draws, number) * share**number * (1 - share) ** (draws - number)
        if below > FALSE_ALARMS:
            return number
    return draws


def keeps_promise(row: Row) -> bool:
    """Whether the errors of all draws are as small as promised; those of an exact counter must be 0."""
    promised = float(row.parameters["promised"] or 0)
    if not promised:
        return not any(row.values)
    return all(
        count_within(row.values, promised, level) >= least_within(len(row.values), share)
        for level, share in SHARES.items()
    )


def save_errors(rows: Sequence[Row], path: Path) -> None:
    """The errors of every draw as points, with 2 promised standard errors, as SVG."""
    names = list(dict.fromkeys(row.what for row in rows))
    sizes = sorted({int(row.parameters["users"] or 0) for row in rows})
    figure, axes = start_plot("Errors of counters", "error of a draw, % of its users", height=0.7 * len(names) + 1.4)
    scatter = random.Random(0)
    lane = 0.8 / len(sizes)
    for row in rows:
        index = sizes.index(int(row.parameters["users"] or 0))
        place = names.index(row.what) - 0.4 + lane * (index + 0.5)
        bound = 200 * float(row.parameters["promised"] or 0)
        axes.barh(place, 2 * bound, lane * 0.9, left=-bound, color="#DDDDDD", edgecolor="#888888", linewidth=0.5)
        axes.plot(
            [100 * error for error in row.values],
            [place + lane * scatter.uniform(-0.3, 0.3) for _ in row.values],
            ".",
            markersize=2.5,
            color=COLOURS[index],
        )
    axes.axvline(0, color="#444444", linewidth=0.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    marks = [Line2D([], [], linestyle="", marker="o", color=COLOURS[index]) for index in range(len(sizes))]
    band = Line2D([], [], color="#DDDDDD", linewidth=6)
    figure.legend(
        [*marks, band],
        [*(f"{size:,} users" for size in sizes), "±2 promised standard errors"],
        loc="outside lower center",
        ncols=len(sizes) + 1,
        frameon=False,
    )
    save_plot(figure, path)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    errors = [row for row in rows if row.metric == "error"]
    sizes = sorted({int(row.parameters["users"] or 0) for row in errors})
    rates = [row for row in rows if row.metric == "rate"]
    names = list(dict.fromkeys(row.what for row in errors))
    by_name = {name: [row for row in errors if row.what == name] for name in names}
    broken = [name for name, found in by_name.items() if not all(map(keeps_promise, found))]
    save_errors([row for row in errors if row.parameters["promised"]], plots / "counters.svg")
    millions = [replace(row, values=[value / 1e6 for value in row.values]) for row in rates]
    spark = [row for row in millions if row.what.startswith("Spark")]
    python = [row for row in millions if row not in spark]
    save_bars(python, plots / "counters_python.svg", "Speed of counters in plain Python, one thread", EVENTS_A_SECOND)
    save_bars(spark, plots / "counters_spark.svg", f"Speed of counters in Spark, {CORES} cores", EVENTS_A_SECOND)
    draws = max(len(row.values) for row in errors)
    verdict = (
        f"All {len(names)} counters keep their promise."
        if not broken
        else f"{len(broken)} of {len(names)} counters break their promise: {', '.join(broken)}."
    )
    return (
        "## Counting users\n\nEvery counter counts the users of seeded minutes. One that is not exact promises a "
        f"standard error. **{verdict}**\n\n![Errors of all draws](plots/counters.svg)\n\n"
        + make_table(
            [
                "",
                "promised s.e.",
                *(f"rms error, {size:,} users" for size in sizes),
                "largest, in s.e.",
                "within 1 / 2 / 3 s.e.",
                "draws",
                "promise",
            ],
            [describe_errors(name, found, sizes) for name, found in by_name.items()],
        )
        + "\nThe rule: for each number of users, the draws within 1, 2 and 3 promised standard errors must be at least "
        + ", ".join(f"{share:.1%}" for share in SHARES.values())
        + f" of all, less what chance takes: a counter that just keeps its promise fails a level in at most "
        f"{FALSE_ALARMS:.1%} of cases. Of {draws} draws that is at least "
        + ", ".join(str(least_within(draws, share)) for share in SHARES.values())
        + ". An exact counter must be exact in every draw.\n\nWhere the bounds come from: approx_count_distinct "
        "1.106 / sqrt(registers), as Spark computes them; hll_sketch_agg sqrt(3 ln 2 - 1) / sqrt(2^lgK) (Flajolet et "
        "al. 2007), as Spark unites sketches on the way; HLL of DataSketches what the library says for sketches that "
        "were never united; theta 1 / sqrt(2^lgK) (DataSketches); linear counting sqrt(m (e^t - t - 1)) / n with m "
        "bits, n users, t = n / m (Whang et al. 1990), which grows with n: a bitmap counts up to about m ln m."
        "\n\n### Memory and speed\n\n![Events a second in Python](plots/counters_python.svg)\n\n"
        "![Events a second in Spark](plots/counters_spark.svg)\n\n"
        + make_table(
            [
                "",
                *(f"kept, bytes, {size:,} users" for size in sizes),
                f"written, bytes, {sizes[-1]:,} users",
                "events/s: median (range)",
                "of its base",
            ],
            [describe_cost(row, rows, sizes) for row in rates],
        )
        + f"\nKept: what one minute's state takes in memory, in Spark as the state store of a streaming query says, of "
        "a sketch of DataSketches as it is written; pyarrow keeps all values until it counts. Written: bytes of a "
        "state that can be united with others later, where there is a form to write it in. Speed: "
        f"{rates[0].parameters['users']:,} users a minute with two events each; in plain Python one thread, from lists "
        f"of strings, base: {PYTHON_BASE}; in Spark {CORES} cores, from a frame in memory, grouped by minute, base: "
        f"{SPARK_BASE}. pandas is left out: nothing else here needs it, and pyarrow counts the same.\n\n"
        "Take an exact counter where the users of a window fit in memory. Take a sketch where they do not, or where "
        "windows must be united: its size stops growing with the users, and its error can be promised.\n"
    )


def describe_errors(name: str, rows: Sequence[Row], sizes: Sequence[int]) -> list[str]:
    """A line of the table of errors."""
    found = {int(row.parameters["users"] or 0): row for row in rows}
    promised = [float(row.parameters["promised"] or 0) for row in rows]
    rms = [
        f"{math.sqrt(sum(error**2 for error in found[size].values) / len(found[size].values)):.2%}"
        if size in found
        else ""
        for size in sizes
    ]
    line = [name, show_range(promised), *rms]
    draws = sum(len(row.values) for row in rows)
    verdict = "kept" if all(map(keeps_promise, rows)) else "**BROKEN**"
    if not any(promised):
        return [*line, "", "", str(draws), verdict]
    largest = max(abs(error) / bound for row, bound in zip(rows, promised, strict=True) for error in row.values)
    within = [
        sum(count_within(row.values, bound, level) for row, bound in zip(rows, promised, strict=True)) / draws
        for level in SHARES
    ]
    return [*line, f"{largest:.1f}", " / ".join(f"{share:.0%}" for share in within), str(draws), verdict]


def show_range(promised: Sequence[float]) -> str:
    """One promise, or the range of several; `exact` for none."""
    low, high = min(promised), max(promised)
    if not high:
        return "exact"
    return f"{low:.2%}" if math.isclose(low, high) else f"{low:.2%} to {high:.2%}"


def describe_cost(rate: Row, rows: Sequence[Row], sizes: Sequence[int]) -> list[str]:
    """A line of the table of memory and speed."""
    found = {(row.metric, row.parameters["users"]): row for row in rows if row.what == rate.what}
    cells = [("kept", size) for size in sizes] + [("written", sizes[-1])]
    return [
        rate.what,
        *(f"{found[cell].median:,.0f}" if cell in found else "" for cell in cells),
        show_spread(rate),
        show_spread(found["ratio", rate.parameters["users"]], 2),
    ]
