from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques import __version__
from uniques.apps.count_flags import make_parser
from uniques.apps.pipeline import IMPLIED_PARAMETERS, fixed_parameters
from uniques.errors import JobError, UsageError
from uniques.runtime.failures import explain_failure
from uniques.state.checkpoint import report_damage
from uniques.state.manifest import compare_parameters

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import SparkSession

MADE_BY_0_1_0 = {
    "--input-topic": "in",
    "--window": "1 minute",
    "--rsd": "0.02",
    "--output-mode": "append",
    "--state-partitions": "2",
    "--rejects-topic": "off",
}


@pytest.mark.parametrize(
    ("made_with", "differences"),
    [
        ({"version": "9.9", "--old": "1"}, []),
        ({"--old": "1"}, []),  # made before there was --new and before the version was noted
        ({"--old": "2"}, ["--old 2 (now 1)"]),
        ({"--old": "1", "--new": "other"}, ["--new other (now before)"]),
        ({"--old": "2", "--new": "other"}, ["--old 2 (now 1)", "--new other (now before)"]),
        ({}, ["--old unset (now 1)"]),
        ({"--old": "1", "--newer": "x"}, [f"--newer x (unknown to version {__version__})"]),
    ],
)
def test_every_difference_is_listed(made_with: dict[str, str], differences: list[str]) -> None:
    parameters = {"--old": "1", "--new": "before"}
    assert compare_parameters(made_with, parameters, implied={"--new": "before"}) == differences


def test_a_flag_that_the_first_release_had_not_is_not_taken_for_a_difference() -> None:
    defaults = fixed_parameters(make_parser().parse_args([]))
    assert compare_parameters(MADE_BY_0_1_0, defaults, IMPLIED_PARAMETERS) == []


NO_STATE = "[CANNOT_LOAD_STATE_STORE.UNCATEGORIZED] An error occurred during loading state."
WHOLE = 'v1\n{"batchWatermarkMs":0}\n-\n{"in":{"0":5}}'


@pytest.mark.parametrize(
    ("offsets", "commits", "last_commit", "reason", "damaged"),
    [
        (WHOLE[:-3], "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        (WHOLE[:-3], "v1\n{}", 7, "x", "offsets/7 is damaged: delete offsets/7 and commits/7 in"),
        ("", "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        ("v1\n", "v1\n{}", 6, "x", "offsets/7 is damaged: delete offsets/7 in"),
        (WHOLE, "v1\n{", 6, "x", "commits/6 is damaged: delete commits/6 in"),
        (WHOLE, "", 7, "x", "commits/7 is damaged: delete commits/7 in"),
        (WHOLE, "v1\n{}", 7, NO_STATE, "the state of batch 7 is damaged: delete commits/7 in"),
        (WHOLE, "v1\n{}", 6, NO_STATE, "the state of batch 6 is damaged: delete commits/6 and offsets/7 in"),
    ],
)
def test_a_damaged_checkpoint_is_named_with_the_way_out(
    spark: SparkSession, tmp_path: Path, offsets: str, commits: str, last_commit: int, reason: str, damaged: str
) -> None:
    files = (
        ("offsets", 7, offsets),
        ("offsets", 6, WHOLE),
        ("commits", last_commit, commits),
        ("commits", 5, "v1\n{}"),
    )
    for log, number, content in files:
        (tmp_path / "query" / log).mkdir(parents=True, exist_ok=True)
        (tmp_path / "query" / log / str(number)).write_text(content)
    with pytest.raises(UsageError) as refused, report_damage(spark, str(tmp_path)):
        raise JobError("the query failed") from RuntimeError(reason)
    assert str(refused.value) == (
        f"--checkpoint-location {tmp_path}: {damaged} {tmp_path / 'query'}, with the .crc file of each; the next start "
        "does the batch again"
    )


def test_a_failure_with_a_whole_checkpoint_stays_what_it_is(spark: SparkSession, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"^the query failed$"), report_damage(spark, str(tmp_path)):
        raise JobError("the query failed")


GONE = (
    "events of the input topic are gone before they were read: retention removed them, or the topic was deleted and "
    "made anew; take another --checkpoint-location, which starts with what there is"
)
FULL = (
    "no space left on the disk of --checkpoint-location, or of Spark's local folders: make room and start again, it "
    "goes on where it was"
)


@pytest.mark.parametrize(
    ("message", "status", "said"),
    [
        ("Query [id = a] terminated with: Some data may have been lost because they\n either", 2, GONE),
        ("[FOREACH_BATCH_USER_FUNCTION_ERROR] An\nCaused by: No space left on device", 1, FULL),
        ("[FOREACH_BATCH_USER_FUNCTION_ERROR] An\nPy4JJavaError: An error\n: a.X: aborted\n\tat x", 1, "a.X: aborted"),
        ("[STREAM_FAILED] first\nsecond", 1, "[STREAM_FAILED] first"),
    ],
    ids=["data loss", "full disk", "in foreachBatch", "unknown"],
)
def test_why_a_query_failed_is_one_line_with_the_way_out(message: str, status: int, said: str) -> None:
    error = explain_failure(message)
    assert (error.status, str(error)) == (status, f"the query failed: {said}")


def test_another_size_of_sketches_is_a_difference_where_there_are_sketches() -> None:
    def fixed(*flags: str) -> dict[str, str]:
        return fixed_parameters(make_parser().parse_args(flags))

    for flags in (("--sketch",), ("--counter", "hll_sketch")):
        differences = compare_parameters(fixed(*flags), fixed(*flags, "--lg-k", "14"), {})
        assert differences == ["--lg-k 12 (now 14)"]
    assert compare_parameters(fixed(), fixed("--lg-k", "14"), {}) == []
