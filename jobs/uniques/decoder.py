"""The fast JSON parser: reads ordinary events from their bytes, and leaves every other record to Spark's own parser.

`events.parse_events` alone decides what an event is. This parser answers only where it is certain that Spark's parser
gives the same answer: for an object with a time and a user, whose fields are no objects or arrays. For any other record
it returns null, and Spark parses the record. So both parsers count and reject the same records, for the same reasons.

Spark's `from_json` turns a record into characters before its parser, Jackson, reads it. Here Jackson reads the bytes,
in a Java function (`EventDecoder.java`) that Janino compiles when the job starts. Jackson and Janino are part of every
Spark, so there is no jar to build or to carry along.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F

from uniques.core.choices import TS_UNITS
from uniques.core.events import schema_of
from uniques.core.fields import DEFAULT_SHAPE, EventShape
from uniques.jvm import java_function, make_list, register_function, send_class

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, SparkSession

SOURCE = "EventDecoder.java"


@lru_cache
def send_decoder(spark: SparkSession, shape: EventShape = DEFAULT_SHAPE) -> Callable[[Column], Column]:
    """A function of a BINARY column, for `events.parse_events`: a STRUCT, null where Spark's parser has to look.

    `time` is BIGINT microseconds, or the text where the shape's time has a pattern; `value_0`, `value_1`, … STRING are
    the shape's `json_fields`. Where the shape has a condition, time and users may be null. Executors fetch the class
    from the driver. Raises UsageError, one line, where Spark takes no Java function from Python, as in Spark Connect.
    """
    with java_function(spark, "--json-parser bytes") as jvm:
        send_class(spark, jvm, SOURCE)
        return partial(F.call_function, register_function(spark, make_function(jvm, shape)))


def make_function(jvm: Any, shape: EventShape) -> Any:
    """The Java function for events of a shape."""
    time_format = shape.time_format
    decoded = jvm.org.apache.spark.sql.types.DataType.fromDDL(schema_of(shape))
    return jvm.uniques.EventDecoder.create(
        make_list(jvm, shape.time.names if shape.has_time_field else []),
        make_list(jvm, [make_list(jvm, field.names) for field in shape.json_fields]),
        # Where a user may be elsewhere, the object need not have one.
        len(shape.users) if all(field.is_json for field in shape.users) else 0,
        shape.where is not None,
        time_format.name if time_format.pattern is None else "text",
        TS_UNITS[time_format.unit],
        time_format.zone,
        decoded,
    )
