"""A checkpoint on a local disk, without the processes that Hadoop starts for every file of it.

Where Hadoop's native library is missing, as in Spark from PyPI, its local file system runs `chmod` for every file and
folder that it makes, and Spark's manager of checkpoints has it run `readlink` for every file that it looks at: 42
processes a batch, more than half of a small batch's time. Spark has a manager that does without `readlink`; Hadoop gets
a local file system that sets modes by Java itself.
"""

from __future__ import annotations

import logging
from importlib import resources
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.jvm import compile_java, jvm_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

log = logging.getLogger("uniques")

SOURCE = "LocalFiles.java"
CLASS = "uniques.LocalFiles"
# Hadoop's own, alone and as Spark's Hive wraps it. A vendor's, or one that the user has set, stays.
REPLACED = ("org.apache.hadoop.fs.LocalFileSystem", "org.apache.hadoop.hive.ql.io.ProxyLocalFileSystem")
MANAGER_SETTING = "spark.sql.streaming.checkpointFileManagerClass"


def use_local_files(spark: SparkSession, location: str) -> None:
    """Has a query with its checkpoint at `location` start no processes, where that is on a local disk.

    Call it before the query is made. It lasts for the session, and as for the modes of files for the JVM. Does nothing
    without a JVM (Spark Connect), where Hadoop's native library sets the modes, and where the user has chosen a file
    system or a manager of checkpoints.
    """
    jvm = jvm_of(spark)
    if jvm is None:
        return
    try:
        path = jvm.org.apache.hadoop.fs.Path(location)
        files = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
        if files.getUri().getScheme() != "file" or jvm.org.apache.hadoop.io.nativeio.NativeIO.isAvailable():
            return
        if spark.conf.get(MANAGER_SETTING, None) is None:
            spark.conf.set(MANAGER_SETTING, find_manager(spark.version))
        if files.getClass().getName() in REPLACED:
            replace_file_system(spark, jvm, files)
    # py4j takes a class that it may not load for a package, and a package can't be called: hence TypeError.
    except (Py4JError, PySparkException, TypeError) as error:
        log.info("checkpoint: Hadoop starts processes for its files: %s", str(error).splitlines()[0])


def find_manager(spark_version: str) -> str:
    """The class of Spark's manager of checkpoints that does without links."""
    package = "org.apache.spark.sql.execution.streaming"
    if tuple(map(int, spark_version.split(".")[:2])) >= (4, 1):
        package += ".checkpointing"
    return f"{package}.FileSystemBasedCheckpointFileManager"


def replace_file_system(spark: SparkSession, jvm: Any, files: Any) -> None:
    """Puts LocalFiles.java into the place of `files`, the local file system that Hadoop keeps for the whole JVM."""
    compiled = compile_java(jvm, resources.files(__package__).joinpath(SOURCE).read_text(encoding="utf-8"))
    conf = spark._jsparkSession.sessionState().newHadoopConf()
    conf.setClassLoader(compiled.getClassLoader())
    conf.set("fs.file.impl", CLASS)
    # Hadoop keeps the first file system of a scheme that it makes, and forgets one that is closed.
    files.close()
    jvm.org.apache.hadoop.fs.FileSystem.get(files.getUri(), conf)
