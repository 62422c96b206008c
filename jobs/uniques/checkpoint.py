"""What a checkpoint was made with, kept beside it.

Spark refuses some changes with a stack trace, ignores others (state partitions) and lets others ruin the state. So
the folder given as checkpoint location holds three: `query`, Spark's own, `parameters`, and `punctuation` (see `idle`),
both written through Spark, so that any file system Spark can reach will do.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from uniques.lifecycle import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession


def query_location(location: str) -> str:
    """The folder for the query's own checkpoint."""
    return f"{location.rstrip('/')}/query"


def punctuation_location(location: str) -> str:
    """The folder for the times that close idle windows."""
    return f"{location.rstrip('/')}/punctuation"


def read_parameters(spark: SparkSession, location: str) -> dict[str, str] | None:
    """The parameters a checkpoint was made with, or None when it is new."""
    try:
        rows = spark.read.text(f"{location.rstrip('/')}/parameters").select(F.col("value")).collect()
    except AnalysisException as error:
        if error.getCondition() == "PATH_NOT_FOUND":
            return None
        raise UsageError(f"--checkpoint-location {location}: {str(error).splitlines()[0]}") from error
    parameters: dict[str, str] | None = json.loads(rows[0].value) if rows else None
    return parameters


def check_parameters(
    spark: SparkSession, location: str, parameters: dict[str, str], on_new: Callable[[], None]
) -> None:
    """Writes `parameters` (flag -> value) for a new checkpoint, after `on_new`; compares them for an old one.

    Raises UsageError, one line, that lists every difference and says what to do.
    """
    made_with = read_parameters(spark, location)
    if made_with is None:
        on_new()
        row = spark.createDataFrame([(json.dumps(parameters),)], "value STRING")
        row.coalesce(1).write.mode("overwrite").text(f"{location.rstrip('/')}/parameters")
        return
    differences = [
        f"{flag} {made_with.get(flag, 'unset')} (now {value})"
        for flag, value in parameters.items()
        if made_with.get(flag) != value
    ]
    if differences:
        raise UsageError(
            f"--checkpoint-location {location} was made with {', '.join(differences)}: give the same, or another "
            "location for a new start"
        )
