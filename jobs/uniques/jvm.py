"""The JVM behind the driver, where Python can reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def gateway_of(spark: SparkSession) -> Any | None:
    """The py4j gateway to the JVM that Python drives, or None under Spark Connect, where there is none."""
    return getattr(getattr(spark, "_sc", None), "_gateway", None)


def compile_java(jvm: Any, source: str) -> Any:
    """Spark's own Janino with the compiled `source`: `getBytecodes()`, and `getClassLoader()` with its classes."""
    compiler = jvm.org.codehaus.janino.SimpleCompiler()
    compiler.setParentClassLoader(jvm.java.lang.Thread.currentThread().getContextClassLoader())
    compiler.cook(source)
    return compiler
