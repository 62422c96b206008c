from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.kafka.connector import check_connector, describe_mismatch
from uniques.kafka.properties import KafkaCluster, parse_client_properties

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def test_properties_in_javas_format() -> None:
    text = (
        "# TLS\r\n"
        "security.protocol = SASL_SSL\r\n"
        "\r\n"
        "! also a comment\n"
        "sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \\\n"
        '    username="job" password="a=b#c";\n'
        "ssl.keystore.location=\n"
    )
    assert parse_client_properties(text) == {
        "security.protocol": "SASL_SSL",
        "sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required "
        'username="job" password="a=b#c";',
        "ssl.keystore.location": "",
    }


@pytest.mark.parametrize("text", ["just words", "=value", "enable.auto.commit=true"])
def test_what_is_no_property_or_not_ours_to_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be name=value|is set by Spark"):
        parse_client_properties(text)


def test_a_cluster_does_not_print_its_secrets() -> None:
    cluster = KafkaCluster("localhost:9092", {"ssl.key.password": "hunter2"})
    assert "hunter2" not in repr(cluster)


def jar(name: str) -> str:
    return f"jar:file:/opt/spark/jars/{name}.jar!/org/apache/spark/sql/kafka010/KafkaSourceProvider.class"


@pytest.mark.parametrize(
    ("url", "spark_version", "scala_version"),
    [
        (jar("spark-sql-kafka-0-10_2.13-4.2.0"), "4.2.0", "2.13.18"),
        (jar("spark-sql-kafka-0-10_2.13-4.0.2"), "4.0.2-amzn-0", "2.13.16"),
        (jar("spark-sql-kafka-0-10_2.12-3.5.6"), "3.5.6-amzn-2", "2.12.18"),
        # As spark-submit --packages names it.
        (jar("org.apache.spark_spark-sql-kafka-0-10_2.13-4.2.0"), "4.2.1", "2.13.18"),
        (jar("----workspace_spark_4_0--kafka-0-10-sql"), "4.0.0", "2.13.16"),
    ],
)
def test_a_connector_that_fits_is_taken(url: str, spark_version: str, scala_version: str) -> None:
    assert describe_mismatch(url, spark_version, scala_version) is None


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("spark-sql-kafka-0-10_2.13-4.2.0", "Spark 4.2 and Scala 2.13"),
        ("spark-sql-kafka-0-10_2.13-3.5.6", "Spark 3.5 and Scala 2.13"),
        ("org.apache.spark_spark-sql-kafka-0-10_2.12-4.0.2", "Spark 4.0 and Scala 2.12"),
    ],
)
def test_a_connector_for_another_spark_or_scala_is_named_with_the_right_one(name: str, found: str) -> None:
    assert describe_mismatch(jar(name), "3.5.6-amzn-2", "2.12.18") == (
        f"the Kafka connector is for {found}, but this is Spark 3.5.6-amzn-2 with Scala 2.12: "
        "give spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.12:3.5.6"
    )


def test_a_missing_connector_is_named() -> None:
    assert describe_mismatch(None, "4.0.2", "2.13.16") == (
        "this Spark 4.0.2 has no Kafka connector: "
        "give spark-submit --packages org.apache.spark:spark-sql-kafka-0-10_2.13:4.0.2"
    )


def test_the_installed_connector_fits(spark: SparkSession) -> None:
    check_connector(spark)
