from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chispa import assert_df_equality
from uniques.events import accept_events, parse_events

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = 1468244384


def parse(spark: SparkSession, values: list[str | None]) -> list[tuple[int | None, str | None]]:
    """`(ts, uid)` of each value, in order; (None, None) for what is no countable event."""
    frame = spark.createDataFrame([(value,) for value in values], "value STRING").coalesce(1)
    rows = parse_events(frame).selectExpr("unix_seconds(event_time) AS ts", "uid").collect()
    return [(row.ts, row.uid) for row in rows]


COUNTABLE = {
    "number": ('{"ts":1468244384,"uid":"a"}', T, "a"),
    "string of digits": ('{"ts":"1468244384","uid":"a"}', T, "a"),
    "uid first, ts last": ('{"uid":"a","x":1,"ts":1468244384}', T, "a"),
    "nested objects repeat both names": (
        '{"n":{"ts":1,"uid":"x"},"l":[{"ts":2}],"ts":1468244384,"uid":"a","m":{"uid":"y","ts":3}}',
        T,
        "a",
    ),
    "braces and names inside strings": (
        '{"s":"{ } \\" \\\\ \\"uid\\":\\"x\\", \\"ts\\":1}","ts":1468244384,"uid":"}{"}',
        T,
        "}{",
    ),
    "carriage return after it": ('{"ts":1468244384,"uid":"a"}\r', T, "a"),
    "blanks and line feeds inside": ('{ "ts" : 1468244384 ,\n "uid" : "a" }', T, "a"),
    "escaped and non-ASCII uid": ('{"ts":1468244384,"uid":"\\u00e9é😀"}', T, "éé😀"),
    "the epoch": ('{"ts":0,"uid":"a"}', 0, "a"),
    "last second of year 9999": ('{"ts":253402300799,"uid":"a"}', 253402300799, "a"),
}

NOT_COUNTABLE = {
    "null value": None,
    "empty": "",
    "blank": "  ",
    "no JSON": "hello",
    "truncated": '{"ts":1468244384,"uid":"a"',
    "null": "null",
    "array": '[{"ts":1468244384,"uid":"a"}]',
    "number alone": "1468244384",
    "empty object": "{}",
    "only nested": '{"n":{"ts":1468244384,"uid":"a"}}',
    "no ts": '{"uid":"a"}',
    "no uid": '{"ts":1468244384}',
    "null ts": '{"ts":null,"uid":"a"}',
    "null uid": '{"ts":1468244384,"uid":null}',
    "empty uid": '{"ts":1468244384,"uid":""}',
    "other case": '{"TS":1468244384,"UID":"a"}',
    "word": '{"ts":"soon","uid":"a"}',
    "boolean": '{"ts":true,"uid":"a"}',
    "object": '{"ts":{"ts":1468244384},"uid":"a"}',
    "fraction": '{"ts":1468244384.7,"uid":"a"}',
    "fraction in a string": '{"ts":"1468244384.7","uid":"a"}',
    "exponent": '{"ts":1.468244384e9,"uid":"a"}',
    "negative": '{"ts":-1468244384,"uid":"a"}',
    "milliseconds": '{"ts":1468244384000,"uid":"a"}',
    "a long's largest": '{"ts":9223372036854775807,"uid":"a"}',
    "beyond a long": '{"ts":92233720368547758070,"uid":"a"}',
    "beyond a double": '{"ts":1e400,"uid":"a"}',
    "NaN": '{"ts":NaN,"uid":"a"}',
}


def test_countable_events_keep_their_time_and_user(spark: SparkSession) -> None:
    found = parse(spark, [value for value, _, _ in COUNTABLE.values()])
    assert dict(zip(COUNTABLE, found, strict=True)) == {name: (ts, uid) for name, (_, ts, uid) in COUNTABLE.items()}


def test_what_is_no_event_is_neither_counted_nor_fatal(spark: SparkSession) -> None:
    found = parse(spark, list(NOT_COUNTABLE.values()))
    assert dict(zip(NOT_COUNTABLE, found, strict=True)) == dict.fromkeys(NOT_COUNTABLE, (None, None))


def test_values_may_be_binary_as_kafka_gives_them(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(bytearray(b'{"ts":1468244384,"uid":"a"}'),), (None,)], "value BINARY")
    actual = accept_events(parse_events(frame)).selectExpr("unix_seconds(event_time) AS ts", "uid")
    assert_df_equality(actual, spark.createDataFrame([(T, "a")], "ts BIGINT, uid STRING"), ignore_nullable=True)


def test_a_poisonous_event_between_good_ones_hides_none(spark: SparkSession) -> None:
    good = '{"ts":1468244384,"uid":"%s"}'
    values = [good % "a", '{"ts":"abc","uid":"a"}', good % "b", "\x00", good % "c"]
    frame = spark.createDataFrame([(value,) for value in values], "value STRING")
    actual = accept_events(parse_events(frame)).select("uid")
    assert_df_equality(actual, spark.createDataFrame([("a",), ("b",), ("c",)], "uid STRING"), ignore_row_order=True)


@pytest.mark.parametrize("ansi", ["true", "false"])
def test_bad_numbers_do_not_depend_on_ansi_mode(spark: SparkSession, ansi: str) -> None:
    before = str(spark.conf.get("spark.sql.ansi.enabled"))
    spark.conf.set("spark.sql.ansi.enabled", ansi)
    try:
        assert parse(spark, ['{"ts":"1.5","uid":"a"}', '{"ts":"x","uid":"a"}']) == [(None, None), (None, None)]
    finally:
        spark.conf.set("spark.sql.ansi.enabled", before)
