# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Notebook: the counting functions, and what the benchmarks measured
#
# This page is a notebook, `docs/start/notebook.py`, that `make docs` executes. To work with it, open that file in
# Jupyter with jupytext, from a clone after `make install`.
#
# The job is made of functions from DataFrame to DataFrame. They work on a stream and on a static frame alike, so here
# they count a few lines.

# %%
import sys
from pathlib import Path

ROOT = next(folder for folder in [Path.cwd(), *Path.cwd().parents] if (folder / "jobs").is_dir())
sys.path[:0] = [str(ROOT / "jobs"), str(ROOT / "benchmarks")]

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.core.counts import Counter, count_unique_users, make_records
from uniques.core.events import accept_events, parse_events

spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.sql.session.timeZone", "UTC")
    .config("spark.sql.shuffle.partitions", "2")
    .getOrCreate()
)

# %% [markdown]
# ## Parse and validate
#
# `parse_events` keeps one row a record. A record that can't be counted gets a reason, and never raises.

# %%
lines = [
    '{"ts": 1468244384, "uid": "ann"}',
    '{"uid": "ben", "ts": "1468244399", "page": {"ts": 1, "uid": "nested fields do not matter"}}',
    '{"ts": 1468244399, "uid": "ann"}',
    '{"ts": 1468244400, "uid": "ann"}',
    '{"ts": 1468244401, "uid": "cid"}',
    '{"ts": "last Monday", "uid": "dan"}',
    '{"ts": 1468244384}',
    "no JSON",
]
parsed = parse_events(spark.createDataFrame([(line,) for line in lines], "value STRING"))
parsed.select("event_time", "uid", "reject_reason").show(truncate=False)

# %% [markdown]
# ## Count
#
# `accept_events` keeps the events that count; `count_unique_users` gives a row for every window. `ann` was there in
# both minutes.

# %%
counts = count_unique_users(accept_events(parsed))
counts.orderBy("window_start").show(truncate=False)

# %% [markdown]
# `make_records` turns the rows into what the job writes to Kafka.

# %%
for record in make_records(counts, Counter(), final=True, revision=0).orderBy("key").collect():
    print(record.key, record.value)

# %% [markdown]
# ## Merge
#
# Counts of minutes can't be added up: two users and two users are three here. Sketches can be merged.

# %%
counter = Counter("hll_sketch", with_sketch=True)
sketches = count_unique_users(accept_events(parsed), counter=counter)
sketches.select(
    F.sum("unique_users").alias("added_up"),
    F.hll_sketch_estimate(F.hll_union_agg("sketch")).alias("merged"),
).show()

# %%
spark.stop()

# %% [markdown]
# ## What the benchmarks measured
#
# Every benchmark leaves its rows in `benchmarks/results.jsonl`: what was measured, and the value of every repetition.
# Bars are medians; the lines on them go from the smallest to the largest repetition. Two cores, broker on the same
# ones, events of 2 kB. More in the [report](../performance/report.md).

# %%
import matplotlib.pyplot as plt
from matplotlib_inline.backend_inline import set_matplotlib_formats
from report import COLOURS
from rows import read_rows

set_matplotlib_formats("svg")
plt.rcParams["svg.hashsalt"] = "unique-users"  # the same names in a plot each time it is drawn
rows = read_rows(ROOT / "benchmarks" / "results.jsonl")


def find(question, metric):
    """The rows of a question with a metric."""
    return [row for row in rows if row.question == question and row.metric == metric]


def draw_bars(found, axis):
    """A bar for each row: its median, with the range of its repetitions."""
    _, axes = plt.subplots(figsize=(8, 0.4 * len(found) + 1), layout="constrained")
    for place, row in enumerate(found):
        low, high = row.spread
        axes.barh(place, row.median, xerr=[[row.median - low], [high - row.median]], color=COLOURS[0], capsize=3)
    axes.set_yticks(range(len(found)), [row.what for row in found])
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    axes.spines[["top", "right"]].set_visible(False)
    plt.show()


# %% [markdown]
# The whole job, Kafka to Kafka, beside reading alone:

# %%
draw_bars(find("throughput", "rate"), "events/s")

# %% [markdown]
# The same work in other engines:

# %%
draw_bars(find("engines", "rate"), "events/s")

# %% [markdown]
# Two fields out of JSON, in Spark:

# %%
draw_bars([row for row in find("parsers", "rate") if row.parameters["where"] == "Spark"], "events/s")

# %% [markdown]
# Errors of the default counter over seeded draws, in standard errors that it promises. 68 % should be within one of
# them, 99.7 % within three:

# %%
_, axes = plt.subplots(figsize=(8, 3), layout="constrained")
for place, row in enumerate(
    row for row in find("counters", "error") if row.what == "Spark: approx_count_distinct, rsd 0.02"
):
    errors = [error / row.parameters["promised"] for error in row.values]
    label = f"{row.parameters['users']:,} users, {len(errors)} draws"
    axes.hist(errors, bins=[step / 4 for step in range(-12, 13)], histtype="step", color=COLOURS[place], label=label)
axes.set_xlabel("error, in promised standard errors")
axes.set_ylabel("draws")
axes.legend(frameon=False)
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown]
# From a window's end to its result, 60 windows a line:

# %%
_, axes = plt.subplots(figsize=(8, 3), layout="constrained")
delays = find("latency", "delay")
axes.boxplot([row.values for row in delays], vert=False, whis=(0, 100))
axes.set_yticks(range(1, len(delays) + 1), [row.what for row in delays])
axes.invert_yaxis()
axes.set_xlabel("seconds, 5 of them the watermark")
axes.spines[["top", "right"]].set_visible(False)
plt.show()
