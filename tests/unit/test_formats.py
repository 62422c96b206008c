"""Avro, Protobuf and Confluent's wire format as JSON texts, value by value."""

from __future__ import annotations

import base64
import json
import struct
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import wrappers_pb2
from schemas import avro, descriptor_set, framed, message, proto_class, proto_file, zigzag
from uniques.core.events import parse_events
from uniques.core.formats import Schema, decode_framed, decode_values, restore_values, strip_frames
from uniques.errors import UsageError
from uniques.schemas import SchemaNotes, make_decoder, read_schema_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import DataFrame, SparkSession

DEVICE = {"type": "record", "name": "Device", "fields": [{"name": "id", "type": "string"}]}
EVENT = {
    "type": "record",
    "name": "Event",
    "namespace": "shop",
    "fields": [
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "uid", "type": ["null", "string", "long"]},
        {"name": "device", "type": ["null", DEVICE]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "counts", "type": {"type": "map", "values": "int"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["VIEW", "CLICK"]}},
        {"name": "rest", "type": "bytes"},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "ratio", "type": "double"},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
    ],
}
VALUE = {
    "ts": datetime(2016, 7, 11, 13, 39, 44, 123456, timezone.utc),
    "uid": "a\N{SNOWMAN}",
    "device": {"id": "d"},
    "tags": ["x", "y"],
    "counts": {"n": 1},
    "kind": "CLICK",
    "rest": b"\xff\x00",
    "local": datetime(2016, 7, 11, 13, 39, 44),
    "ratio": float("nan"),
    "price": Decimal("1.50"),
}
LIST = {"type": "record", "name": "List", "fields": [{"name": "next", "type": ["null", "List"]}]}
SMALL = {"type": "record", "name": "Small", "fields": [{"name": "uid", "type": "string"}, {"name": "n", "type": "int"}]}


def frame_of(spark: SparkSession, values: Sequence[bytes | None]) -> DataFrame:
    rows = [(at, None if value is None else bytearray(value)) for at, value in enumerate(values)]
    return spark.createDataFrame(rows, "i INT, value BINARY")


def decode(spark: SparkSession, kind: str, schema: Schema, values: Sequence[bytes | None], name: str = "") -> list[Any]:
    """What becomes of each value: the JSON text as an object, or the reason."""
    decoded = decode_values(frame_of(spark, values), make_decoder(spark, kind, schema, name)).orderBy("i").collect()
    assert [row.record_value for row in decoded] == [None if value is None else bytearray(value) for value in values]
    return [row.unreadable or (row.value and json.loads(row.value)) for row in decoded]


def avro_schema(schema: object) -> Schema:
    return Schema((("", json.dumps(schema)),))


def test_an_avro_record_is_a_json_object(spark: SparkSession) -> None:
    seven = {**VALUE, "uid": 7, "device": None, "tags": [], "counts": {}}
    found = decode(spark, "avro", avro_schema(EVENT), [avro(EVENT, VALUE), avro(EVENT, seven), None])
    assert found[0] == {
        "ts": "2016-07-11T13:39:44.123456Z",
        "uid": {"member_string": "a\N{SNOWMAN}"},
        "device": {"id": "d"},
        "tags": ["x", "y"],
        "counts": {"n": 1},
        "kind": "CLICK",
        "rest": base64.b64encode(b"\xff\x00").decode(),
        "local": "2016-07-11T13:39:44.000000",
        "ratio": "NaN",
        "price": 1.5,
    }
    assert found[1]["uid"] == {"member_long": 7}
    assert "device" not in found[1]
    assert found[2] is None


def test_bytes_that_are_no_avro_of_the_schema(spark: SparkSession) -> None:
    good = avro(SMALL, {"uid": "abc", "n": 5})
    bad = [
        b"",
        good[:-1],
        good + b"\x00",
        b"\xff" * 40,
        zigzag(2**30) + b"abc",  # the length of a text of 1 GB: Avro's reader would make room for it
        zigzag(-3) + b"abc" + zigzag(5),
        zigzag(2) + b"\xff\xfe" + zigzag(5),  # no UTF-8
        zigzag(3) + b"abc" + zigzag(2**40),  # no int
    ]
    assert decode(spark, "avro", avro_schema(SMALL), [good, *bad]) == [
        {"uid": "abc", "n": 5},
        *["bad_bytes"] * len(bad),
    ]
    lists = {"type": "record", "name": "L", "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}]}
    assert decode(spark, "avro", avro_schema(lists), [zigzag(2**40) + b"\x00", b"\x00"]) == ["bad_bytes", {"x": []}]


def test_blocks_of_avro_may_say_their_size(spark: SparkSession) -> None:
    lists = {"type": "record", "name": "L", "fields": [{"name": "x", "type": {"type": "array", "items": "int"}}]}
    blocks = zigzag(-2) + zigzag(2) + zigzag(1) + zigzag(2) + zigzag(1) + zigzag(3) + zigzag(0)
    assert decode(spark, "avro", avro_schema(lists), [blocks]) == [{"x": [1, 2, 3]}]


def test_a_time_that_spark_can_not_hold_is_bad_bytes(spark: SparkSession) -> None:
    time = {
        "type": "record",
        "name": "T",
        "fields": [{"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
    }
    assert decode(spark, "avro", avro_schema(time), [zigzag(2**62), zigzag(1468244384000)]) == [
        "bad_bytes",
        {"ts": "2016-07-11T13:39:44.000000Z"},
    ]


def test_an_avro_schema_with_references(spark: SparkSession) -> None:
    event = {
        "type": "record",
        "name": "Event",
        "fields": [{"name": "one", "type": "Device"}, {"name": "two", "type": "Device"}],
    }
    schema = Schema((("Device", json.dumps(DEVICE)), ("", json.dumps(event))))
    assert decode(spark, "avro", schema, [zigzag(1) + b"a" + zigzag(1) + b"b"]) == [
        {"one": {"id": "a"}, "two": {"id": "b"}}
    ]


PRODUCT = proto_file("product.proto", message("Product", ("name", "string")))
SHOP = proto_file(
    "event.proto",
    message("Other", ("text", "string")),
    message(
        "Event",
        ("uid", "string"),
        ("at", "google.protobuf.Timestamp"),
        ("n", "int64"),
        ("small", "uint32"),
        ("large", "uint64"),
        ("products", "shop.Product", True),
        ("rest", "bytes"),
        ("country", "google.protobuf.StringValue"),
        ("numbers", "sint32", True),
        ("bot", "bool"),
        ("ratio", "double"),
    ),
    imports=("product.proto", "google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"),
)
SHOP.message_type[1].nested_type.append(message("Inner", ("uid", "string")))
SHOP.message_type[1].field.add(name="kind", number=20, label=1, type=14, type_name=".shop.Kind")
SHOP.enum_type.add(name="Kind").value.add(name="VIEW", number=0)
SHOP.enum_type[0].value.add(name="CLICK", number=1)


def event_of(**fields: Any) -> Any:
    return proto_class("Event", PRODUCT, SHOP)(**fields)


def full_event() -> bytes:
    event = event_of(
        uid="a\N{SNOWMAN}", n=-5, small=2**32 - 1, large=2**64 - 1, rest=b"\xff\x00", numbers=[1, -2], kind=1
    )
    event.at.seconds, event.at.nanos = 1_468_244_384, 123_456_789
    event.products.add(name="p")
    event.country.value = "CH"
    written: bytes = event.SerializeToString()
    return written


FULL = {
    "uid": "a\N{SNOWMAN}",
    "at": "2016-07-11T13:39:44.123456789Z",
    "n": -5,
    "small": 2**32 - 1,
    "large": 2**64 - 1,
    "products": [{"name": "p"}],
    "rest": base64.b64encode(b"\xff\x00").decode(),
    "country": "CH",
    "numbers": [1, -2],
    "kind": "CLICK",
}


def test_a_protobuf_message_is_a_json_object(spark: SparkSession) -> None:
    schema = read_schema_file("protobuf", descriptor_set(PRODUCT, SHOP))
    unknown = event_of(uid="b", kind=7).SerializeToString()
    nothing = wrappers_pb2.StringValue(value="").SerializeToString()
    found = decode(spark, "protobuf", schema, [full_event(), unknown, nothing, None], "shop.Event")
    assert found == [FULL, {"uid": "b", "kind": 7}, {}, None]


def test_bytes_that_are_no_protobuf_of_the_schema(spark: SparkSession) -> None:
    schema = read_schema_file("protobuf", descriptor_set(PRODUCT, SHOP))
    bad = [
        b"\xff" * 20,
        full_event()[:-1],
        b"\x0a\x02\xff\xfe",  # a text that is no UTF-8
        b"\x08\x07",  # a number where a text should be
        b"\x0a\xff\xff\xff\xff\x07abc",  # the length of a text of 2 GB
    ]
    assert decode(spark, "protobuf", schema, bad, "shop.Event") == ["bad_bytes"] * len(bad)


def test_texts_of_proto2_must_be_utf8_too(spark: SparkSession) -> None:
    schema = read_schema_file(
        "protobuf", descriptor_set(proto_file("old.proto", message("Old", ("uid", "string")), syntax="proto2"))
    )
    values = [b"\x0a\x02\xff\xfe", b"\x0a\x03\xef\xbf\xbd", b"\x0a\x01a"]
    assert decode(spark, "protobuf", schema, values, "shop.Old") == ["bad_bytes", {"uid": "\ufffd"}, {"uid": "a"}]


def test_the_wire_format_says_which_schema_and_which_message(spark: SparkSession) -> None:
    files = read_schema_file("protobuf", descriptor_set(PRODUCT, SHOP))
    small = make_decoder(spark, "avro", avro_schema(SMALL))
    shop = make_decoder(spark, "protobuf", files)
    values = [
        framed(1, avro(SMALL, {"uid": "a", "n": 1})),
        framed(2, zigzag(1) + zigzag(1) + full_event()),
        framed(2, b"\x00" + b"\x0a\x01x"),  # the first message of the file, in short
        framed(2, zigzag(1) + zigzag(0) + b"\x0a\x01x"),
        framed(2, zigzag(2) + zigzag(1) + zigzag(0) + b"\x0a\x01y"),
        framed(2, zigzag(1) + zigzag(9)),
        framed(2, b""),
        framed(1, b"\xff"),
        framed(3, b"x"),
        framed(2**32 - 1, b"x"),
        framed(0, b"x"),
        b"\x01" + framed(1, b"")[1:],
        b"\x00\x00",
        b"",
        None,
    ]
    rows = decode_framed(frame_of(spark, values), {1: small, 2: shop}, {3}).orderBy("i").collect()
    assert [row.unreadable or (row.value and json.loads(row.value)) for row in rows] == [
        {"uid": "a", "n": 1},
        FULL,
        {"text": "x"},
        {"text": "x"},
        {"uid": "y"},
        "bad_bytes",
        "bad_bytes",
        "bad_bytes",
        "unknown_schema",
        "unknown_schema",
        "unknown_schema",
        "bad_bytes",
        "bad_bytes",
        "bad_bytes",
        None,
    ]


def test_ids_that_nobody_told_are_noted_and_rejected(spark: SparkSession) -> None:
    notes = SchemaNotes(spark)
    values = [framed(number, b"x") for number in (17, 18, 17, 3, 0, 2**31)]
    rows = decode_framed(frame_of(spark, values), {}, {3}, notes.note).collect()
    assert {row.unreadable for row in rows} == {"unknown_schema"}
    assert notes.take() == {17, 18}
    assert notes.take() == set()


def test_the_rows_get_their_bytes_back_and_their_reasons(spark: SparkSession) -> None:
    values = [
        framed(1, b'{"ts":1468244384,"uid":"a"}'),
        b'{"ts":1468244384,"uid":"a"}',
        framed(1, b"[]"),
        None,
        b"\x00\x00",
    ]
    records = frame_of(spark, values)
    rows = restore_values(parse_events(strip_frames(records))).orderBy("i").collect()
    assert rows[0].asDict().keys() == {"i", "value", "event_time", "uid", "reject_reason"}
    assert [row.value for row in rows] == [row.value for row in records.orderBy("i").collect()]
    assert [row.uid for row in rows] == ["a", None, None, None, None]
    assert [row.reject_reason for row in rows] == [None, "bad_bytes", "not_an_object", "tombstone", "bad_bytes"]


def test_values_of_any_bytes_end_no_query(spark: SparkSession) -> None:
    values = []
    for at, value in enumerate([avro(EVENT, VALUE), full_event()]):
        values += [(at, value[:cut]) for cut in range(len(value))]
        for bit in range(8 * len(value)):
            flipped = bytearray(value)
            flipped[bit // 8] ^= 1 << bit % 8
            values.append((at, bytes(flipped)))
    files = read_schema_file("protobuf", descriptor_set(PRODUCT, SHOP))
    for at, (kind, schema, name) in enumerate([("avro", avro_schema(EVENT), ""), ("protobuf", files, "shop.Event")]):
        mine = [value for number, value in values if number == at]
        found = decode(spark, kind, schema, mine, name)
        assert len(found) == len(mine)
        assert "bad_bytes" in found
        assert any(isinstance(each, dict) for each in found)


@pytest.mark.parametrize(
    ("kind", "schema", "name", "said"),
    [
        ("avro", avro_schema("string"), "", "it is of type string, and an event is a record"),
        ("avro", Schema((("", "{"),)), "", "the schema can't be used for --format avro: "),
        ("avro", avro_schema(LIST), "", "the schema can't be used for --format avro: "),
        ("protobuf", read_schema_file("protobuf", descriptor_set(PRODUCT)), "shop.Event", "there is no such message"),
        ("protobuf", Schema((("x", "message X {}"),)), "", "the registry gives no serialized descriptors"),
    ],
)
def test_a_schema_that_can_not_be_used_gets_one_line(
    spark: SparkSession, kind: str, schema: Schema, name: str, said: str
) -> None:
    with pytest.raises(UsageError) as error:
        make_decoder(spark, kind, schema, name)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b'syntax = "proto3";', struct.pack(">q", 5)])
def test_a_file_that_is_no_set_of_descriptors(content: bytes) -> None:
    with pytest.raises(UsageError, match="--schema: the file is no set of Protobuf descriptors: write one with protoc"):
        read_schema_file("protobuf", content)
