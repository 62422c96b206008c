"""Punctuation: times in files beside the checkpoint that move Spark's watermark, which events do not.

The query has a second source: rows with a time and no user, from files that the job writes as progress goes on. Nothing
is written to the input topic, and the counts leave punctuation out (`counts.count_unique_users`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.jvm import jvm_of
from uniques.state.hadoop_folder import HadoopFolder
from uniques.state.sidecar import beside, open_folder

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from uniques.state.folder import Folder

FOLDER = "punctuation"


def write_punctuation(spark: SparkSession, location: str, seconds: list[int]) -> None:
    """Adds times, unix seconds, to the punctuation of a checkpoint; none makes the folder that the source reads."""
    folder = open_folder(spark, beside(location, FOLDER))
    if seconds:
        folder.add("".join(f"{second}\n" for second in seconds))
    else:
        folder.make()


def read_punctuation(spark: SparkSession, location: str) -> DataFrame:
    """A stream of punctuation as events: `event_time` TIMESTAMP, `uid` STRING, always null.

    Every query has it from the start, because Spark does not let sources be added to a checkpoint.
    """
    files = spark.readStream.option("cleanSource", "delete").text(beside(location, FOLDER))
    return files.select(
        F.expr("try_cast(value AS BIGINT)").cast("timestamp").alias("event_time"),
        F.lit(None).cast("string").alias("uid"),
    )


def relocate_punctuation(spark: SparkSession, location: str, query: str) -> None:
    """Makes a checkpoint that was moved or copied know its punctuation where it is now; `query` is Spark's part of it.

    Spark keeps the whole path of each file it has read, and refuses one that is not in the folder of the source. Under
    Spark Connect, which gives no access to the JVM, nothing is done.
    """
    jvm = jvm_of(spark)
    if jvm is None:
        return
    now = HadoopFolder(spark, jvm, beside(location, FOLDER)).uri()
    sources = f"{query}/sources"
    for source in open_folder(spark, sources).list_names():
        log = open_folder(spark, f"{sources}/{source}")
        # In the order they were written: when the newest one is right, all are, also after a kill in here.
        names = sorted(log.list_names(), key=lambda name: int(name.partition(".")[0]))
        if not names or relocate_log(log, names[-1], now) is None:
            continue
        for name in names:
            relocated = relocate_log(log, name, now)
            if relocated is not None:
                log.delete(f".{name}.crc")  # Hadoop's checksum of the file as it was
                log.write(name, relocated)


def relocate_log(log: Folder, name: str, folder: str) -> str | None:
    """The text of a file of a source's log, with its files in `folder`; None when it says so already."""
    text = log.read(name) or ""
    relocated = "\n".join(relocate_entry(line, folder) for line in text.split("\n"))
    return None if relocated == text else relocated


def relocate_entry(line: str, folder: str) -> str:
    """A line of the log of a source of files, with the file in `folder`; other lines stay as they are."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or not isinstance(entry.get("path"), str):
        return line
    before, _, name = entry["path"].rpartition("/")
    same = without_authority(before) == without_authority(folder)
    return line if same else json.dumps({**entry, "path": f"{folder}/{name}"}, separators=(",", ":"))


def without_authority(uri: str) -> str:
    """`file:/a` of `file:///a`: Hadoop and Java write the same path in these two ways."""
    return uri.replace(":///", ":/", 1)
