"""The functions that read Avro and Protobuf with a schema, for `core.formats`.

Avro is read by Spark's own `from_avro`, once a Java function has looked whether the bytes are a value of the schema:
Avro's reader makes room for a text of any length that damaged bytes ask for, and ends the JVM. Protobuf is read by a
Java function, with the copy of Protobuf that every Spark has.
"""

from __future__ import annotations

import base64
import binascii
import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F
from pyspark.sql.avro.functions import from_avro

from uniques.core.formats import Schema
from uniques.errors import UsageError
from uniques.jvm import (
    JAVA_ERRORS,
    first_lines,
    java_function,
    make_list,
    register_function,
    require_jvm,
    send_class,
)

if TYPE_CHECKING:
    from pyspark.sql import Column, SparkSession

    from uniques.core.formats import Decode

AVRO_PACKAGE = "org.apache.spark:spark-avro"
# What the times of an event may look like to `--time-format iso`, as exact as Spark has them.
TO_JSON = {
    "timestampFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS'Z'",
    "timeZone": "UTC",
    "timestampNTZFormat": "yyyy-MM-dd'T'HH:mm:ss.SSSSSS",
}


@lru_cache
def make_decoder(spark: SparkSession, kind: str, schema: Schema, message: str = "") -> Decode:
    """The function for a schema of `kind`, `avro` or `protobuf`.

    `message` is the full name of the Protobuf message; when empty the bytes say which one it is, as Confluent's do. The
    texts of Protobuf files are serialized descriptors in base64. Raises UsageError, one line, when the schema can't be
    used, or this Spark can't read the format.
    """
    jvm = require_jvm(spark, f"--format {kind}")
    try:
        if kind == "avro":
            check_avro_jar(spark, jvm)
            decode = make_avro_decoder(spark, jvm, schema)
        else:
            decode = make_protobuf_decoder(spark, jvm, schema, message)
        # Spark says here what it has against a schema, such as one that contains itself.
        spark.sql("SELECT CAST(NULL AS BINARY) AS value").select(decode(F.col("value"))).schema  # noqa: B018
    except (*JAVA_ERRORS, ValueError) as error:
        raise UsageError(f"the schema can't be used for --format {kind}: {describe(error)}") from error
    return decode


def check_avro_jar(spark: SparkSession, jvm: Any) -> None:
    """Raises UsageError, one line, when Spark has no Avro package."""
    loader = jvm.java.lang.Thread.currentThread().getContextClassLoader()
    if loader.getResource("org/apache/spark/sql/avro/SchemaConverters.class") is None:
        scala = jvm.scala.util.Properties.versionNumberString().rpartition(".")[0]
        raise UsageError(
            f"--format avro: this Spark {spark.version} has no Avro: give spark-submit --packages "
            f"{AVRO_PACKAGE}_{scala}:{spark.version}"
        )


def make_avro_decoder(spark: SparkSession, jvm: Any, schema: Schema) -> Decode:
    """See `make_decoder`."""
    parser = jvm.org.apache.avro.Schema.Parser()
    # The parser remembers the types of the files before, and then writes them into the last one.
    parsed = [parser.parse(text) for _, text in schema.files][-1]
    if parsed.getType().getName() != "record":
        raise ValueError(f"it is of type {parsed.getType().getName()}, and an event is a record")
    text = parsed.toString()
    # A record of a single field has the bytes of that field. Of bytes that can't be read Spark makes a record of nulls,
    # which so is none of the event's.
    framed = {"type": "record", "name": "uniques_framed", "fields": [{"name": "event", "type": json.loads(text)}]}
    options = {"mode": "PERMISSIVE", "enableStableIdentifiersForUnionType": "true"}
    send_class(spark, jvm, "AvroCheck.java")
    check = register_function(spark, jvm.uniques.AvroCheck.create(text))

    def decode(payload: Column) -> Column:
        read = from_avro(F.when(F.call_function(check, payload), payload), json.dumps(framed), options)
        return F.to_json(read["event"], TO_JSON)

    return decode


def make_protobuf_decoder(spark: SparkSession, jvm: Any, schema: Schema, message: str) -> Decode:
    """See `make_decoder`."""
    try:
        files = [bytearray(base64.b64decode(text, validate=True)) for _, text in schema.files]
    except binascii.Error as error:
        raise ValueError("the registry gives no serialized descriptors (format=serialized)") from error
    send_class(spark, jvm, "ProtobufDecoder.java")
    names = make_list(jvm, [name for name, _ in schema.files])
    function = register_function(spark, jvm.uniques.ProtobufDecoder.create(names, make_list(jvm, files), message))
    return lambda payload: F.call_function(function, payload)


class SchemaNotes:
    """Tells the driver which ids of schemas a query met that it was not told; see `formats.decode_framed`."""

    def __init__(self, spark: SparkSession) -> None:
        """Raises UsageError, one line, where Spark takes no Java function."""
        with java_function(spark, "--schema-registry") as jvm:
            send_class(spark, jvm, "SchemaNotes.java")
            self._met = spark._jsc.sc().collectionAccumulator("schema ids")
            self._function = register_function(spark, jvm.uniques.SchemaNotes.create(self._met))

    def note(self, schema_id: Column) -> Column:
        """For `formats.decode_framed`."""
        return F.call_function(self._function, schema_id)

    def take(self) -> set[int]:
        """The ids that tasks which are done have met since this was asked before."""
        found = {int(schema_id) for schema_id in self._met.value()}
        self._met.reset()
        return found


def describe(error: Exception) -> str:
    """What is wrong, in a line; of an error of Java's what it says itself."""
    cause = getattr(error, "java_exception", None)
    said = str(cause.toString()) if cause is not None else first_lines(error)
    return said.splitlines()[0].rpartition("Exception: ")[2]


def read_schema_file(kind: str, content: bytes) -> Schema:
    """The schema of `--schema FILE`: Avro's JSON, or the set of descriptors that protoc writes.

    Raises UsageError, one line, when the file is neither.
    """
    if kind == "avro":
        return Schema((("", content.decode("utf-8", "replace")),))
    try:
        return Schema(tuple(split_descriptors(content)))
    except (ValueError, IndexError) as error:
        raise UsageError(
            "--schema: the file is no set of Protobuf descriptors: write one with protoc --include_imports "
            "--descriptor_set_out=FILE"
        ) from error


def split_descriptors(content: bytes) -> list[tuple[str, str]]:
    """The files of a FileDescriptorSet, name and serialized descriptor in base64; ValueError when it is none."""
    files = []
    for field, part in read_fields(content):
        if field != 1:
            raise ValueError(field)
        name = next(inner for number, inner in read_fields(part) if number == 1)
        files.append((name.decode(), base64.b64encode(part).decode()))
    if not files:
        raise ValueError("empty")
    return files


def read_fields(message: bytes) -> list[tuple[int, bytes]]:
    """The fields of a Protobuf message that have a length: number and bytes; ValueError or IndexError for others."""
    found, at = [], 0
    while at < len(message):
        key, at = read_varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            _, at = read_varint(message, at)
            continue
        if kind != 2:
            raise ValueError(kind)
        length, at = read_varint(message, at)
        if at + length > len(message):
            raise ValueError(length)
        found.append((number, message[at : at + length]))
        at += length
    return found


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number at a place, and where it ends."""
    number = shift = 0
    while True:
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
