"""What a checkpoint was made with, kept beside it.

Spark refuses some changes with a stack trace, ignores others (state partitions) and lets others ruin the state. So
the folder given as checkpoint location holds `query`, Spark's own, `parameters`, the manifest, `topic-id`, which topic
was read, `punctuation` (see `idle`) and perhaps `transactional-id` (see `transactions`), all written through Spark, so
that any file system Spark can reach will do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from uniques import __version__
from uniques.errors import UsageError
from uniques.state.sidecar import is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def read_parameters(spark: SparkSession, location: str) -> dict[str, str] | None:
    """The parameters a checkpoint was made with, or None when it is new."""
    try:
        rows = spark.read.text(f"{location.rstrip('/')}/parameters").select(F.col("value")).collect()
    except AnalysisException as error:
        if is_missing(error):
            return None
        raise UsageError(f"--checkpoint-location {location}: {str(error).splitlines()[0]}") from error
    parameters: dict[str, str] | None = json.loads(rows[0].value) if rows else None
    return parameters


def check_parameters(
    spark: SparkSession,
    location: str,
    parameters: Mapping[str, str],
    implied: Mapping[str, str],
    on_new: Callable[[], None],
) -> None:
    """Writes `parameters` (flag -> value) for a new checkpoint, after `on_new`; compares them for an old one.

    `implied` are the values of flags that some release did not have yet: what a checkpoint without them was made with.
    The job's version is written beside them, and never compared. Raises UsageError, one line, that lists every
    difference and the ways out.
    """
    made_with = read_parameters(spark, location)
    if made_with is None:
        on_new()
        row = spark.createDataFrame([(json.dumps({"version": __version__, **parameters}),)], "value STRING")
        row.coalesce(1).write.mode("overwrite").text(f"{location.rstrip('/')}/parameters")
        return
    differences = compare_parameters(made_with, parameters, implied)
    if differences:
        raise UsageError(
            f"--checkpoint-location {location} was made by version {made_with.get('version', '0.1.0')} with "
            f"{', '.join(differences)}: give the same, or another --checkpoint-location, which starts at "
            '--starting-offsets (README, "Changes": how to switch without a gap)'
        )


def compare_parameters(
    made_with: Mapping[str, str], parameters: Mapping[str, str], implied: Mapping[str, str]
) -> list[str]:
    """What differs, a phrase each, in the order of `parameters`; then the flags that only a newer version knows."""
    differences = []
    for flag, value in parameters.items():
        before = made_with.get(flag, implied.get(flag, "unset"))
        if before != value:
            differences.append(f"{flag} {before} (now {value})")
    newer = [flag for flag in made_with if flag.startswith("--") and flag not in parameters]
    return differences + [f"{flag} {made_with[flag]} (unknown to version {__version__})" for flag in newer]
