"""Which `--lg-k`: error, size and speed of the sketches of a minute.

    make bench-sketches

Counts seeded minutes of users with each lg_k and prints the error over all draws beside the promised one, the bytes of
a sketch in memory, in a record (base64) and in a Parquet file, and the seconds it took.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe_machine
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.core.counts import Counter, count_unique_users

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def make_minutes(spark: SparkSession, draws: int, users: int) -> DataFrame:
    """`draws` minutes of `users` users each, no user in two of them: `event_time`, `uid`."""
    rows = spark.range(draws * users)
    minute = F.col("id") % draws
    return rows.select(
        F.timestamp_seconds(minute * 60).alias("event_time"), F.md5(F.col("id").cast("string")).alias("uid")
    )


def measure_folder(folder: Path) -> int:
    """Bytes of the Parquet files in a folder."""
    return sum(file.stat().st_size for file in folder.glob("*.parquet"))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Error, size and speed of sketches.")
    parser.add_argument("--draws", type=int, default=100, help="minutes (default: %(default)s)")
    parser.add_argument("--users", type=int, nargs="+", default=[200, 2_000, 20_000], help="in a minute")
    parser.add_argument("--lg-k", type=int, nargs="+", default=[10, 11, 12, 13, 14], help="(default: 10 to 14)")
    args = parser.parse_args()
    builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    spark = (
        builder.config("spark.sql.shuffle.partitions", "2").config("spark.sql.session.timeZone", "UTC").getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    print(f"machine: {describe_machine()}")
    print(f"{args.draws} draws a row; error in percent of the count")
    print("  users  lg_k  promised  rms error  largest  within 3 s.e.    bytes  in a record  in Parquet  seconds")
    for users in args.users:
        events = make_minutes(spark, args.draws, users).persist()
        events.count()
        for lg_k in args.lg_k:
            counter = Counter("hll_sketch", lg_k=lg_k, with_sketch=True)
            with tempfile.TemporaryDirectory() as folder:
                began = time.monotonic()
                count_unique_users(events, counter=counter).coalesce(1).write.mode("overwrite").parquet(folder)
                seconds = time.monotonic() - began
                size = measure_folder(Path(folder)) / args.draws
                rows = spark.read.parquet(folder).select("unique_users", F.length("sketch").alias("bytes")).collect()
            errors = [row["unique_users"] / users - 1 for row in rows]
            rms = math.sqrt(sum(error**2 for error in errors) / len(errors))
            within = sum(abs(error) <= 3 * counter.relative_error for error in errors) / len(errors)
            length = max(row["bytes"] for row in rows)
            promised, base64_length = counter.relative_error, 4 * math.ceil(length / 3)
            print(
                f"{users:>7,}{lg_k:>6}{promised:>10.2%}{rms:>11.2%}{max(map(abs, errors)):>9.2%}{within:>15.0%}"
                f"{length:>9,}{base64_length:>13,}{size:>12,.0f}{seconds:>9.1f}",
                flush=True,
            )
        events.unpersist()
    spark.stop()


if __name__ == "__main__":
    main()
