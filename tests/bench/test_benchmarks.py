"""The benchmarks' own arithmetic, and that each makes its chapter and plots out of rows alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import clients
import counters
import numpy as np
import parsers
import pytest
from rows import Row

if TYPE_CHECKING:
    from pathlib import Path


def make_row(what: str, metric: str, values: list[float], **parameters: str | float | bool) -> Row:
    return Row("any", what, metric, "unit", values, dict(parameters), measured="2026-01-01T00:00:00Z")


def test_linear_counting_is_minus_m_ln_of_the_share_of_empty_bits() -> None:
    # 4 of 8 bits are set, by 6 hashes.
    hashes = np.array([0, 1, 2, 3, 8, 9], np.uint64)
    assert counters.count_linearly(hashes, 8) == pytest.approx(8 * math.log(2))
    assert counters.count_linearly(np.array([], np.uint64), 8) == 0
    assert counters.count_linearly(np.arange(8, dtype=np.uint64), 8) == math.inf
    # Worked out by hand: t = 1, so sqrt(100 (e - 2)) / 100.
    assert counters.promise_linear(100, 100) == pytest.approx(0.0847515, rel=1e-5)


def test_texts_have_hashes_of_their_own_whatever_stands_beside_them() -> None:
    short, long = counters.hash_texts(["a", "ab" * 10])
    assert counters.hash_texts(["a"])[0] == short
    assert len({int(hashed) for hashed in counters.hash_texts(counters.draw_users(10_000, 1))} | {int(long)}) == 10_001


@pytest.mark.parametrize(("draws", "share", "least"), [(1, 0.5, 0), (10, 0.5, 1), (10, 1.0, 10)])
def test_chance_takes_draws_out_of_a_bound(draws: int, share: float, least: int) -> None:
    # 10 coins: no head at all comes once in 1,024 times, one or none in 11 of 1,024.
    assert counters.least_within(draws, share) == least


@pytest.mark.parametrize(
    ("errors", "promised", "kept"),
    [
        ([0.0] * 100, 0.0, True),
        ([0.0] * 99 + [0.001], 0.0, False),
        ([0.01] * 70 + [-0.02] * 25 + [0.03] * 5, 0.01, True),
        ([0.011] * 100, 0.01, False),
        ([0.01] * 100, 0.01, True),
        ([0.01] * 90 + [0.05] * 10, 0.01, False),
    ],
)
def test_a_promise_is_checked_over_all_draws(errors: list[float], promised: float, kept: bool) -> None:
    assert counters.keeps_promise(make_row("any", "error", errors, promised=promised)) is kept


def test_clients_make_a_chapter(tmp_path: Path) -> None:
    names = [clients.LOOPBACK, "aiokafka", *(clients.SPARK + kind for kind in (clients.DEFAULT, clients.TUNED))]
    rows = []
    for name, rate in zip(names, (800.0, 50.0, 100.0, 200.0), strict=True):
        rows += [
            make_row(name, "rate", [rate, rate + 1], events=1_000, limit=name == clients.LOOPBACK),
            make_row(name, "ratio", [rate / 800]),
            make_row(name, "ratio to the job", [rate / 200]),
        ]
    chapter = clients.describe(rows, tmp_path)
    assert "Fastest here: Spark, the job's fetch, 4.0 times as fast as the slowest, aiokafka, and at 25%" in chapter
    assert "is 2.00 times as fast as with its defaults" in chapter
    assert (tmp_path / "clients.svg").stat().st_size > 0


def test_parsers_make_a_chapter(tmp_path: Path) -> None:
    rows = []
    for name, rate in ((parsers.STANDARD, 100.0), ("other", 250.0)):
        rows += [
            make_row(name, "rate", [rate], where="Python"),
            make_row(name, "ratio", [rate / 100], where="Python"),
        ]
    for name, rate in ((parsers.READ_ONLY, 400.0), (parsers.JOB, 100.0), (parsers.FROM_JSON, 50.0), ("other", 150.0)):
        rows += [
            make_row(name, "rate", [rate], where="Spark"),
            make_row(name, "ratio", [rate / 100], where="Spark"),
            make_row(name, "share of JSON", [1 - rate / 400], where="Spark"),
        ]
    chapter = parsers.describe(rows, tmp_path)
    assert "Fastest here: other, 2.5 times as fast as json" in chapter
    assert "Fastest here: other, 1.50 times as fast as the job's way. The job's way, where JSON takes 75%" in chapter
    assert "is 2.0 times as fast as from_json" in chapter
    assert {path.name for path in tmp_path.glob("*.svg")} == {"parsers_python.svg", "parsers_spark.svg"}


def test_every_parser_finds_the_root_fields() -> None:
    line = b'{"ts":"7","data":{"ts":8,"uid":"b"},"uid":"a"}'
    assert {name: parse(line) for name, parse in parsers.make_parsers().items()} == dict.fromkeys(
        parsers.make_parsers(), ("7", "a")
    )


def test_counters_make_a_chapter(tmp_path: Path) -> None:
    rows = [
        make_row("exact", "error", [0.0] * 100, users=1_000, promised=0.0),
        make_row("good", "error", [0.01, -0.01] * 50, users=1_000, promised=0.01),
        make_row("bad", "error", [0.05] * 100, users=1_000, promised=0.01),
    ]
    for name in ("exact", "good", "bad"):
        rows += [
            make_row(name, "rate", [100.0], users=1_000),
            make_row(name, "ratio", [1.0], users=1_000),
            make_row(name, "kept", [4_096.0], users=1_000),
        ]
    chapter = counters.describe(rows, tmp_path)
    assert "1 of 3 counters break their promise: bad." in chapter
    assert "| bad | 1.00% | 5.00% | 5.0 | 0% / 0% / 0% | 100 | **BROKEN** |" in chapter
    assert "| good | 1.00% | 1.00% | 1.0 | 100% / 100% / 100% | 100 | kept |" in chapter
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        "counters.svg",
        "counters_python.svg",
        "counters_spark.svg",
    }
