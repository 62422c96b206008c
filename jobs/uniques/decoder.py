"""The fast JSON parser: reads ordinary events from their bytes, and leaves every other record to Spark's own parser.

`events.parse_events` alone decides what an event is. This parser answers only where it is certain that Spark's parser
gives the same answer: for an object with a time in `ts` and a string in `uid` that is not empty. For any other record
it returns null, and Spark parses the record. So both parsers count and reject the same records, for the same reasons.

Spark's `from_json` turns a record into characters before its parser, Jackson, reads it. Here Jackson reads the bytes,
in a Java function (`EventDecoder.java`) that Janino compiles when the job starts. Jackson and Janino are part of every
Spark, so there is no jar to build or to carry along.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
import zipfile
from functools import lru_cache, partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from uniques.core.events import largest_ts
from uniques.errors import UsageError
from uniques.jvm import compile_java, gateway_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import Column, SparkSession

DECODED_SCHEMA = "ts BIGINT, uid STRING"
SOURCE = "EventDecoder.java"


@lru_cache
def send_decoder(spark: SparkSession, ts_unit: str = "s") -> Callable[[Column], Column]:
    """A function of a BINARY column: STRUCT<ts BIGINT, uid STRING>, null where Spark's parser has to look.

    `ts` is in `ts_unit`, a key of TS_UNITS, and within its range; `uid` is not empty. Executors fetch the class
    from the driver. Raises UsageError, one line, where Spark takes no Java function from Python, as in Spark Connect.
    """
    gateway = gateway_of(spark)
    if gateway is None:
        raise UsageError("--json-parser bytes needs a classic Spark driver: Spark Connect takes no Java function")
    name = f"uniques_decode_{ts_unit}"
    try:
        register_decoder(spark, gateway.jvm, name, largest_ts(ts_unit))
    # py4j takes a class that it may not load for a package, and a package can't be called: hence TypeError.
    except (Py4JError, PySparkException, TypeError, OSError) as error:
        message = " ".join(str(error).split("\n\tat ")[0].splitlines()[:2])
        raise UsageError(f"--json-parser bytes: this Spark takes no Java function: {message}") from error
    return partial(F.call_function, name)


def register_decoder(spark: SparkSession, jvm: Any, name: str, largest: int) -> None:
    """Compiles the function, has Spark send it to its executors, and names it in the session."""
    folder = Path(tempfile.mkdtemp(prefix="uniques-"))
    # Executors fetch the jar whenever they start, so it stays until the job ends.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Spark accepts no two jars of the same name.
    jar = folder / f"{folder.name}.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for class_name, code in compile_decoder(jvm).items():
            archive.writestr(class_name.replace(".", "/") + ".class", code)
    spark.sql(f"ADD JAR '{jar}'")
    decoded = jvm.org.apache.spark.sql.types.DataType.fromDDL(DECODED_SCHEMA)
    spark._jsparkSession.udf().register(name, jvm.uniques.EventDecoder.create(largest, decoded))


def compile_decoder(jvm: Any) -> dict[str, bytes]:
    """The bytecode of EventDecoder.java: name of a class -> its code."""
    compiled = compile_java(jvm, resources.files(__package__).joinpath(SOURCE).read_text(encoding="utf-8"))
    return {name: bytes(code) for name, code in dict(compiled.getBytecodes()).items()}
