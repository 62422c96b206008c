"""Events of any shape: paths, times, users and conditions; both parsers agree with an independent reading."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniques.core.events import parse_events
from uniques.core.fields import EventShape, Field, TimeFormat, parse_fields
from uniques.decoder import send_decoder
from uniques.errors import UsageError
from uniques.filters import read_filter
from uniques.runtime.session import changed_setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import SparkSession

T = 1468244384
Found = tuple[float | None, str | None, str | None]


def read(spark: SparkSession, values: Sequence[object], shape: EventShape) -> list[Found]:
    """`(time, user, reason)` of each document, in order; both parsers must say the same."""
    texts = [value if isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    frame = spark.createDataFrame([(i, bytearray(text)) for i, text in enumerate(texts)], "i INT, value BINARY")
    found = []
    for decode in (None, send_decoder(spark, shape)):
        with changed_setting(spark, "spark.sql.ansi.enabled", "false"):  # as the job does
            parsed = parse_events(frame, shape=shape, decode=decode)
        rows = parsed.orderBy("i").selectExpr("unix_micros(event_time) AS time", "uid", "reject_reason AS reason")
        found.append([(None if row.time is None else row.time / 1e6, row.uid, row.reason) for row in rows.collect()])
    assert found[0] == found[1]
    return found[0]


def shape_of(time: str = "ts", users: str = "uid", **time_format: str) -> EventShape:
    return EventShape(parse_fields(time)[0], TimeFormat(**time_format), parse_fields(users))


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("ts", [("ts",)]),
        ("a.b.c", [("a", "b", "c")]),
        ("`a.b`.c", [("a.b", "c")]),
        ('"user id"', [("user id",)]),
        ("`a``b`", [("a`b",)]),
        ("user.id, anonymous_id", [("user", "id"), ("anonymous_id",)]),
        ("@key", [("@key",)]),
        ("@timestamp", [("@timestamp",)]),
        ("@header.x.y", [("@header", "x.y")]),
        ("`a,b`,c", [("a,b",), ("c",)]),
        ("é.ü", [("é", "ü")]),
    ],
)
def test_a_path_names_a_field(text: str, names: list[tuple[str, ...]]) -> None:
    found = parse_fields(text)
    assert [field.names for field in found] == names
    assert parse_fields(",".join(field.text for field in found)) == found


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a,", "`a", "a b", "``", "@key.x", "@header", "a`b`"])
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_fields(text)


def test_nested_names_and_the_first_user_that_is_there(spark: SparkSession) -> None:
    shape = shape_of("context.`sent.at`", "user.id,user.anonymous,`device id`")
    documents: dict[str, tuple[object, Found]] = {
        "the first": ({"context": {"sent.at": T}, "user": {"id": "a", "anonymous": "b"}}, (T, "a", None)),
        "the second": ({"context": {"sent.at": T}, "user": {"id": "", "anonymous": "b"}}, (T, "b", None)),
        "null is not there": ({"context": {"sent.at": T}, "user": {"id": None}, "device id": 7}, (T, "7", None)),
        "a text in place of an object": ({"context": {"sent.at": T}, "user": "a", "device id": "d"}, (T, "d", None)),
        "a list in place of an object": ({"context": {"sent.at": T}, "user": [1], "device id": "d"}, (T, "d", None)),
        "no user": ({"context": {"sent.at": T}, "user": {}}, (None, None, "missing_uid")),
        "only empty users": (
            {"context": {"sent.at": T}, "user": {"id": ""}, "device id": ""},
            (None, None, "missing_uid"),
        ),
        "dots are no nesting": ({"context.sent.at": T, "user": {"id": "a"}}, (None, None, "missing_ts")),
        "nesting is no dot": ({"context": {"sent": {"at": T}}, "user": {"id": "a"}}, (None, None, "missing_ts")),
        "time behind a text": ({"context": "x", "user": {"id": "a"}}, (None, None, "missing_ts")),
        "bad time": ({"context": {"sent.at": "soon"}, "user": {"id": "a"}}, (None, None, "bad_ts")),
        "cut off": (b'{"context":{"sent.at":1468244384},"user":{"id":"a"}', (None, None, "not_json")),
        "cut off behind a text": (b'{"context":{"sent.at":1468244384},"user":"a"', (None, None, "not_json")),
        "text behind it": (b'{"context":{"sent.at":1468244384},"user":{"id":"a"}} x', (T, "a", None)),
        "no object": (["x"], (None, None, "not_an_object")),
        "damaged": (b'{"context":{"sent.at":1468244384},"user":{"id":"\xff"}}', (None, None, "invalid_utf8")),
        "damaged elsewhere": (b'{"context":{"sent.at":1468244384},"user":{"id":"a"},"x":"\xff"}', (T, "a", None)),
    }
    found = read(spark, [document for document, _ in documents.values()], shape)
    assert dict(zip(documents, found, strict=True)) == {name: expected for name, (_, expected) in documents.items()}


def test_a_field_may_be_a_text_in_one_event_and_an_object_in_another(spark: SparkSession) -> None:
    documents = [{"ts": T, "user": {"id": "a"}}, {"ts": T, "user": "b"}, {"ts": T, "USER": "c"}]
    found = read(spark, documents, shape_of(users="user.id,user,USER"))
    assert found == [(T, "a", None), (T, "b", None), (T, "c", None)]


@pytest.mark.parametrize(
    ("time_format", "times"),
    [
        ({"name": "unix", "unit": "ms"}, {1468244384500: T + 0.5, "1468244384500": T + 0.5, T: 1468244.384}),
        ({"name": "unix"}, {T: T, 1468244384500: None, "2016-07-11T13:39:44Z": None}),
        ({"name": "iso"}, {"2016-07-11T13:39:44Z": T, T: None, str(T): None}),
        ({"name": "auto", "zone": "Europe/Zurich"}, {"2016-07-11T15:39:44": T, "2016-07-11T13:39:44Z": T, T: T}),
        # The hour that is skipped, and the one that comes twice.
        ({"name": "iso", "zone": "Europe/Zurich"}, {"2016-03-27T02:30": 1459042200, "2016-10-30T02:30": 1477787400}),
        ({"name": "dd/MMM/yyyy:HH:mm:ss Z"}, {"11/Jul/2016:15:39:44 +0200": T, "2016-07-11T13:39:44Z": None, T: None}),
        ({"name": "dd.MM.yyyy HH:mm:ss", "zone": "Asia/Kathmandu"}, {"11.07.2016 19:24:44": T}),
    ],
)
def test_a_format_reads_its_times_and_no_others(
    spark: SparkSession, time_format: dict[str, str], times: dict[object, float | None]
) -> None:
    found = read(spark, [{"ts": time, "uid": "a"} for time in times], shape_of(**time_format))
    assert found == [(time, "a", None) if time is not None else (None, None, "bad_ts") for time in times.values()]


def test_fields_of_the_record(spark: SparkSession) -> None:
    rows = [
        (0, b'{"x":1}', b"k", [("id", b"h"), ("id", b"i")]),
        (1, b'{"x":1}', None, None),
        (2, b'{"x":1}', b"\xff", [("id", None)]),
        (3, b"x", b"k", None),
    ]
    frame = spark.createDataFrame(
        [(i, bytearray(value), key and bytearray(key), headers) for i, value, key, headers in rows],
        "i INT, value BINARY, key BINARY, headers ARRAY<STRUCT<key: STRING, value: BINARY>>",
    ).selectExpr("*", "'in' AS topic", f"timestamp_seconds({T}) AS timestamp")
    for users, expected in {
        "@key": ["k", "missing_uid", "missing_uid", "not_json"],
        "@header.id,@key": ["i", "missing_uid", "missing_uid", "not_json"],
        "@header.id,@topic": ["i", "in", "in", "not_json"],
    }.items():
        shape = shape_of(users=users, name="kafka")
        for decode in (None, send_decoder(spark, shape)):
            found = parse_events(frame, shape=shape, decode=decode).orderBy("i").collect()
            assert [row.uid or row.reject_reason for row in found] == expected
            assert [row.event_time is not None for row in found] == [row.uid is not None for row in found]


def where(spark: SparkSession, condition: str, shape: EventShape | None = None) -> EventShape:
    shape = shape or shape_of()
    with changed_setting(spark, "spark.sql.ansi.enabled", "false"):  # as the job does
        return EventShape(shape.time, shape.time_format, shape.users, read_filter(spark, condition))


def test_a_condition_leaves_events_out_before_anything_else_is_asked_of_them(spark: SparkSession) -> None:
    shape = where(spark, "type = 'view' AND coalesce(context.bot, 'false') <> 'true'")
    documents: dict[str, tuple[object, str]] = {
        "holds": ({"ts": T, "uid": "a", "type": "view"}, "counted"),
        "holds, with all fields": ({"ts": T, "uid": "a", "type": "view", "context": {"bot": False}}, "counted"),
        "another type": ({"ts": T, "uid": "a", "type": "click"}, "filtered"),
        "a bot": ({"ts": T, "uid": "a", "type": "view", "context": {"bot": True}}, "filtered"),
        "no type: null is not true": ({"ts": T, "uid": "a"}, "filtered"),
        "left out, and no user": ({"ts": T, "type": "click"}, "filtered"),
        "left out, and no time": ({"uid": "a", "type": "click"}, "filtered"),
        "left out, and a bad time": ({"ts": "soon", "uid": "a", "type": "click"}, "filtered"),
        "no user": ({"ts": T, "type": "view"}, "missing_uid"),
        "no time": ({"uid": "a", "type": "view"}, "missing_ts"),
        "bad time": ({"ts": "soon", "uid": "a", "type": "view"}, "bad_ts"),
        "no JSON": (b"{", "not_json"),
        "damaged type": (b'{"ts":1,"uid":"a","type":"vie\xff"}', "invalid_utf8"),
    }
    found = read(spark, [document for document, _ in documents.values()], shape)
    reasons = [reason or "counted" for _, _, reason in found]
    assert dict(zip(documents, reasons, strict=True)) == {name: reason for name, (_, reason) in documents.items()}


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("cast(age AS INT) >= 18", ["18", "99"]),
        ("age >= 18", ["18", "99"]),
        ("age / 0 > 1 OR age = 'x'", ["x"]),
        ("int(age) BETWEEN 18 AND 20", ["18"]),
        ("age RLIKE '^[0-9]+$'", ["17", "18", "99"]),
        ("CASE WHEN age = 'x' THEN true ELSE false END", ["x"]),
        ("age IN ('17', 'x') AND NOT age LIKE 'x%'", ["17"]),
        ("`age` IS NULL", [None]),
        ("true", ["17", "18", "99", "x", None]),
        ("pmod(xxhash64(uid), 1) = 0", ["17", "18", "99", "x", None]),
    ],
)
def test_conditions_see_texts_and_a_failed_conversion_is_null(
    spark: SparkSession, condition: str, kept: list[str | None]
) -> None:
    ages = ["17", "18", "99", "x", None]
    found = read(spark, [{"ts": T, "uid": str(age), "age": age} for age in ages], where(spark, condition))
    assert [age for age, (_, _, reason) in zip(ages, found, strict=True) if reason is None] == kept


@pytest.mark.parametrize(
    ("condition", "says"),
    [
        ("type = 'x", "Syntax error"),
        ("type", "not true or false"),
        ("type = (SELECT 1)", "ScalarSubquery is not allowed"),
        ("type IN (SELECT 1)", "InSubquery is not allowed"),
        ("count(*) > 1", "the function count is not allowed"),
        ("rand() > 0.5", "the function rand is not allowed"),
        ("now() > time", "the function now is not allowed"),
        ("raise_error('x') = type", "the function raise_error is not allowed"),
        ("java_method('java.lang.System', 'exit', 1) = '0'", "the function java_method is not allowed"),
        ("reflect('java.lang.System', 'exit', 1) = '0'", "the function reflect is not allowed"),
        ("type RLIKE other", "the pattern of rlike must be a text"),
        ("type RLIKE '('", "PATTERN"),
        ("a[0] = 'x'", "is not allowed"),
        ("exists(split(a, ','), x -> x = '1')", "is not allowed"),
        ("type = :name", "is not allowed"),
        ("`@key`.x = 'x'", "@key.x is no field of a record"),
        ("lower(type, type) = 'x'", "WRONG_NUM_ARGS"),
    ],
)
def test_a_condition_that_can_do_more_or_less_is_refused_in_one_line(
    spark: SparkSession, condition: str, says: str
) -> None:
    with pytest.raises(UsageError) as error:
        read_filter(spark, condition)
    message = str(error.value)
    assert says in message
    assert message.startswith("--where ")
    assert "\n" not in message


# ---------------------------------------------------------------- properties

NAMES = st.sampled_from(["a", "b", "A", "a.b", "é", "x y"])
LEAVES = (
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=4) | st.sampled_from([T, str(T), "u"])
)
TREES = st.recursive(
    LEAVES, lambda inner: st.dictionaries(NAMES, inner, max_size=4) | st.lists(inner, max_size=2), max_leaves=8
)
DOCUMENTS = st.dictionaries(NAMES, TREES, max_size=5)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(lambda names: Field(tuple(names)))
SHAPES = st.builds(
    lambda time, users: EventShape(time, TimeFormat(), tuple(users)), PATHS, st.lists(PATHS, min_size=1, max_size=3)
)


def find(document: Any, field: Field) -> object:
    for name in field.names:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def expect(document: dict[str, Any], shape: EventShape) -> Found:
    """What a document is, by Python's own means; times are whole seconds here, users texts, numbers and booleans."""
    time = find(document, shape.time)
    if time is None:
        return None, None, "missing_ts"
    digits = time.strip() if isinstance(time, str) else json.dumps(time)
    if not digits.lstrip("+-").isascii() or not digits.lstrip("+").isdigit() or int(digits) >= 253402300800:
        return None, None, "bad_ts"
    for field in shape.users:
        user = find(document, field)
        if user not in (None, ""):
            text = user if isinstance(user, str) else json.dumps(user, ensure_ascii=False, separators=(",", ":"))
            return float(digits), text, None
    return None, None, "missing_uid"


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(SHAPES, st.lists(DOCUMENTS, min_size=20, max_size=40))
def test_random_paths_find_what_python_finds(
    spark: SparkSession, shape: EventShape, documents: list[dict[str, Any]]
) -> None:
    assert read(spark, documents, shape) == [expect(document, shape) for document in documents]


def test_the_days_of_a_century_are_read_as_python_reads_them(spark: SparkSession) -> None:
    times = [
        datetime(1970 + year, 1 + year % 12, 1 + year % 28, year % 24, 59, 59, year, timezone.utc)
        for year in range(100)
    ]
    found = read(spark, [{"ts": time.isoformat(), "uid": "a"} for time in times], shape_of())
    assert found == [(time.timestamp(), "a", None) for time in times]
