"""A Spark driver that appends rows to a Delta table, one commit each: `append_rows.py TABLE WRITER COMMITS`.

Prints a line when it is ready, waits for one on standard input, then begins; so two of them begin together.
"""

from __future__ import annotations

import sys

from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.apps.rollup import DELTA_SETTINGS
from uniques.runtime.object_store import guard_commits


def main() -> None:
    """Appends the rows."""
    table, writer, commits = sys.argv[1], sys.argv[2], int(sys.argv[3])
    builder = SparkSession.builder
    for name, value in DELTA_SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    guard_commits(spark, [table])
    row = spark.range(1).select(F.lit(writer).alias("writer"))
    spark.read.format("delta").load(table).count()
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(commits):
        row.withColumn("number", F.lit(number)).write.format("delta").mode("append").save(table)


if __name__ == "__main__":
    main()
