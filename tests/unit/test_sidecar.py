"""The small files beside a checkpoint: on a local disk, on another file system of Hadoop's, and by Spark alone."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

import pytest
from pyspark.sql import functions as F
from uniques.errors import JobError
from uniques.state import sidecar
from uniques.state.checkpoint import is_whole, last_batch
from uniques.state.punctuation import write_punctuation
from uniques.state.sidecar import (
    create_file,
    delete_file,
    keep_line,
    list_names,
    open_folder,
    read_file,
    read_lines,
    write_lines,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession

LOCAL, HADOOP, CONNECT = "local", "hadoop", "connect"


@pytest.fixture(params=[LOCAL, HADOOP, CONNECT])
def location(
    request: pytest.FixtureRequest, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The path of `tmp_path / "c d"`, which is not there yet, as each of the three ways is given it."""
    open_folder.cache_clear()
    where = tmp_path / "c d"
    if request.param == HADOOP:  # Hadoop's view of another file system is one of its own, whose scheme is not `file`
        conf, table = spark.sparkContext._jsc.hadoopConfiguration(), uuid.uuid4().hex  # Hadoop keeps what it has opened
        conf.set(f"fs.viewfs.mounttable.{table}.link./disk", tmp_path.as_uri())
        yield f"viewfs://{table}/disk/c d"
        conf.unset(f"fs.viewfs.mounttable.{table}.link./disk")
    else:
        if request.param == CONNECT:
            monkeypatch.setattr(sidecar, "jvm_of", lambda _spark: None)
        yield str(where)
    open_folder.cache_clear()


def test_a_file_is_written_read_replaced_and_deleted(spark: SparkSession, location: str) -> None:
    path = f"{location}/parameters"
    assert (read_file(spark, path), read_lines(spark, path), list_names(spark, location)) == (None, None, [])
    write_lines(spark, path, ['{"a": "ü"}', "b"])
    assert read_file(spark, path) == '{"a": "ü"}\nb\n'
    write_lines(spark, path, ["c"])
    assert read_lines(spark, path) == ["c"]
    assert list_names(spark, location) == ["parameters"]
    delete_file(spark, path)
    delete_file(spark, path)
    assert read_file(spark, path) is None
    assert keep_line(spark, location, "topic-id", "first") == "first"
    assert keep_line(spark, location, "topic-id", "second") == "first"


def test_a_file_is_created_only_once(spark: SparkSession, location: str) -> None:
    create_file(spark, f"{location}/batches/7", "mine\n")
    with pytest.raises(FileExistsError):
        create_file(spark, f"{location}/batches/7", "other\n")
    assert read_file(spark, f"{location}/batches/7") == "mine\n"
    create_file(spark, f"{location}/batches/8", "mine\n")
    assert list_names(spark, f"{location}/batches") == ["7", "8"]
    assert last_batch(spark, f"{location}/batches") == 8


def test_a_file_of_an_earlier_release_is_a_folder_of_text(spark: SparkSession, location: str, tmp_path: Path) -> None:
    old = tmp_path / "c d" / "parameters"
    lines = spark.range(2).select(F.concat(F.lit("line "), "id"))
    lines.repartition(1).sortWithinPartitions("id").write.text(str(old))
    path = f"{location}/parameters"
    assert read_lines(spark, path) == ["line 0", "line 1"]
    with pytest.raises(FileExistsError):
        create_file(spark, path, "new\n")
    write_lines(spark, path, ["new"])
    assert read_lines(spark, path) == ["new"]
    (old.parent / "empty").mkdir()
    assert read_file(spark, f"{location}/empty") is None
    write_lines(spark, f"{location}/empty", ["new"])
    assert read_lines(spark, f"{location}/empty") == ["new"]


def test_punctuation_can_be_read_as_a_stream_before_and_after_it_is_written(
    spark: SparkSession, location: str, tmp_path: Path
) -> None:
    write_punctuation(spark, location, [])
    write_punctuation(spark, location, [])
    stream = spark.readStream.text(f"{location}/punctuation")
    write_punctuation(spark, location, [5])
    write_punctuation(spark, location, [6, 7])
    writer = stream.writeStream.format("parquet").option("checkpointLocation", str(tmp_path / "query"))
    query = writer.trigger(availableNow=True).start(str(tmp_path / "read"))
    query.awaitTermination()
    read = spark.read.schema("value STRING").parquet(str(tmp_path / "read"))
    assert sorted(row["value"] for row in read.collect()) == ["5", "6", "7"]


@pytest.mark.parametrize("location", [LOCAL, HADOOP], indirect=True)
def test_no_spark_job_is_needed_where_the_driver_has_a_jvm(spark: SparkSession, location: str) -> None:
    group = f"sidecar-{uuid.uuid4().hex}"  # the thread keeps it, for what comes after
    spark.sparkContext.setJobGroup(group, "none")
    write_punctuation(spark, location, [5])
    keep_line(spark, location, "topic-id", "first")
    create_file(spark, f"{location}/query/offsets/0", "v1\n{}\n")
    assert last_batch(spark, f"{location}/query/offsets") == 0
    assert is_whole(spark, f"{location}/query/offsets/0")
    delete_file(spark, f"{location}/topic-id")
    assert not spark.sparkContext.statusTracker().getJobIdsForGroup(group)


def test_a_file_whose_checksum_does_not_fit_is_damaged(spark: SparkSession, location: str, tmp_path: Path) -> None:
    offsets = tmp_path / "c d" / "offsets"
    hadoop = spark.sparkContext._jvm.org.apache.hadoop  # type: ignore[union-attr]
    path = hadoop.fs.Path(f"file:{offsets}/0")
    stream = path.getFileSystem(spark.sparkContext._jsc.hadoopConfiguration()).create(path)
    stream.write(b'v1\n{"a": 1}')
    stream.close()
    assert is_whole(spark, f"{location}/offsets/0")
    (offsets / "0").write_bytes(b'v1\n{"a": 2}')  # a bit flipped, and it is JSON still
    assert not is_whole(spark, f"{location}/offsets/0")


def test_of_many_that_create_a_file_at_once_one_does(spark: SparkSession, tmp_path: Path) -> None:
    path, created = str(tmp_path / "new" / "file"), []

    def create(number: int) -> None:
        try:
            create_file(spark, path, f"{number}\n")
        except FileExistsError:
            return
        created.append(f"{number}\n")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert created == [read_file(spark, path)]
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["file"]  # nothing is left behind


def test_a_disk_that_refuses_gets_one_line(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(JobError, match=r"^/.*/file/a can't be read: Not a directory$"):
        read_lines(spark, f"{tmp_path}/file/a")
    with pytest.raises(JobError, match=r"^/.*/file/a can't be written: Not a directory$"):
        write_lines(spark, f"{tmp_path}/file/a", ["x"])


def test_a_scheme_that_nothing_knows_gets_one_line(spark: SparkSession) -> None:
    with pytest.raises(JobError, match=r"^nowhere://a can't be read: [^\n]*No FileSystem for scheme \"nowhere\""):
        read_lines(spark, "nowhere://a/parameters")


def test_a_relative_path_is_where_spark_takes_it(spark: SparkSession) -> None:
    folder = f"relative-{uuid.uuid4().hex}"
    try:
        write_lines(spark, f"{folder}/parameters", ["x"])
        assert [row["value"] for row in spark.read.text(f"{folder}/parameters").collect()] == ["x"]
    finally:
        delete_file(spark, folder)
