"""How other engines are validated, and their chapter of the report, on rows written here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from engines import FAST_NAME, FLINK_NAME, JOB_NAME, QUIX_NAME, count_lines, describe
from generate_events import Event, Settings, generate_events
from rows import Row
from truth import Bounds, Truth, Verdict, compare_results, flip_times, read_leniently

if TYPE_CHECKING:
    from pathlib import Path

    from rows import Parameter

FIRST, SECOND = "2016-07-11T13:39:00Z", "2016-07-11T13:40:00Z"


def make_result(window: str, users: int, events: int) -> dict[str, object]:
    return {"window_start": window, "unique_users": users, "events": events}


def make_row(what: str, metric: str, values: list[float], **parameters: Parameter) -> Row:
    return Row(
        "engines", what, metric, "", values, parameters, "a machine", {"pyspark": "4.2.0"}, "2026-11-23T00:00:00Z"
    )


def make_engine(name: str, rates: list[float]) -> list[Row]:
    validated = [
        row
        for kind in ("as generated", "5 % malformed")
        for row in (
            make_row(name, "right", [16.0, 15.0], input=kind, windows=16, tolerance=0.0),
            make_row(name, "duplicates", [0.0, 2.0], input=kind),
            make_row(name, "others", [1.0, 0.0], input=kind),
            make_row(name, "survived", [1.0, 1.0], input=kind),
        )
    ]
    return [
        make_row(name, "rate", rates, events=1_000_000, small=2_000),
        make_row(name, "ratio", [rate / 60_000 for rate in rates]),
        make_row(name, "start", [10.0, 11.0], events=2_000),
        make_row(name, "total", [25.0, 26.0], events=1_000_000),
        make_row(name, "memory", [900.0, 950.0], events=1_000_000),
        make_row(name, "lines", [80.0], files=1),
        *validated,
    ]


def test_results_are_checked_by_the_bounds_of_their_windows() -> None:
    truth = {FIRST: Bounds((100, 100), (80, 80)), SECOND: Bounds((50, 60), (40, 45))}
    right = [make_result(FIRST, 80, 100), make_result(SECOND, 45, 55)]
    assert compare_results(right, truth, 0.0) == Verdict(right=2, windows=2, duplicates=0, others=0)
    assert compare_results([], truth, 0.0) == Verdict(0, 2, 0, 0)
    # One event too few, one user too many.
    assert compare_results([make_result(FIRST, 80, 99), make_result(SECOND, 46, 50)], truth, 0.0).right == 0
    # An estimate may be off, the number of events may not.
    assert compare_results([make_result(FIRST, 83, 100), make_result(SECOND, 40, 61)], truth, 0.05).right == 1


def test_of_several_results_for_a_window_the_last_counts_and_the_others_are_told() -> None:
    truth = {FIRST: Bounds((100, 100), (80, 80))}
    results = [make_result(FIRST, 7, 9), make_result(FIRST, 80, 100), make_result("2020-01-01T00:00:00Z", 1, 1)]
    assert compare_results(results, truth, 0.0) == Verdict(right=1, windows=1, duplicates=1, others=1)
    assert compare_results(results, truth, 0.0, ignored="2020-01-01T00:00:00Z").others == 0


def test_a_doubtful_event_may_be_counted_or_left_out() -> None:
    truth = Truth()
    for uid in ("a", "b", "a"):
        truth.add(1_468_244_341, uid, certain=True)
    truth.add(1_468_244_399, "b", certain=False)
    truth.add(1_468_244_399, "c", certain=False)
    truth.add(1_468_244_400, "d", certain=False)
    assert truth.bounds() == {FIRST: Bounds((3, 5), (2, 3))}


def test_one_bit_of_some_times_is_flipped_and_the_same_ones_each_time() -> None:
    def flip() -> list[tuple[Event, int | None]]:
        return list(flip_times(generate_events(Settings(events=5_000, size=100)), seed=1))

    flipped = [(event, shown) for event, shown in flip() if shown is not None]
    assert 2 <= len(flipped) <= 30
    for event, shown in flipped:
        assert bin((event.ts or 0) ^ shown).count("1") == 1
        assert b"%d" % shown in event.line
        assert b"%d" % (event.ts or 0) not in event.line
    assert flip() == flip()


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (b'{"ts":5.5,"uid":"a"}', (5, "a")),
        (b'{"ts":"soon","uid":"a"}', None),
        (b'{"uid":"a"}', None),
        (b"[]", None),
        (b"", None),
    ],
)
def test_what_somebody_could_read_of_a_malformed_line(line: bytes, read: tuple[int, str] | None) -> None:
    assert read_leniently(line) == read


def test_lines_of_a_program_are_those_of_code(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        '"""Docstring\nof two lines."""\n\n# comment\nTEXT = """a\nb"""\n\n\ndef run():\n    """Doc."""\n    return 1\n'
    )
    assert count_lines(program) == 4
    other = tmp_path / "Program.java"
    other.write_text("/** Doc\n * doc */\nclass Program {\n    // comment\n\n    int one = 1; // here\n}\n")
    assert count_lines(other) == 3


def test_the_chapter_is_made_of_the_rows_alone(tmp_path: Path) -> None:
    rows = [
        *make_engine(JOB_NAME, [60_000.0, 60_000.0]),
        *make_engine(FAST_NAME, [90_000.0, 96_000.0]),
        *make_engine(FLINK_NAME, [50_000.0, 80_000.0]),
        *make_engine(QUIX_NAME, [10_000.0, 11_000.0]),
        make_row("Kafka Streams", "left out", [0.0], reason="javac: not there"),
    ]
    chapter = describe(rows, tmp_path)
    assert (tmp_path / "engines.svg").stat().st_size > 1_000
    assert f"{FAST_NAME} over {FLINK_NAME}: 1.50 (asked: at least 1.5): **pass**." in chapter
    assert f"{FAST_NAME} over {QUIX_NAME}: 8.86 (asked: at least 5): **pass**." in chapter
    assert f"Of the job's rate, round by round: {FAST_NAME} 1.55 (1.50 to 1.60)" in chapter
    assert "| Flink SQL | 65,000 (50,000 to 80,000) | 1,000,000 | 10.5 (10.0 to 11.0) |" in chapter
    assert "| 31 of 32 +1 2 again |" in chapter
    assert "| | 5 % malformed |" in chapter.replace("|  |", "| |")
    assert "Left out: Kafka Streams: javac: not there." in chapter


def test_without_the_fast_path_its_promises_are_not_measured(tmp_path: Path) -> None:
    rows = [*make_engine(JOB_NAME, [60_000.0, 60_000.0]), *make_engine(FLINK_NAME, [0.0, 50_000.0])]
    chapter = describe(rows, tmp_path)
    assert chapter.count("not measured.") == 2
    assert "**pass**" not in chapter
