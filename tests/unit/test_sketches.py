"""Sketches by their bytes, and beside those of the datasketches package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from datasketches import hll_sketch, hll_union, tgt_hll_type
from pyspark.sql import functions as F
from sketch_registers import registers_of
from uniques.core.sketches import is_sketch, read_lg_k

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import SparkSession

SIZES = (0, 1, 7, 8, 100, 400, 5_000)


def make_sketch(spark: SparkSession, users: Iterable[str], lg_k: int = 10) -> bytes:
    frame = spark.createDataFrame([(user,) for user in users], "uid STRING")
    return bytes(frame.agg(F.hll_sketch_agg("uid", lg_k).alias("sketch")).collect()[0].sketch)


def make_elsewhere(users: Iterable[str], lg_k: int, type_: tgt_hll_type = tgt_hll_type.HLL_8) -> hll_sketch:
    sketch = hll_sketch(lg_k, type_)
    for user in users:
        sketch.update(user)
    return sketch


def classify(spark: SparkSession, values: list[bytes | None]) -> list[bool]:
    frame = spark.createDataFrame([(index, value) for index, value in enumerate(values)], "i INT, sketch BINARY")
    rows = frame.select("i", is_sketch(F.col("sketch")).alias("ok")).collect()
    return [row.ok for row in sorted(rows)]


def test_whole_sketches_are_told_from_truncated_and_foreign_ones(spark: SparkSession) -> None:
    whole = [make_sketch(spark, map(str, range(size))) for size in SIZES]
    for type_ in (tgt_hll_type.HLL_4, tgt_hll_type.HLL_6, tgt_hll_type.HLL_8):
        for size in SIZES:
            sketch = make_elsewhere(map(str, range(size)), 12, type_)
            whole += [bytes(sketch.serialize_compact()), bytes(sketch.serialize_updatable())]
    assert classify(spark, list(whole)) == [True] * len(whole)
    cut: list[bytes | None] = [sketch[: len(sketch) // 2] for sketch in whole if len(sketch) > 8]
    other = [None, b"", b"not a sketch", bytes(40), whole[-1][:2] + b"\x03" + whole[-1][3:]]
    assert classify(spark, cut + other) == [False] * len(cut + other)
    # What passes, Spark takes.
    frame = spark.createDataFrame([(sketch,) for sketch in whole], "sketch BINARY")
    united = frame.agg(F.hll_sketch_estimate(F.hll_union_agg("sketch", True)).alias("users")).collect()[0].users
    assert abs(united / 5_000 - 1) < 0.1


def test_the_registers_are_readable(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(make_sketch(spark, ["a"], lg_k),) for lg_k in (8, 12)], "sketch BINARY")
    assert sorted(row[0] for row in frame.select(read_lg_k(F.col("sketch"))).collect()) == [8, 12]


@pytest.mark.parametrize("users", [3, 300, 30_000])
def test_the_datasketches_package_makes_and_unites_the_same(spark: SparkSession, users: int) -> None:
    # Not ASCII only: strings are hashed as UTF-8 everywhere.
    names = [f"usér-{number}" for number in range(users)]
    ours = make_sketch(spark, names, 12)
    read = hll_sketch.deserialize(ours)
    theirs = make_elsewhere(names, 12)
    assert round(read.get_estimate()) == pytest.approx(users, rel=3 * 0.0162)

    half = make_sketch(spark, names[: users // 2], 12)
    other = make_sketch(spark, names[users // 2 :], 12)
    there = hll_union(12)
    for sketch in (half, other):
        there.update(hll_sketch.deserialize(sketch))
    frame = spark.createDataFrame([(half,), (other,), (half,)], "sketch BINARY")
    here = (
        frame.agg(F.hll_union_agg("sketch").alias("united"))
        .select("united", F.hll_sketch_estimate("united"))
        .collect()[0]
    )
    assert round(there.get_estimate()) == here[1]
    # The same users in another sketch change no register.
    assert registers_of(bytes(there.get_result(tgt_hll_type.HLL_8).serialize_compact())) == registers_of(
        bytes(here.united)
    )
    assert registers_of(bytes(theirs.serialize_compact())) == registers_of(ours)
