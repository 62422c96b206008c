"""The small files beside a checkpoint: one reader and one writer.

Both go through Spark, so every file system that Spark reaches will do. A file is a folder of text, as Spark writes it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import functions as F

from uniques.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession


def beside(location: str, name: str) -> str:
    """The path of the file `name` beside a checkpoint."""
    return f"{location.rstrip('/')}/{name}"


def is_missing(error: Exception) -> bool:
    """Whether what was to be read does not exist."""
    if not isinstance(error, AnalysisException):
        return False
    # Spark 3.5 has the older name only.
    condition = error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    return condition == "PATH_NOT_FOUND"


def read_lines(spark: SparkSession, path: str) -> list[str] | None:
    """The lines of a file; None when there is no such file. Raises JobError, one line, when it can't be read."""
    try:
        return [row["value"] for row in spark.read.text(path).collect()]
    except (PySparkException, Py4JError) as error:
        if is_missing(error):
            return None
        raise explain_unreadable(path, error) from error


def list_names(spark: SparkSession, path: str) -> list[str]:
    """The names of the files in a folder, none where there is no folder; their content is not read.

    Raises JobError, one line, when the folder can't be listed.
    """
    try:
        return [file.rpartition("/")[2] for file in spark.read.text(path).inputFiles()]
    except (PySparkException, Py4JError) as error:
        if is_missing(error):
            return []
        raise explain_unreadable(path, error) from error


def explain_unreadable(path: str, error: Exception) -> JobError:
    """The error for a file that is there and can't be read: rights, a store that is busy or away."""
    # Through py4j what Java says comes behind a line about the call.
    said = re.search(r"^: (.+)", str(error), re.MULTILINE)
    return JobError(f"{path} can't be read: {said[1] if said else str(error).splitlines()[0]}")


def write_lines(spark: SparkSession, path: str, lines: Sequence[str], mode: str = "overwrite") -> None:
    """Writes the lines; `mode` is `overwrite`, or `append`, which adds a file to the folder."""
    # A frame made of Python rows would start a Python worker, which takes seconds when it is the first one.
    rows = spark.range(1).select(F.explode(F.array(*(F.lit(line) for line in lines)).cast("array<string>")))
    rows.coalesce(1).write.mode(mode).text(path)


def keep_line(spark: SparkSession, location: str, name: str, line: str) -> str:
    """The line kept under `name` beside a checkpoint; writes `line` first when there is none."""
    path = beside(location, name)
    kept = read_lines(spark, path)
    if kept:
        return kept[0]
    write_lines(spark, path, [line])
    return line
