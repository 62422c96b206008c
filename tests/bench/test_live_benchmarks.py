"""The chapters of the benchmark report, made of a handful of rows: no Spark, no Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

import batches
import latency
import recovery
import scaling
import settings
from rows import Row

if TYPE_CHECKING:
    from pathlib import Path

    from rows import Parameter


def make_row(question: str, what: str, metric: str, unit: str, values: list[float], **parameters: Parameter) -> Row:
    return Row(question, what, metric, unit, values, parameters, "a machine", {"pyspark": "4.2.0"}, "2026-11-23")


def assert_plot(plots: Path, name: str) -> None:
    assert (plots / name).read_text().startswith("<?xml")


def test_latency_says_whether_p99_holds_at_the_highest_rate(tmp_path: Path) -> None:
    rows = []
    for rate, way, slowest in ((1_000, "at least once", 9.0), (10_000, "at least once", 5.7), (10_000, "other", 6.6)):
        name = f"{rate:,} events/s, {way}"
        delays = [*[5.5] * 97, *[slowest] * 3]
        rows += [
            make_row("latency", name, "delay", "s", delays, rate=rate, way=way, missing=int(way == "other")),
            make_row("latency", name, "generator behind", "s", [0.03]),
            make_row("latency", name, "batch", "s", [0.2, 0.3, 0.4]),
        ]
    chapter = latency.describe(rows, tmp_path)
    assert "- 10,000 events/s, at least once: p99 is 5.70 s; at most watermark + 0.8 s = 5.8 s: holds." in chapter
    assert "- 10,000 events/s, other: p99 is 6.60 s; at most watermark + 0.8 s = 5.8 s: does **not** hold." in chapter
    assert "Windows without a record at the end: 10,000 events/s, other: 1." in chapter
    assert "| 1,000 events/s, at least once | 5.50 | 5.50 | 9.00 | 9.00 | 0.3 | 0.03 |" in chapter
    assert_plot(tmp_path, "latency.svg")


def test_a_percentile_is_a_value_that_occurred() -> None:
    values = [float(value) for value in range(1, 101)]
    assert [latency.take_percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert latency.take_percentile([3.0], 0.5) == 3


def make_scaling_rows() -> list[Row]:
    loads = {(scaling.BASE, ""): scaling.Load()}
    loads |= {(family, line): load for family, lines in scaling.FAMILIES.items() for line, load in lines.items()}
    rows = []
    for (family, line), load in loads.items():
        name = f"{family} {line}".strip()
        place = {"family": family, "line": line}
        rates = [90_000.0, 100_000.0, 120_000.0] if load.cores == 2 else [50_000.0]
        rows.append(make_row("scaling", name, "rate", "events/s", rates, batch=75_000, **place, **vars(load)))
        rows.append(make_row("scaling", name, "ratio", "of base", [load.cores / 2], **place))
    return rows


def make_year_rows(last_heap: float) -> list[Row]:
    rows = []
    for part, heap in (("first quarter", 100.0), ("last quarter", last_heap)):
        for metric, unit, value in (
            ("batch", "s", heap),
            ("rows of state", "rows", 10_000),
            ("heap after GC", "MB", heap),
        ):
            rows.append(make_row("scaling", part, metric, unit, [value], part=part, minutes=1_051_200))
    return rows


def test_scaling_shows_every_family_with_the_base_in_it(tmp_path: Path) -> None:
    chapter = scaling.describe(make_scaling_rows(), tmp_path)
    assert "| cores: 1 | 50,000 | 100 | 0.50 |\n| cores: 2 | 100,000 (90,000 to 120,000) | 200 | base |" in chapter
    assert "| bytes an event: 10,000 | 100,000 (90,000 to 120,000) | 1,000 | 1.00 |" in chapter
    assert chapter.count("| base |") == len(scaling.FAMILIES)
    assert_plot(tmp_path, "scaling.svg")


def test_scaling_says_whether_years_stay_flat(tmp_path: Path) -> None:
    flat, risen = (scaling.describe([*make_scaling_rows(), *make_year_rows(last)], tmp_path) for last in (109.0, 111.0))
    assert "State and driver memory are flat" in flat
    assert "State and driver memory are **not** flat (heap after GC)" in risen
    assert "| heap after GC, MB | 100.0 | 111.0 | 1.11 |" in risen


def test_settings_advises_what_the_rows_say(tmp_path: Path) -> None:
    rows = []
    for name, setting in settings.list_settings((10_000, 1_000_000)).items():
        share = {"state partitions: 200": 0.1, "state in RocksDB": 0.97, settings.FETCH: 0.6}.get(name, 1.0)
        partitions, batch = setting.state_partitions, setting.batch or 250_000
        rows += [
            make_row("settings", name, "rate", "events/s", [share * 1e5], batch=batch, state_partitions=partitions),
            make_row("settings", name, "ratio", "of the defaults", [share]),
            make_row("settings", name, "batch", "s", [batch / (share * 1e5)]),
        ]
    chapter = settings.describe(rows, tmp_path)
    assert "**State partitions**: as good as the best, within 5%: 1, 2, 4, 8. 200 (Spark's own" in chapter
    assert "a batch takes 25.0 s instead of 2.5 s" in chapter
    assert "**State in RocksDB**: 0.97 of the defaults' rate, which is no difference here." in chapter
    assert "**Fetch sizes**: with Kafka's own 0.60 of the defaults' rate." in chapter
    assert_plot(tmp_path, "settings.svg")


def test_recovery_sets_the_ways_side_by_side(tmp_path: Path) -> None:
    rows = [
        make_row("recovery", f"{step}, {way}", step, "s", [10.0, 12.0, 11.0], way=way, rate=1_000, events=300_000)
        for way in recovery.WAYS
        for step in recovery.STEPS
    ]
    chapter = recovery.describe(rows, tmp_path)
    assert "| from spark-submit to the first result | 11.0 (10.0 to 12.0) | 11.0 (10.0 to 12.0) |" in chapter
    assert "300,000 events, is drained 11.0 s after the start, 27,273 events/s" in chapter
    assert_plot(tmp_path, "recovery.svg")


def test_batches_say_which_are_within_what_is_asked(tmp_path: Path) -> None:
    rows = []
    for partitions, milliseconds in ((2, 150.0), (16, 300.0), (64, 310.0)):
        parameters: dict[str, str | float | bool] = {
            "partitions": partitions,
            "flags": batches.BASE[1],
            "events": batches.EVENTS_A_BATCH,
        }
        what = f"{partitions} partitions, {batches.BASE[1]}"
        for metric, unit, value in (("batch", "ms", milliseconds), ("ratio", "", 1.0), ("processes", "a run", 0.0)):
            rows.append(make_row("batches", what, metric, unit, [value], **parameters))
    chapter = batches.describe(rows, tmp_path)
    assert "2 partitions, default flags: 150 ms, within the asked 200 ms" in chapter
    assert "16 partitions, default flags: 300 ms, ABOVE the asked 220 ms" in chapter
    assert chapter.count("| 0 |") == 3
