"""A Spark driver that creates files in a folder of an object store by turns: `create_files.py FOLDER`.

Prints what became of each try as JSON. Both writers have opened the file before the first one closes it: so only the
store can say which of the two is first.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession
from uniques.runtime.local_files import MANAGER_SETTING
from uniques.runtime.object_store import use_store_files
from uniques.state.hadoop_folder import HadoopFolder


def attempt(call: Any, *arguments: Any) -> str:
    """The name of the exception that a call ends with, or `done`."""
    try:
        call(*arguments)
    except Py4JJavaError as error:
        name: str = error.java_exception.getClass().getSimpleName()
        return name
    except FileExistsError as error:
        return type(error).__name__
    return "done"


def create_step(spark: SparkSession, folder: str) -> dict[str, str]:
    """The step log's way, by two drivers that know nothing of each other."""
    folders = [HadoopFolder(spark, spark._jvm, folder) for _ in range(2)]
    return {
        "first": attempt(folders[0].create, "1", "a"),
        "another": attempt(folders[1].create, "1", "b"),
        "the same again": attempt(folders[0].create, "1", "a"),
        "there": str(folders[0].read("1")),
    }


def create_batch(spark: SparkSession, folder: str) -> dict[str, str]:
    """The way of the logs of Spark's checkpoint."""
    use_store_files(spark, folder)
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(f"{folder}/query/offsets/1")
    conf = spark._jsparkSession.sessionState().newHadoopConf()
    manager = jvm.org.apache.spark.sql.execution.streaming.checkpointing.CheckpointFileManager.create(path, conf)
    streams = [manager.createAtomic(path, False) for _ in range(2)]
    for stream, content in zip(streams, (b"a", b"b"), strict=True):
        stream.write(content)
    return {
        "manager": str(spark.conf.get(MANAGER_SETTING)),
        "first": attempt(streams[0].close),
        "another": attempt(streams[1].close),
        "there": bytes(jvm.org.apache.commons.io.IOUtils.toByteArray(path.getFileSystem(conf).open(path))).decode(),
    }


def main() -> None:
    """Tries both."""
    folder = sys.argv[1]
    spark = SparkSession.builder.getOrCreate()
    print(json.dumps({"step": create_step(spark, f"{folder}/steps"), "batch": create_batch(spark, folder)}))


if __name__ == "__main__":
    main()
