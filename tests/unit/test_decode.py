"""The parser that reads bytes: what it decides itself, and that it never decides otherwise than Spark's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from chispa import assert_df_equality
from generate_events import Settings, generate_events
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniques.core.event_time import MAX_LONG
from uniques.core.events import parse_events
from uniques.core.fields import DEFAULT_SHAPE, EventShape, TimeFormat
from uniques.decoder import send_decoder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

T = 1468244384
DECIDED = {
    b'{"ts":1468244384,"uid":"a"}': (T, "a"),
    b'{ "uid" : "a" , "n" : {"ts":1} , "ts" : "1468244384" } ': (T, "a"),
    b'{"ts":"0001468244384","uid":"a"}': (T, "a"),
    b'{"ts":0,"uid":"\\u0061"}': (0, "a"),
    b'{"ts":1,"uid":7}': (1, "7"),
    b'{"ts":1.25,"uid":true}': (1.25, "true"),
    b'{"ts":"1468244384.5","uid":2.50}': (T + 0.5, "2.5"),
    b'{"ts":1.468244384e9,"uid":"a"}': (T, "a"),
    b'{"ts":1468244384000,"uid":"a"}': (T, "a"),
    b'{"ts":"1468244384000000","uid":"a"}': (T, "a"),
    b'{"ts":1468244384000000000,"uid":"a"}': (T, "a"),
    b'{"ts":"2016-07-11T13:39:44Z","uid":"a"}': (T, "a"),
    b'{"ts":"2016-07-11 15:39:44.25+0200","uid":"a"}': (T + 0.25, "a"),
    b'{"ts":"2016-07-11T13:39","uid":"a"}': (T - 44, "a"),
    b'{"\\u0074s":5,"uid":"a"}': (5, "a"),
    b'{"ts":5,"uid":"\xc3\xa4\\ud83d\\ude00","\xc3\xa4":"\xf0\x9f\x98\x80"}': (5, "ä😀"),
}
LEFT_TO_SPARK = [
    None,
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"ts":1}',
    b'{"uid":"a"}',
    b'{"ts":null,"uid":"a"}',
    b'{"ts":1,"uid":""}',
    b'{"ts":-1,"uid":"a"}',
    b'{"ts":" 1 ","uid":"a"}',
    b'{"ts":"+1","uid":"a"}',
    b'{"ts":"1_0","uid":"a"}',
    b'{"ts":"\xd9\xa1","uid":"a"}',
    b'{"ts":true,"uid":"a"}',
    b'{"ts":1,"uid":{"id":7}}',
    b'{"ts":"2016-02-30T13:39:44Z","uid":"a"}',
    b'{"ts":"2016-07-11T13:39:44+19:00","uid":"a"}',
    b'{"ts":"2016-07-11","uid":"a"}',
    b'{"ts":"1969-12-31T23:59:59Z","uid":"a"}',
    b'{"ts":"1.E5","uid":"a"}',
    b'{"ts":99999999999999999999,"uid":"a"}',
    b'{"ts":"' + b"1" * 5000 + b'","uid":"a"}',
    b'{"ts":1,"uid":"\xff"}',
    b'{"ts":1,"uid":"\xef\xbf\xbd"}',
    b' {"ts":1,"uid":"a"}',
    b'{"ts":1,"uid":"a","ts":1}',
    b'{"uid":"a","ts":1,"uid":"a"}',
    b'{"ts":1,"uid":"a","x":"\xff"}',
    b'{"\xc1\xb4s":1,"uid":"a"}',
    '{"ts":1,"uid":"a"}'.encode("utf-16-le"),
    '{"ts":1,"uid":"a"}'.encode("utf-16-be"),
    '{"ts":1,"uid":"a"}'.encode("utf-32-le"),
    '\ufeff{"ts":1,"uid":"a"}'.encode(),
    b'{"ts":1,"uid":"a"} x',
    b'{"ts":1,"uid":"a","x":01}',
    b'{"ts":1,"uid":"a","x":' + b"[" * 5000 + b"]" * 5000 + b"}",
]


def decode(
    spark: SparkSession, values: list[bytes | None], shape: EventShape = DEFAULT_SHAPE
) -> list[tuple[float, str] | None]:
    """Time, in seconds, and user, null where the fast parser leaves the record to Spark's."""
    frame = spark.createDataFrame([(i, value) for i, value in enumerate(values)], "i INT, value BINARY")
    rows = frame.select("i", send_decoder(spark, shape)(frame.value).alias("event")).orderBy("i").collect()
    return [(row.event.time / 1e6, row.event.value_0) if row.event else None for row in rows]


def test_ordinary_events_are_decided(spark: SparkSession) -> None:
    assert decode(spark, list(DECIDED)) == list(DECIDED.values())


def test_whatever_else_there_is_is_left_to_sparks_parser(spark: SparkSession) -> None:
    found = dict(zip(LEFT_TO_SPARK, decode(spark, LEFT_TO_SPARK), strict=True))
    assert found == dict.fromkeys(LEFT_TO_SPARK)


def test_the_largest_time_of_a_unit_is_a_time(spark: SparkSession) -> None:
    nanoseconds = EventShape(time_format=TimeFormat("unix", "ns"))
    latest = (MAX_LONG // 1_000 / 1e6, "a")
    assert decode(spark, [b'{"ts":%d,"uid":"a"}' % MAX_LONG], nanoseconds) == [latest]
    assert decode(spark, [b'{"ts":"%d","uid":"a"}' % MAX_LONG], nanoseconds) == [latest]
    assert decode(spark, [b'{"ts":"%d","uid":"a"}' % (MAX_LONG + 1)], nanoseconds) == [None]


def assert_parsers_agree(spark: SparkSession, values: list[bytes]) -> None:
    frame = spark.createDataFrame([(i, value) for i, value in enumerate(values)], "i INT, value BINARY")
    assert_df_equality(parse_events(frame, decode=send_decoder(spark)), parse_events(frame), ignore_nullable=True)


SEEDS = [
    b'{"ts":1468244384,"uid":"a","x":[1,-2.5e3,true,null,{"ts":1,"uid":"b"}]}',
    b'{"uid":"\xc3\xa9\\u00e9\\ud83d\\ude00","ts":"1468244384","s":"\\"\\\\\\/\\b\\n{}","ts":7}',
]
# What JSON is made of, and what breaks it.
PIECES = [
    *(bytes([byte]) for byte in b"{}[]\",:\\/0123456789-+.eEutrnbf \t\r\n\x00\x01\x0b\x7f\x80\xc0\xed\xff'#*"),
    *(
        b"true",
        b"null",
        b"NaN",
        b"Infinity",
        b"\\u",
        b"\\ud800",
        b"\\udc00",
        b"00",
        b"1e400",
        b'"ts":',
        b'"uid":',
        b"//",
    ),
    *(b"\xef\xbf\xbd", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc2\x85", b"\xe2\x80\xa8", b"/**/", b"9" * 19, b"'a'"),
]


def damage_events(seed: int, number: int) -> list[bytes]:
    """Events with one to three places changed, cut or put in, seeded."""
    random_ = random.Random(seed)
    damaged = []
    for _ in range(number):
        event = bytearray(random_.choice(SEEDS))
        for _ in range(random_.randint(1, 3)):
            place = random_.randrange(len(event) + 1)
            cut = random_.choice((0, 0, 1, 1, 2, 8))
            event[place : place + cut] = random_.choice((b"", *PIECES))
        damaged.append(bytes(event))
    return damaged


def test_both_parsers_say_the_same_of_damaged_events(spark: SparkSession) -> None:
    assert_parsers_agree(spark, damage_events(seed=1, number=5_000))


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.lists(st.integers(0, 2**32), min_size=50, max_size=50))
def test_both_parsers_say_the_same_whatever_is_damaged(spark: SparkSession, seeds: list[int]) -> None:
    assert_parsers_agree(spark, [event for seed in seeds for event in damage_events(seed, 10)])


def test_generated_events_need_no_other_parser(spark: SparkSession) -> None:
    events = list(generate_events(Settings(events=500)))
    assert decode(spark, [event.line for event in events]) == [(event.ts, event.uid) for event in events]


def test_text_is_parsed_as_bytes_are(spark: SparkSession) -> None:
    frame = spark.createDataFrame([('{"ts":1468244384,"uid":"a"}',), ("x",), (None,)], "value STRING")
    assert_df_equality(parse_events(frame, decode=send_decoder(spark)), parse_events(frame), ignore_nullable=True)
