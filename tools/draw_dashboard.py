"""Draws the Grafana dashboard as a picture. It needs a Prometheus, and no Grafana.

    python tools/draw_dashboard.py --prometheus http://localhost:9090 --minutes 15 --output docs/operate/dashboard.png

The panels, their queries, positions, units and thresholds come from docker/monitoring/dashboards/unique_users.json.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DASHBOARD = Path(__file__).resolve().parent.parent / "docker" / "monitoring" / "dashboards" / "unique_users.json"
COLUMNS = 24  # Grafana's grid
COLOURS = {"green": "#3a8f4b", "orange": "#d98e04", "red": "#c4314b"}
STEPS = 240
SAMPLE_SECONDS = 5


def ask(prometheus: str, expression: str, start: float, end: float, job: str) -> list[dict[str, Any]]:
    """The series of a range query, with Grafana's variables filled in."""
    # As in Grafana, an interval spans at least four samples, so every rate has the two that it needs.
    interval = max(4 * SAMPLE_SECONDS, round((end - start) / STEPS))
    text = expression.replace("$__rate_interval", f"{interval}s").replace("$job", job)
    fields = {"query": text, "start": start, "end": end, "step": (end - start) / STEPS}
    url = f"{prometheus.rstrip('/')}/api/v1/query_range?{urllib.parse.urlencode(fields)}"
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the user names the server
        series: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    return series


def show_value(value: float, unit: str) -> str:
    """A number as short text, with the panel's unit."""
    if unit == "percentunit":
        return f"{100 * value:.2f} %"
    if unit == "bytes":
        return f"{value / 2**20:,.0f} MiB" if abs(value) >= 2**20 else f"{value / 2**10:,.1f} KiB"
    text = f"{value:,.0f}" if abs(value) >= 10 or value == round(value) else f"{value:.2g}"
    return {"s": f"{text} s", "ops": f"{text}/s"}.get(unit, text)


def choose_colour(value: float, defaults: dict[str, Any]) -> str:
    """The colour of the highest threshold that a value has reached."""
    colour = "green"
    for step in defaults["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    return COLOURS[colour]


def draw_stat(axes: Axes, panel: dict[str, Any], series: list[list[dict[str, Any]]]) -> None:
    """Draws one number on a background in the colour of its threshold."""
    defaults = panel["fieldConfig"]["defaults"]
    axes.set_axis_off()
    values = [float(one["values"][-1][1]) for found in series for one in found]
    text = show_value(values[0], defaults["unit"]) if values else "no data"
    for mapping in defaults["mappings"] if values else []:
        text = mapping["options"].get(f"{values[0]:g}", {}).get("text", text)
    colour = choose_colour(values[0], defaults) if values else "#999999"
    axes.add_patch(mpl.patches.Rectangle((0, 0), 1, 1, transform=axes.transAxes, color=colour))
    axes.text(0.5, 0.4, text, ha="center", va="center", color="white", fontsize=15, fontweight="bold")


def draw_series(axes: Axes, panel: dict[str, Any], series: list[list[dict[str, Any]]]) -> None:
    """Draws lines over time, in UTC."""
    unit = panel["fieldConfig"]["defaults"]["unit"]
    custom = panel["fieldConfig"]["defaults"]["custom"]
    steps = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
    for target, found in zip(panel["targets"], series, strict=True):
        for one in found:
            label = target["legendFormat"]
            for name, value in one["metric"].items():
                label = label.replace("{{" + name + "}}", value)
            points = [(datetime.fromtimestamp(at, timezone.utc), float(value)) for at, value in one["values"]]
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1, drawstyle=steps)
    axes.margins(y=0.25)  # room for the legend
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show_value(value, unit)))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M", tz=timezone.utc))  # type: ignore[no-untyped-call]
    axes.tick_params(labelsize=6)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=6, loc="upper left", ncols=3, frameon=False)


def draw_dashboard(prometheus: str, minutes: float, job: str) -> Figure:
    """All panels of the dashboard, over the last `minutes`."""
    dashboard = json.loads(DASHBOARD.read_text())
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
    figure = Figure(figsize=(14, rows * 0.34), dpi=110, layout=None)
    end = time.time()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        series = [ask(prometheus, target["expr"], end - 60 * minutes, end, job) for target in panel["targets"]]
        stat = panel["type"] == "stat"
        left, margin = (0.004, 0.008) if stat else (0.034, 0.042)
        box = (
            place["x"] / COLUMNS + left,
            1 - (place["y"] + place["h"]) / rows + (0.012 if stat else 0.02),
            place["w"] / COLUMNS - margin,
            place["h"] / rows - (0.035 if stat else 0.046),
        )
        axes = figure.add_axes(box)
        axes.set_title(panel["title"], fontsize=8, loc="left")
        (draw_stat if stat else draw_series)(axes, panel, series)
    return figure


def main() -> None:
    """Draws and saves the picture."""
    parser = argparse.ArgumentParser(description="Draw the Grafana dashboard from a Prometheus, without Grafana.")
    parser.add_argument("--prometheus", default="http://localhost:9090", metavar="URL", help="(default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=15, help="how far back (default: %(default)s)")
    parser.add_argument("--job", default="unique-users", help="Prometheus job of the metrics (default: %(default)s)")
    parser.add_argument("--output", default="dashboard.png", metavar="FILE", help="(default: %(default)s)")
    args = parser.parse_args()
    try:
        figure = draw_dashboard(args.prometheus, args.minutes, args.job)
    except OSError as error:
        parser.exit(1, f"draw_dashboard: error: Prometheus at {args.prometheus} does not answer: {error}\n")
    figure.savefig(args.output)


if __name__ == "__main__":
    main()
