from __future__ import annotations

import pytest
from unique_users import IMPLIED_PARAMETERS, fixed_parameters, make_parser
from uniques import __version__
from uniques.checkpoint import compare_parameters

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
