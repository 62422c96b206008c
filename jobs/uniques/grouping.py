"""Counts the users of groups, in a Java function (`GroupCounter.java`) that Janino compiles when the job starts.

Spark's own aggregates would need a row of state for each group. Here a window has one row, and at most `max_groups`
names of a breakdown, whatever the events hold.
"""

from __future__ import annotations

import uuid
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from uniques.core.counts import GROUPS_SCHEMA
from uniques.errors import UsageError
from uniques.jvm import JAVA_ERRORS, first_lines, gateway_of, make_list, send_class

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
    gateway = gateway_of(spark)
    if gateway is None:
        raise UsageError("--by needs a classic Spark driver: Spark Connect takes no Java function")
    name = f"uniques_groups_{uuid.uuid4().hex}"
    try:
        register_grouper(spark, gateway.jvm, name, shape, counter, max_groups)
    except JAVA_ERRORS as error:
        raise UsageError(f"--by: this Spark takes no Java function: {first_lines(error)}") from error
    return lambda user, values: F.call_function(name, user, *values)["groups"]


def register_grouper(
    spark: SparkSession, jvm: Any, name: str, shape: EventShape, counter: Counter, max_groups: int
) -> None:
    """Compiles the function, has Spark send it to its executors, and names it in the session."""
    send_class(spark, jvm, SOURCE)
    struct_type = jvm.org.apache.spark.sql.types.StructType
    values = "".join(f", value_{at} STRING" for at in range(len(shape.dimensions)))
    function = jvm.uniques.GroupCounter.create(
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
    spark._jsparkSession.udf().register(name, function)
