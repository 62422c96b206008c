"""The small files beside a checkpoint: one reader and one writer, both through Spark."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.errors import AnalysisException

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def is_missing(error: AnalysisException) -> bool:
    """Whether what was to be read does not exist."""
    # Spark 3.5 has the older name only.
    condition = error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    return condition == "PATH_NOT_FOUND"


def keep_line(spark: SparkSession, location: str, name: str, text: str) -> str:
    """The line kept under `name` beside a checkpoint; `text`, which is then kept, when there is none."""
    path = f"{location.rstrip('/')}/{name}"
    try:
        rows = spark.read.text(path).collect()
    except AnalysisException as error:
        if not is_missing(error):
            raise
        rows = []
    if rows:
        kept: str = rows[0].value
        return kept
    spark.createDataFrame([(text,)], "value STRING").coalesce(1).write.mode("overwrite").text(path)
    return text
