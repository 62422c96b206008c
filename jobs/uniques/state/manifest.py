"""The manifest of a checkpoint: the parameters it was made with, kept beside it.

Spark refuses some changes with a stack trace, ignores others (state partitions), and lets others ruin the state. So
the job compares them itself, before the query starts.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from uniques import __version__
from uniques.errors import UsageError
from uniques.state.checkpoint import last_batch, query_location, read_plan
from uniques.state.sidecar import beside, read_lines, write_lines
from uniques.times import describe_time, parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import SparkSession

MANIFEST = "parameters"
# Which plan the query of a checkpoint has; its state fits no other.
PLAN, PLAN_VERSION = "plan", "2"


def read_parameters(spark: SparkSession, location: str) -> dict[str, str] | None:
    """The parameters, flag -> value, that a checkpoint was made with; None when it is new."""
    lines = read_lines(spark, beside(location, MANIFEST))
    parameters: dict[str, str] | None = json.loads(lines[0]) if lines else None
    return parameters


def check_plan(spark: SparkSession, location: str, window_seconds: int) -> None:
    """Raises UsageError, one line with the way out, when a release with another plan made the checkpoint of a stream.

    Up to 0.1.0 Spark closed windows by its watermark, and wrote them. What it keeps of open ones has other columns.
    """
    made_with = read_parameters(spark, location)
    if made_with is None or made_with.get(PLAN) == PLAN_VERSION:
        return
    query = query_location(location)
    last = last_batch(spark, f"{query}/commits")
    closed = int(read_plan(spark, query, last).watermark) // window_seconds * window_seconds if last >= 0 else 0
    start = f" and --start-time {describe_time(closed)}: all windows before that are written" if closed else ""
    raise UsageError(
        f"--checkpoint-location {location} was made by version {made_with.get('version', '0.1.0')}, whose open windows "
        f"can't go on in version {__version__}: give another --checkpoint-location{start}"
    )


def check_parameters(
    spark: SparkSession,
    location: str,
    parameters: Mapping[str, str],
    implied: Mapping[str, str],
    on_new: Callable[[], None] = lambda: None,
) -> None:
    """Writes the parameters of a new checkpoint, after calling `on_new`; compares those of an old one.

    `implied` are the values of flags that an earlier release did not have. The job's version is written too, and not
    compared. Raises UsageError, one line, with every difference and the ways out.
    """
    made_with = read_parameters(spark, location)
    if made_with is None:
        on_new()
        write_lines(spark, beside(location, MANIFEST), [json.dumps({"version": __version__, **parameters})])
        return
    differences = compare_parameters(made_with, parameters, implied)
    if differences:
        raise UsageError(
            f"--checkpoint-location {location} was made by version {made_with.get('version', '0.1.0')} with "
            f"{', '.join(differences)}: give the same, or another --checkpoint-location, which starts at "
            "--starting-offsets (docs/operate/changes.md says how to switch without a gap)"
        )


def compare_parameters(
    made_with: Mapping[str, str], parameters: Mapping[str, str], implied: Mapping[str, str]
) -> list[str]:
    """What differs, a phrase each, in the order of `parameters`; then the flags that only a newer version knows."""
    differences = []
    for flag, value in parameters.items():
        before = made_with.get(flag, implied.get(flag, "unset"))
        if not are_equal(before, value):
            differences.append(f"{flag} {before} (now {value})")
    newer = [flag for flag in made_with if flag.startswith("--") and flag not in parameters]
    return differences + [f"{flag} {made_with[flag]} (unknown to version {__version__})" for flag in newer]


def are_equal(before: str, now: str) -> bool:
    """Whether two values of a flag mean the same: earlier releases kept a duration as it was given (`60 seconds`)."""
    durations = [parse_duration(text, "second|minute|hour|day") for text in (before, now)]
    return before == now or (durations[0] is not None and durations[0] == durations[1])
