"""A checkpoint on a local disk: no process is started for its files, and two instances are still told apart."""

from __future__ import annotations

import shutil
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from pyspark.errors import StreamingQueryException
from pyspark.sql import functions as F
from uniques.runtime.failures import explain_failure
from uniques.runtime.local_files import MANAGER_SETTING, find_manager, use_local_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery


@pytest.fixture(autouse=True)
def _settings(spark: SparkSession) -> Iterator[None]:
    spark.conf.unset(MANAGER_SETTING)  # a job that ran before in the tests' session may have set it
    yield
    spark.conf.unset(MANAGER_SETTING)


def start_counting(spark: SparkSession, folder: Path) -> StreamingQuery:
    """A query with state, from files to files, with its checkpoint in `folder`."""
    (folder / "in").mkdir(exist_ok=True)
    lines = spark.readStream.option("cleanSource", "delete").text(str(folder / "in"))
    counts = lines.select(F.col("value").cast("bigint").cast("timestamp").alias("time")).withWatermark(
        "time", "0 seconds"
    )
    counts = counts.groupBy(F.window("time", "1 minute")).count()
    writer = counts.writeStream.format("parquet").option("checkpointLocation", str(folder / "checkpoint" / "query"))
    return writer.start(str(folder / "out"))


def add_second(folder: Path, second: int) -> None:
    (folder / f"{second}.txt").write_text(f"{second}\n")
    (folder / f"{second}.txt").rename(folder / "in" / f"{second}.txt")


@contextmanager
def recorded_processes(spark: SparkSession, folder: Path) -> Iterator[list[str]]:
    """The command lines of the processes that the JVM starts meanwhile; there at the end."""
    jvm: Any = spark.sparkContext._jvm
    commands: list[str] = []
    recording = jvm.jdk.jfr.Recording()
    recording.enable("jdk.ProcessStart")
    recording.start()
    yield commands
    recording.stop()
    file = jvm.java.io.File(str(folder / "processes.jfr")).toPath()
    recording.dump(file)
    recording.close()
    commands += [event.getString("command") for event in jvm.jdk.jfr.consumer.RecordingFile.readAllEvents(file)]


def test_a_query_starts_no_process(spark: SparkSession, tmp_path: Path) -> None:
    use_local_files(spark, str(tmp_path / "checkpoint"))
    with recorded_processes(spark, tmp_path) as commands:
        query = start_counting(spark, tmp_path)
        for second in (0, 100, 200, 300):
            add_second(tmp_path, second)
            query.processAllAvailable()
        query.stop()
    assert [row["count"] for row in spark.read.parquet(str(tmp_path / "out")).collect()] == [1, 1, 1]
    # Spark asks for the size of a page, once, and removes the folders of sessions that other tests have ended.
    assert [command for command in commands if not command.startswith(("getconf ", "rm -rf "))] == []


def test_files_have_the_modes_that_hadoop_gives_them(spark: SparkSession, tmp_path: Path) -> None:
    use_local_files(spark, str(tmp_path))
    jvm: Any = spark.sparkContext._jvm
    hadoop = jvm.org.apache.hadoop.fs
    file = hadoop.Path(f"{tmp_path}/folder/file")
    files = file.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration())
    files.create(file).close()
    permission = hadoop.permission.FsPermission
    files.setPermission(file, permission("640"))
    assert stat.filemode((tmp_path / "folder" / "file").stat().st_mode) == "-rw-r-----"
    assert stat.filemode((tmp_path / "folder").stat().st_mode) == "drwxr-xr-x"
    assert (tmp_path / "folder" / ".file.crc").exists()
    files.setPermission(file.getParent(), permission("1750"))
    assert stat.filemode((tmp_path / "folder").stat().st_mode) == "drwxr-x--T"


def test_another_instance_on_the_checkpoint_is_told(spark: SparkSession, tmp_path: Path) -> None:
    use_local_files(spark, str(tmp_path / "checkpoint"))
    query = start_counting(spark, tmp_path)
    add_second(tmp_path, 0)
    query.processAllAvailable()
    offsets = tmp_path / "checkpoint" / "query" / "offsets"
    planned = max(int(file.name) for file in offsets.iterdir() if file.name.isdecimal())
    shutil.copy(offsets / str(planned), offsets / str(planned + 1))  # as the other instance plans it
    add_second(tmp_path, 100)
    with pytest.raises(StreamingQueryException) as failed:
        query.awaitTermination(120)
    said = "another instance runs on the same --checkpoint-location: stop one of the two"
    assert str(explain_failure(str(failed.value))) == f"the query failed: {said}"


def test_other_file_systems_and_what_the_user_chose_stay(spark: SparkSession, tmp_path: Path) -> None:
    use_local_files(spark, "viewfs://nowhere/checkpoint")
    assert spark.conf.get(MANAGER_SETTING, None) is None
    spark.conf.set(MANAGER_SETTING, "other.Manager")
    use_local_files(spark, str(tmp_path))
    assert spark.conf.get(MANAGER_SETTING) == "other.Manager"


@pytest.mark.parametrize(
    ("version", "package"),
    [("4.2.0", "streaming.checkpointing"), ("4.1.0-SNAPSHOT", "streaming.checkpointing"), ("4.0.0", "streaming")],
)
def test_the_manager_of_each_spark(version: str, package: str) -> None:
    assert find_manager(version) == f"org.apache.spark.sql.execution.{package}.FileSystemBasedCheckpointFileManager"
