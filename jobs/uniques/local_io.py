"""Bounded input from files and standard input, and results on standard output."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote

from pyspark.errors import AnalysisException

from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pyspark.sql import DataFrame, SparkSession


@contextmanager
def open_input(path: str) -> Iterator[str]:
    """The path Spark can read: `path` itself, or for `-` a temporary file with what standard input holds."""
    if path != "-":
        yield path
        return
    # Spark reads files, not pipes. The copy takes disk space, not memory.
    with tempfile.TemporaryDirectory(prefix="unique-users-") as folder:
        copy = Path(folder) / "stdin.jsonl"
        with open_stdin() as source, copy.open("wb") as target:
            shutil.copyfileobj(source, target)
        yield str(copy)


def open_stdin() -> IO[bytes]:
    """Standard input of whoever started the job; raises UsageError where it can't be had.

    spark-submit gives Python an empty standard input, so under it the parent's is opened.
    """
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return sys.stdin.buffer
    try:
        return Path(f"/proc/{os.getppid()}/fd/0").open("rb")
    except OSError as error:
        raise UsageError("--input -: standard input of spark-submit can't be read here; give a file") from error


def read_lines(spark: SparkSession, path: str) -> DataFrame:
    """The lines of a file or folder, `.gz` too, as `value` STRING; raises UsageError when there is none."""
    try:
        # Only a line feed ends a line, as in the tools that load files into Kafka.
        return spark.read.text(path, lineSep="\n").select("value")
    except AnalysisException as error:
        raise UsageError(f"--input {path}: {str(error).splitlines()[0]}") from error


def stream_lines(spark: SparkSession, path: str) -> DataFrame:
    """The same lines as a stream, a file a batch; raises UsageError when there is none."""
    files = [unquote(file.rpartition("/")[2]) for file in read_lines(spark, path).inputFiles()]
    if files == [path.rpartition("/")[2]]:
        # Spark takes the path of a stream for a folder, unless it is a pattern: here one that matches this file alone.
        path += "{}"
    return spark.readStream.option("maxFilesPerTrigger", 1).text(path, lineSep="\n").select("value")


class PrintWriter:
    """Writes records of the stream to standard output, a line each: their values."""

    written: int | None = None
    exactly_once = False

    def write(self, records: Sequence[tuple[bytes, bytes]], number: int) -> None:  # noqa: ARG002
        """Prints the values."""
        for _key, value in records:
            print(value.decode(), flush=True)

    def keep_alive(self) -> None:
        """Nothing to keep."""

    def close(self) -> None:
        """Nothing to end."""


def print_values(records: DataFrame, _batch: int) -> None:
    """Prints the values of `key`, `value` records to standard output, a line each, in order of key."""
    for record in sorted(records.collect()):
        print(record["value"], flush=True)
