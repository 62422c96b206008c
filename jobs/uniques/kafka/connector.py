"""Checks that Spark's Kafka connector is there and fits this Spark."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from uniques.errors import UsageError
from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONNECTOR = "org.apache.spark:spark-sql-kafka-0-10"
CONNECTOR_JAR = re.compile(r"/(?:[^/!]*_)?spark-sql-kafka-0-10_(2\.\d+)-(\d+\.\d+)\.\d[^/!]*\.jar")


def check_connector(spark: SparkSession) -> None:
    """Checks that Spark's Kafka connector is there, and built for this Spark and its Scala.

    Raises UsageError, one line. Checks nothing without a JVM (Spark Connect).
    """
    jvm = jvm_of(spark)
    if jvm is None:
        return
    # --jars and --packages add to this class loader; py4j's threads use it too.
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    found = loader.getResource("org/apache/spark/sql/kafka010/KafkaSourceProvider.class")
    scala = jvm.scala.util.Properties.versionNumberString()
    complaint = describe_mismatch(found and found.toString(), spark.version, scala)
    if complaint:
        raise UsageError(complaint)


def describe_mismatch(url: str | None, spark_version: str, scala_version: str) -> str | None:
    """What is wrong with the Kafka connector in the jar that `url` names, in one line; None when nothing is.

    Versions of one minor fit each other, and so do a vendor's (`3.5.6-amzn-2`) and Apache's. A jar that does not have
    Apache's name is not checked: it is a vendor's build.
    """
    release = re.match(r"\d+\.\d+\.\d+", spark_version)
    spark_minor, scala = ".".join(spark_version.split(".")[:2]), ".".join(scala_version.split(".")[:2])
    remedy = f"give spark-submit --packages {CONNECTOR}_{scala}:{release[0] if release else spark_version}"
    if url is None:
        return f"this Spark {spark_version} has no Kafka connector: {remedy}"
    jar = CONNECTOR_JAR.search(url)
    if jar is None or jar.groups() == (scala, spark_minor):
        return None
    return (
        f"the Kafka connector is for Spark {jar[2]} and Scala {jar[1]}, but this is Spark {spark_version} with Scala "
        f"{scala}: {remedy}"
    )
