from __future__ import annotations

import re
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from uniques.kafka.connector import check_connector, describe_mismatch
from uniques.kafka.properties import (
    KafkaCluster,
    parse_client_properties,
    parse_properties,
    read_client_properties,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("# a path ends in \\\nclient.id=job", {"client.id": "job"}),
        ("client.id:job", {"client.id": "job"}),
        ("client.id\tjob", {"client.id": "job"}),
        ("client.id = : job", {"client.id": ": job"}),
        (r"ssl.key.password=a\\b\=\u00e9\uD83D\uDE00\q", {"ssl.key.password": "a\\b=\xe9\U0001f600q"}),
        (r"a\:b\ c=d", {"a:b c": "d"}),
        ("client.id=job \\\\\nclient.rack=a", {"client.id": "job \\", "client.rack": "a"}),
        ("client.id=job ", {"client.id": "job "}),
        ("client.id=a\nclient.id=b", {"client.id": "b"}),
    ],
    ids=[
        "a comment does not continue",
        "colon",
        "blank",
        "one separator",
        "escapes",
        "escaped separators in a name",
        "an escaped backslash at the end of a line",
        "blanks at the end belong to the value",
        "the last one counts",
    ],
)
def test_what_java_reads_differently_from_lines_of_name_and_value(text: str, properties: dict[str, str]) -> None:
    assert parse_client_properties(text) == properties


# Runs in the JVM for many texts at once: a call through py4j takes longer than a text. Characters are returned as two
# bytes each, so that halves of a pair arrive as they are.
LOAD_ALL = """
DataInputStream texts = new DataInputStream(new ByteArrayInputStream(input));
ByteArrayOutputStream bytes = new ByteArrayOutputStream();
DataOutputStream output = new DataOutputStream(bytes);
while (texts.available() > 0) {
    byte[] text = new byte[texts.readInt()];
    texts.readFully(text);
    Properties properties = new Properties();
    try {
        properties.load(new ByteArrayInputStream(text));
    } catch (IllegalArgumentException malformed) {
        output.writeInt(-1);
        continue;
    }
    output.writeInt(properties.size());
    for (Iterator entries = properties.entrySet().iterator(); entries.hasNext(); ) {
        Map.Entry entry = (Map.Entry) entries.next();
        output.writeInt(((String) entry.getKey()).length());
        output.writeChars((String) entry.getKey());
        output.writeInt(((String) entry.getValue()).length());
        output.writeChars((String) entry.getValue());
    }
}
return bytes.toByteArray();
"""


@pytest.fixture(scope="module")
def load_with_java(spark: SparkSession) -> Callable[[list[bytes]], list[dict[str, str] | None]]:
    """What `java.util.Properties` reads from files, None for one that it refuses."""
    gateway: Any = spark.sparkContext._gateway
    java = gateway.jvm.java

    def array(kind: Any, *values: Any) -> Any:
        made = gateway.new_array(kind, len(values))
        for index, value in enumerate(values):
            made[index] = value
        return made

    find_class = java.lang.Class.forName
    loader = gateway.jvm.org.codehaus.janino.ScriptEvaluator()
    loader.setParameters(array(java.lang.String, "input"), array(java.lang.Class, find_class("[B")))
    loader.setThrownExceptions(array(java.lang.Class, find_class("java.io.IOException")))
    loader.setReturnType(find_class("[B"))
    loader.cook("import java.io.*; import java.util.*;" + LOAD_ALL)

    def load(texts: list[bytes]) -> list[dict[str, str] | None]:
        files = b"".join(len(text).to_bytes(4, "big") + text for text in texts)
        answer = BytesIO(loader.evaluate(array(java.lang.Object, bytearray(files))))

        def read_int() -> int:
            return int.from_bytes(answer.read(4), "big", signed=True)

        def read_text() -> str:
            return answer.read(2 * read_int()).decode("utf-16-be", "surrogatepass")

        read: list[dict[str, str] | None] = []
        for _ in texts:
            size = read_int()
            # Names and values alternate.
            entries = [read_text() for _ in range(2 * size)]
            read.append(None if size < 0 else dict(zip(entries[::2], entries[1::2], strict=True)))
        return read

    return load


def load_with_ours(text: bytes) -> dict[str, str] | None:
    try:
        return {name: value for _, name, value, _ in parse_properties(text.decode("iso-8859-1"))}
    except ValueError:
        return None


# The characters that the format is made of, and some that Python, but not Java, takes for blanks or line ends.
PIECES = [*"ab=: \t\f\\\n\r#!u0\x00\x0b\x1c\x85\xa0\xe9", "\r\n", "\\\n", "\\\r\n", "\\\\", "name=", " : "]
PIECES += [r"\u0041", r"\uD83D\uDE00", r"\ud800", r"\u00E", r"\n", r"\t", r"\=", r"\:", r"\ ", r"\#"]
FILES = st.lists(st.sampled_from(PIECES), max_size=14).map(lambda pieces: "".join(pieces).encode("iso-8859-1"))


# Nothing is shrunk: the assertion names the one file of many.
@settings(
    max_examples=50,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(texts=st.lists(FILES, min_size=40, max_size=60))
def test_every_file_is_read_as_java_reads_it(
    load_with_java: Callable[[list[bytes]], list[dict[str, str] | None]], texts: list[bytes]
) -> None:
    for text, expected in zip(texts, load_with_java(texts), strict=True):
        assert load_with_ours(text) == expected, text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("client.id=a\nhunter2", "line 2 must be name=value, a # comment or empty"),
        ("hunter2 ", "line 1 must be name=value, a # comment or empty"),
        ("=hunter2", "line 1 must be name=value, a # comment or empty"),
        ("\\\n\nssl.key.password=hunter2\\u12", "line 3: \\u needs four hexadecimal digits"),
        (r"ssl.key.password=hunter2\ud83d", "line 1: a \\u escape is half of a character"),
        ("enable.auto.commit=true", "enable.auto.commit is set by Spark and can't be changed"),
    ],
)
def test_what_is_no_property_or_not_ours_to_set_is_refused_without_quoting_it(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(reason) + "$"):
        parse_client_properties(text)


def test_a_file_is_read_in_the_encoding_of_kafkas_own_tools(tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    file.write_bytes(b"ssl.key.password=caf\xe9\\u20ac")
    assert read_client_properties(file) == {"ssl.key.password": "caf\xe9\u20ac"}
    with pytest.raises(ValueError, match=r"^can't be read \(No such file or directory\)$"):
        read_client_properties(tmp_path / "no-such-file")


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
