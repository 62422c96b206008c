"""Input with an end, from a file: what is counted, what is said."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING

import pytest
from uniques.apps import count
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

EVENT = '{"ts":1468244384,"uid":"a"}\n'
WORD = '{"ts":"soon","uid":"a"}\n'
ALL_REJECTED = "{0} of {0} records were rejected, {0} of them as {1}: "


@pytest.mark.parametrize(
    ("lines", "windows", "rejected", "hint"),
    [
        ("", 0, {}, None),
        ("x\n", 0, {"not_json": 1}, ALL_REJECTED.format(1, "not_json") + "events are JSON objects, one a record;"),
        (WORD * 2, 0, {"bad_ts": 2}, ALL_REJECTED.format(2, "bad_ts") + "--time-format says how"),
        (EVENT + WORD, 1, {"bad_ts": 1}, None),
        (
            EVENT + "{}\n" + WORD * 2,
            1,
            {"missing_ts": 1, "bad_ts": 2},
            "3 of 4 records were rejected, 2 of them",
        ),
    ],
    ids=["empty", "rubbish", "word", "half", "most"],
)
def test_input_with_few_or_no_events_ends_with_its_account_and_says_which_flag_helps(
    spark: SparkSession,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    lines: str,
    windows: int,
    rejected: dict[str, int],
    hint: str | None,
) -> None:
    (tmp_path / "events.jsonl").write_text(lines)
    flags = ["--input", str(tmp_path / "events.jsonl"), "--output", "-", "--counter", "exact"]
    with caplog.at_level("INFO", "uniques"):
        count.run(spark, count.parse_settings([*flags, "--summary", str(tmp_path / "summary")]), StopSignal())
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["final"], record["revision"]) for record in records] == [(True, 0)] * windows
    summary = json.loads((tmp_path / "summary").read_text())
    assert summary["read"] == lines.count("\n")
    assert summary["rejected_by_reason"] == rejected
    assert summary["counted"] == summary["read"] - sum(rejected.values())
    assert summary["exact"]
    if hint:
        assert caplog.messages[-1].startswith(f"warning: {hint}")
    else:
        assert caplog.messages[-1].startswith("summary: ")


@pytest.mark.parametrize(
    ("given", "events"),
    [("first.jsonl", 1), ("more events.jsonl.gz", 2), ("*.jsonl", 1), ("*", 3), (".", 3)],
    ids=["file", "packed file with a space in its name", "pattern", "pattern of all", "folder"],
)
def test_a_backfill_reads_a_file_a_pattern_and_a_folder(
    spark: SparkSession, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: str, events: int
) -> None:
    folder = tmp_path / "history"
    folder.mkdir()
    (folder / "first.jsonl").write_text(EVENT)
    (folder / "more events.jsonl.gz").write_bytes(gzip.compress(EVENT.encode() * 2))
    flags = ["--backfill", "--input", str(folder / given), "--output", "-", "--counter", "exact"]
    count.run(spark, count.parse_settings([*flags, "--checkpoint-location", str(tmp_path / "c")]), StopSignal())
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(record["unique_users"], record["events"]) for record in records] == [(1, events)]
