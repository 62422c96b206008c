"""Counts the users of groups, in a Java function (`GroupCounter.java`) that Janino compiles when the job starts.

Spark's own aggregates would need a row of state for each group. Here a window has one row, and at most `max_groups`
names of a breakdown, whatever the events hold.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from uniques.core.counts import GROUPS_SCHEMA
from uniques.jvm import java_function, make_list, register_function, send_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, SparkSession

    from uniques.core.counts import Counter
    from uniques.core.fields import EventShape

SOURCE = "GroupCounter.java"


@lru_cache
def send_grouper(
    spark: SparkSession, shape: EventShape, counter: Counter, max_groups: int
) -> Callable[[Column, list[Column]], Column] | None:
    """A function of users and the values of the shape's dimensions, STRING all: `groups` for `count_unique_users`.

    None where the shape has no breakdown. Raises UsageError, one line, where Spark takes no Java function from Python.
    """
    if not shape.breakdowns:
        return None
    with java_function(spark, "--by") as jvm:
        send_class(spark, jvm, SOURCE)
        name = register_function(spark, make_function(jvm, shape, counter, max_groups))
    return lambda user, values: F.call_function(name, user, *values)["groups"]


def make_function(jvm: Any, shape: EventShape, counter: Counter, max_groups: int) -> Any:
    """The Java function for the breakdowns of a shape."""
    struct_type = jvm.org.apache.spark.sql.types.StructType
    values = "".join(f", value_{at} STRING" for at in range(len(shape.dimensions)))
    return jvm.uniques.GroupCounter.create(
        make_list(jvm, [make_list(jvm, [field.text for field in breakdown]) for breakdown in shape.breakdowns]),
        make_list(
            jvm,
            [make_list(jvm, [shape.dimensions.index(field) for field in breakdown]) for breakdown in shape.breakdowns],
        ),
        max_groups,
        counter.lg_k,
        counter.of_groups.name == "hll_sketch" or counter.with_sketch,
        counter.of_groups.name == "exact",
        struct_type.fromDDL(f"uid STRING{values}"),
        struct_type.fromDDL(f"groups {GROUPS_SCHEMA}"),
    )
