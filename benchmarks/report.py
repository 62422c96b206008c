"""The report and its plots, made of nothing but the rows in results.jsonl."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from matplotlib import rc_context
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from rows import Row

# Okabe and Ito: told apart by all eyes.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")


def write_report(rows: Sequence[Row], questions: Sequence[str], folder: Path) -> None:
    """Writes REPORT.md and plots/*.svg into a folder: a chapter for every question that has rows."""
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    chapters = []
    for question in questions:
        found = [row for row in rows if row.question == question]
        if found:
            chapters.append(importlib.import_module(question).describe(found, plots) + "\n" + describe_origin(found))
    head = "# How fast, how exact, how late, how much memory\n\nMade by `make bench` out of `results.jsonl`.\n"
    (folder / "REPORT.md").write_text("\n".join([head, *chapters]))


def describe_origin(rows: Sequence[Row]) -> str:
    """Where and when the rows of one question were measured, and the command that measures them again."""
    versions = ", ".join(f"{name} {number}" for name, number in sorted(rows[0].versions.items()))
    return (
        f"Measured {rows[0].measured[:10]} by `make bench ARGS={rows[0].question}`; {rows[0].machine}; {versions}. "
        f"Up to {max(len(row.values) for row in rows)} values a row.\n"
    )


def make_table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; all columns but the first are aligned to the right."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *map(list, body)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def show_spread(row: Row, digits: int = 0) -> str:
    """Median and, in brackets, the smallest and largest repetition."""
    low, high = row.spread
    if len(row.values) == 1:
        return f"{row.median:,.{digits}f}"
    return f"{row.median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def save_bars(rows: Sequence[Row], path: Path, title: str, axis: str) -> None:
    """A horizontal bar a row, its median, with the range of its repetitions, as SVG."""
    figure, axes = start_plot(title, axis, height=0.42 * len(rows) + 1.2)
    for place, row in enumerate(rows):
        low, high = row.spread
        error = [[row.median - low], [high - row.median]]
        axes.barh(place, row.median, xerr=error, color=COLOURS[0], error_kw={"capsize": 3, "ecolor": "#444444"})
        axes.annotate(
            f"{row.median:,.3g}" if row.median < 1_000 else f"{row.median:,.0f}",
            (high, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_yticks(range(len(rows)), [row.what for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    save_plot(figure, path)


def start_plot(title: str, axis: str, height: float = 4.0) -> tuple[Figure, Axes]:
    """A figure of one plot with a title, and a label on the x axis; the caller draws into it."""
    figure = Figure(figsize=(8.0, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.set_xlabel(axis)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_plot(figure: Figure, path: Path) -> None:
    """Writes an SVG that is the same for the same rows."""
    with rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata={"Date": None})
