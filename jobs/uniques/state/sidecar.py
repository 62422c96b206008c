"""The small files beside a checkpoint: one reader and one writer.

A path is one that Spark takes: of any file system, or without a scheme, which means that of `fs.defaultFS`. How a file
is read and written there is the subject of `folder`. Every function raises JobError, one line, when the file system
refuses.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from uniques.jvm import jvm_of
from uniques.state.folder import explain
from uniques.state.hadoop_folder import HadoopFolder
from uniques.state.local_folder import LocalFolder
from uniques.state.spark_folder import SparkFolder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

    from uniques.state.folder import Folder


def beside(location: str, name: str) -> str:
    """The path of the file `name` beside a checkpoint."""
    return f"{location.rstrip('/')}/{name}"


@lru_cache(maxsize=256)
def open_folder(spark: SparkSession, location: str) -> Folder:
    """The folder at a path; it need not exist.

    Kept for the next call: with a local folder a call then takes less than a millisecond, plus what the disk takes.
    """
    jvm = jvm_of(spark)
    if jvm is None:
        return SparkFolder(spark, location)
    with explain(location, "read"):
        folder = HadoopFolder(spark, jvm, location)
        return LocalFolder(folder.local_path()) if folder.scheme == "file" else folder


def split_path(path: str) -> tuple[str, str]:
    """The folder of a file, and its name."""
    folder, slash, name = path.rstrip("/").rpartition("/")
    return (folder or slash or "."), name


def find_folder(spark: SparkSession, path: str) -> tuple[Folder, str]:
    """The folder of a file, opened, and the name of the file."""
    folder, name = split_path(path)
    return open_folder(spark, folder), name


def read_file(spark: SparkSession, path: str) -> str | None:
    """The text of a file; None when there is no such file."""
    folder, name = find_folder(spark, path)
    return folder.read(name)


def read_lines(spark: SparkSession, path: str) -> list[str] | None:
    """The lines of a file; None when there is no such file."""
    text = read_file(spark, path)
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else None if text is None else []


def read_bytes(spark: SparkSession, path: str) -> bytes:
    """The content of a file, compared with its checksum, where there is one; raises what Java or Spark raises."""
    jvm = jvm_of(spark)
    if jvm is None:
        rows = spark.read.format("binaryFile").load(path).collect()  # none for an empty file
        return bytes(rows[0].content) if rows else b""
    folder, name = split_path(path)
    return HadoopFolder(spark, jvm, folder).read_bytes(name)


def list_names(spark: SparkSession, path: str) -> list[str]:
    """The names of the files in a folder, sorted, none where there is no folder; their content is not read."""
    return open_folder(spark, path).list_names()


def create_file(spark: SparkSession, path: str, text: str) -> None:
    """Creates a file; raises FileExistsError when it is there. Of two jobs that create it at once, one gets the error.

    Under Spark Connect and in some object stores both may succeed; see `folder`.
    """
    folder, name = find_folder(spark, path)
    folder.create(name, text)


def write_lines(spark: SparkSession, path: str, lines: Sequence[str]) -> None:
    """Writes a file, complete or not at all, in place of the one that is there."""
    folder, name = find_folder(spark, path)
    folder.write(name, "".join(f"{line}\n" for line in lines))


def delete_file(spark: SparkSession, path: str) -> None:
    """Deletes a file; one that is not there is no error."""
    folder, name = find_folder(spark, path)
    folder.delete(name)


def keep_line(spark: SparkSession, location: str, name: str, line: str) -> str:
    """The line kept under `name` beside a checkpoint; writes `line` first when there is none."""
    path = beside(location, name)
    kept = read_lines(spark, path)
    if kept:
        return kept[0]
    write_lines(spark, path, [line])
    return line
