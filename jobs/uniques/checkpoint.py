"""What a checkpoint was made with, kept beside it.

Spark refuses some changes with a stack trace, ignores others (state partitions) and lets others ruin the state. So
the folder given as checkpoint location holds `query`, Spark's own, `parameters`, the manifest, `topic-id`, which topic
was read, `punctuation` (see `idle`) and perhaps `transactional-id` (see `transactions`), all written through Spark, so
that any file system Spark can reach will do.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import functions as F

from uniques import __version__
from uniques.lifecycle import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql import SparkSession


def query_location(location: str) -> str:
    """The folder for the query's own checkpoint."""
    return f"{location.rstrip('/')}/query"


def punctuation_location(location: str) -> str:
    """The folder for the times that close idle windows."""
    return f"{location.rstrip('/')}/punctuation"


def is_missing(error: AnalysisException) -> bool:
    """Whether what was to be read does not exist."""
    # Spark 3.5 has the older name only.
    condition = error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    return condition == "PATH_NOT_FOUND"


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


def keep_text(spark: SparkSession, location: str, name: str, text: str) -> str:
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


def last_batch(spark: SparkSession, log: str) -> int:
    """The last batch in one of the logs of a query's checkpoint, -1 for none."""
    try:
        # Of these files only the names are read: what is in them may be damaged.
        paths = spark.read.text(log).inputFiles()
    except AnalysisException as error:
        if not is_missing(error):
            raise
        return -1
    names = [path.rpartition("/")[2] for path in paths]
    return max((int(name) for name in names if name.isdecimal()), default=-1)


@contextmanager
def explained_damage(spark: SparkSession, location: str) -> Iterator[None]:
    """Raises UsageError, one line, when what is done inside fails and a file of the checkpoint is damaged."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        damage = find_damage(spark, query_location(location), f"{error} {error.__cause__}")
        if damage:
            raise UsageError(f"--checkpoint-location {location}: {damage}") from error
        raise


def find_damage(spark: SparkSession, location: str, message: str) -> str | None:
    """What is damaged in a query's checkpoint, as after a power cut, and the way out; None when nothing is.

    Looks at the last file of each log; damaged state shows in the `message` of the failure.
    """
    planned, finished = (last_batch(spark, f"{location}/{log}") for log in ("offsets", "commits"))
    if planned >= 0 and not is_whole(spark, f"{location}/offsets/{planned}"):
        damaged, files = f"offsets/{planned}", [f"offsets/{planned}"]
        # The batch is planned anew, so it can't be finished.
        files += [f"commits/{planned}"] if finished == planned else []
    elif finished >= 0 and not is_whole(spark, f"{location}/commits/{finished}"):
        damaged, files = f"commits/{finished}", [f"commits/{finished}"]
    elif "CANNOT_LOAD_STATE_STORE" in message:
        # The last batch is done again, from the state before it; Spark does the last one that is planned.
        damaged, files = f"the state of batch {finished}", [f"commits/{finished}"]
        files += [f"offsets/{planned}"] if planned > finished else []
    else:
        return None
    return (
        f"{damaged} is damaged: delete {' and '.join(files)} in {location}, with the .crc file of each; the next start "
        "does the batch again"
    )


def is_whole(spark: SparkSession, path: str) -> bool:
    """Whether a file of a query's logs can be read and ends where it should: a version, then lines of JSON."""
    try:
        rows = spark.read.format("binaryFile").load(path).collect()  # none for an empty file
        version, *lines = bytes(rows[0].content).decode().splitlines() if rows else [""]
        for line in lines:
            if line != "-":  # a source without an offset
                json.loads(line)
    except (PySparkException, Py4JError, ValueError):
        return False
    return bool(lines) and version.startswith("v")
