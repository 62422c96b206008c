"""Checkpoints and Delta tables in an S3-compatible object store: few requests, and safe from a second instance.

Spark writes a file of a checkpoint under another name and renames it. Hadoop's file system for S3 makes of that, with
all it asks before and after, 20 requests, among them a copy and a delete. The store shows a file once it is complete
anyway, so StoreFiles.java writes it by one request.

A commit of a Delta table, and a batch in a log of a checkpoint, must be new. Hadoop asks whether it is there, then
writes it; two drivers can both be told no. StoreFiles.java writes it on the condition that it is not there.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from uniques.jvm import JAVA_ERRORS, first_lines, jvm_of, send_class
from uniques.runtime.local_files import MANAGER_SETTING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import SparkSession

log = logging.getLogger("uniques")

SOURCE = "runtime/StoreFiles.java"
MANAGER = "uniques.StoreFiles$Checkpoints"
FILE_SYSTEM = "uniques.StoreFiles$DeltaLog"
SCHEME = "s3a"


def use_store_files(spark: SparkSession, location: str) -> None:
    """Has a query with its checkpoint at `location` write each file by one request, where that is on `s3a://`.

    Call it before the query is made. It lasts for the session. Does nothing without a JVM (Spark Connect), elsewhere
    than on `s3a://`, and where the user has chosen a manager of checkpoints.
    """
    jvm = jvm_of(spark)
    if jvm is None or urlsplit(location).scheme != SCHEME or spark.conf.get(MANAGER_SETTING, None) is not None:
        return
    try:
        send_class(spark, jvm, SOURCE)
        spark.conf.set(MANAGER_SETTING, MANAGER)
    except JAVA_ERRORS as error:
        log.info("checkpoint: Spark copies each file that it writes: %s", first_lines(error))


def guard_commits(spark: SparkSession, places: Iterable[str]) -> None:
    """Has Delta refuse a commit that another driver has written meanwhile, in those `places` that are on `s3a://`.

    Call it before anything in their buckets is opened. It lasts for the JVM. Does nothing without a JVM. Says in a line
    where it can't, because two drivers may then lose each other's commits.
    """
    jvm = jvm_of(spark)
    buckets = sorted({urlsplit(place).netloc for place in places if urlsplit(place).scheme == SCHEME})
    if jvm is None or not buckets:
        return
    try:
        send_class(spark, jvm, SOURCE)
        conf = spark._jsparkSession.sessionState().newHadoopConf()
        conf.setClassLoader(spark._jsparkSession.sharedState().jarClassLoader())
        conf.set(f"fs.{SCHEME}.impl", FILE_SYSTEM)
        for bucket in buckets:
            # Hadoop keeps the first file system of a bucket that it makes, for the whole JVM.
            files = jvm.org.apache.hadoop.fs.Path(f"{SCHEME}://{bucket}/").getFileSystem(conf)
            if files.getClass().getName() != FILE_SYSTEM:
                log.warning("warning: s3a://%s was opened before: only one job may write tables there", bucket)
    except JAVA_ERRORS as error:
        log.warning("warning: only one job may write tables on s3a://: %s", first_lines(error))
