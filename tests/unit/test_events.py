"""What counts as an event, and what each other record is rejected for."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from chispa import assert_df_equality
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pyspark.sql import Observation
from support import read_event_table
from uniques.core.events import REJECT_REASONS, accept_events, parse_events, reject_events
from uniques.core.fields import DEFAULT_SHAPE, EventShape, TimeFormat, parse_fields
from uniques.core.observation import observe_events
from uniques.decoder import send_decoder
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

DOCS = Path(__file__).resolve().parents[2] / "docs"
T = 1468244384
GOOD = b'{"ts":1468244384,"uid":"a"}'


def validate(
    spark: SparkSession, values: list[bytes | None], **flags: Any
) -> list[tuple[int | None, str | None, str | None]]:
    """`(ts, uid, reason)` of each value, in order; both parsers must say the same."""
    frame = spark.createDataFrame([(i, value) for i, value in enumerate(values)], "i INT, value BINARY")
    found = []
    for decode in (None, send_decoder(spark, flags.get("shape", DEFAULT_SHAPE))):
        validated = parse_events(frame, **flags, decode=decode).orderBy("i")
        rows = validated.selectExpr("unix_seconds(event_time) AS ts", "uid", "reject_reason").collect()
        found.append([(row.ts, row.uid, row.reject_reason) for row in rows])
    assert all(rows == found[0] for rows in found)
    return found[0]


def test_every_record_of_the_documentation_is_counted_as_it_says(spark: SparkSession) -> None:
    table = read_event_table()
    assert len(table) >= 40
    found = validate(spark, [value for value, _ in table.values()])
    said = {what: reason or "counted" for what, (_, _, reason) in zip(table, found, strict=True)}
    assert said == {what: reason for what, (_, reason) in table.items()}
    # Every reason that the value alone can give is shown; those of other formats are not about JSON.
    given_reasons = {reason for _, reason in table.values()} - {"counted"}
    others = {"ts_in_future", "ts_too_old", "outside_range", "unknown_schema", "bad_bytes"}
    assert given_reasons == set(REJECT_REASONS) - others


def test_the_documentation_explains_every_reason() -> None:
    page = (DOCS / "reference" / "reject-reasons.md").read_text()
    section = page.split("## unique_users.py")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \| [^|]+ \|$", section, re.MULTILINE)) == REJECT_REASONS


COUNTABLE = {
    "uid first, ts last": (b'{"uid":"a","x":1,"ts":1468244384}', T, "a"),
    "string of digits": (b'{"ts":"1468244384","uid":"a"}', T, "a"),
    "nested objects repeat both names": (
        b'{"n":{"ts":1,"uid":"x"},"l":[{"ts":2}],"ts":1468244384,"uid":"a","m":{"uid":"y","ts":3}}',
        T,
        "a",
    ),
    "braces and names inside strings": (
        b'{"s":"{ } \\" \\\\ \\"uid\\":\\"x\\", \\"ts\\":1}","ts":1468244384,"uid":"}{"}',
        T,
        "}{",
    ),
    "of duplicate keys the last": (b'{"ts":1,"uid":"b","uid":"a","ts":1468244384}', T, "a"),
    "escaped and non-ASCII uid": ('{"ts":1468244384,"uid":"\\u00e9é😀"}'.encode(), T, "éé😀"),
    "a number as uid is its text": (b'{"ts":1468244384,"uid":7}', T, "7"),
    "the epoch": (b'{"ts":0,"uid":"a"}', 0, "a"),
    "last second of year 9999": (b'{"ts":253402300799,"uid":"a"}', 253402300799, "a"),
}


def test_countable_events_keep_their_time_and_user(spark: SparkSession) -> None:
    found = validate(spark, [value for value, _, _ in COUNTABLE.values()])
    expected = {name: (ts, uid, None) for name, (_, ts, uid) in COUNTABLE.items()}
    assert dict(zip(COUNTABLE, found, strict=True)) == expected


def test_accepted_and_rejected_records_are_all_records(spark: SparkSession) -> None:
    raw = spark.createDataFrame([(bytearray(GOOD), 1), (bytearray(b"x"), 2), (None, 3)], "value BINARY, offset BIGINT")
    validated = parse_events(raw)
    accepted = accept_events(validated).selectExpr("unix_seconds(event_time) AS ts", "uid")
    assert_df_equality(accepted, spark.createDataFrame([(T, "a")], "ts BIGINT, uid STRING"), ignore_nullable=True)
    rejected = reject_events(validated).select("value", "offset", "reject_reason")
    expected = spark.createDataFrame(
        [(bytearray(b"x"), 2, "not_json"), (None, 3, "tombstone")], "value BINARY, offset BIGINT, reject_reason STRING"
    )
    assert_df_equality(rejected, expected, ignore_nullable=True, ignore_row_order=True)


@pytest.mark.parametrize("ansi", ["true", "false"])
def test_bad_numbers_do_not_depend_on_ansi_mode(spark: SparkSession, ansi: str) -> None:
    before = str(spark.conf.get("spark.sql.ansi.enabled"))
    spark.conf.set("spark.sql.ansi.enabled", ansi)
    try:
        found = validate(
            spark, [b'{"ts":"1.5.5","uid":"a"}', b'{"ts":"x","uid":"a"}', b'{"ts":99999999999999999999,"uid":"a"}']
        )
    finally:
        spark.conf.set("spark.sql.ansi.enabled", before)
    assert found == [(None, None, "bad_ts")] * 3


@pytest.mark.parametrize(
    ("unit", "times"),
    [
        ("s", {1468244384: T, 1468244384000: None}),
        ("ms", {1468244384999: T, 253402300800000: None, 253402300799001000: None}),
        ("us", {1468244384999999: T}),
        ("ns", {1468244384999999999: T, 9223372036854775807: 9223372036}),
    ],
)
def test_ts_is_read_in_the_unit_that_is_said_and_never_guessed(
    spark: SparkSession, unit: str, times: dict[int, int | None]
) -> None:
    found = validate(
        spark, [b'{"ts":%d,"uid":"a"}' % ts for ts in times], shape=EventShape(time_format=TimeFormat("unix", unit))
    )
    assert [(seconds, reason) for seconds, _, reason in found] == [
        (seconds, None if seconds else "bad_ts") for seconds in times.values()
    ]


@pytest.mark.parametrize("parser", ["spark", "bytes"])
def test_ts_is_compared_with_the_arrival_to_the_millisecond(spark: SparkSession, parser: str) -> None:
    arrived = datetime.fromtimestamp(T, timezone.utc) + timedelta(milliseconds=500)
    cases = {T + 5: None, T + 6: "ts_in_future", T - 59: None, T - 60: "ts_too_old"}
    # A number as uid is one that the other parser leaves to Spark's.
    rows = [(bytearray(b'{"ts":%d,"uid":%s}' % (ts, uid)), arrived) for uid in (b'"a"', b"7") for ts in cases]
    frame = spark.createDataFrame(rows, "value BINARY, timestamp TIMESTAMP")
    validated = parse_events(frame, 5, 60, decode=send_decoder(spark) if parser == "bytes" else None)
    assert [row.reject_reason for row in validated.collect()] == [*cases.values(), *cases.values()]


def test_records_without_arrival_time_are_not_compared_with_it(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(bytearray(GOOD),)], "value BINARY").selectExpr(
        "value", "timestamp_millis(-1) AS timestamp"
    )
    assert parse_events(frame, 5, 60).collect()[0].reject_reason is None


# ---------------------------------------------------------------- properties

SCALAR_END = re.compile(r"[ \t\r\n,\]}]|$")


def refuse_constant(_text: str) -> None:
    raise ValueError


def read_time(ts: object) -> Fraction | None:
    """Unix seconds that a value says, in Python's own way; None when it says none from 1970 to 9999."""
    text = ts.strip("".join(map(chr, range(1, 33)))) if isinstance(ts, str) else json.dumps(ts)
    if re.fullmatch(r"[+-]?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,3})?", text):
        number = Fraction(text)
        for unit in (1, 1_000, 1_000_000, 1_000_000_000):
            if 0 <= number < min(253402300800 * unit, 2**63):
                return number / unit
        return None
    if not isinstance(ts, str) or not re.fullmatch(
        r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.]\d{1,9})?)?( ?(Z|z|[+-]((0\d|1[0-7])(:?[0-5]\d)?|18(:?00)?)))?",
        text,
        re.ASCII,
    ):
        return None
    whole, fraction, rest = re.fullmatch(r"(.*?)([.]\d+)?( ?(?:[Zz]|[+-][\d:]+)?)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    offset = rest.strip().upper().replace(":", "")
    offset = offset if len(offset) != 3 else offset + "00"
    form = "%Y-%m-%dT%H:%M" + (":%S" if whole.count(":") == 2 else "")
    try:
        local = datetime.strptime(whole.upper().replace(" ", "T"), form).replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    ahead = 0 if offset in {"", "Z"} else int(offset[0] + "1") * (int(offset[1:3]) * 3600 + int(offset[3:]) * 60)
    seconds = Fraction(int(local.timestamp()) - ahead) + Fraction("0" + (fraction or ".0"))
    return seconds if 0 <= seconds < 253402300800 else None


def classify(value: bytes) -> str:
    """An independent reading of the contract, with Python's JSON parser."""
    try:
        text = value.decode("utf-8")
        valid = True
    except UnicodeDecodeError:
        text = value.decode("utf-8", "replace")
        valid = False
    start = len(text) - len(text.lstrip(" \t\r\n"))
    try:
        found, end = json.JSONDecoder(parse_constant=refuse_constant).raw_decode(text, start)
    except ValueError:
        return "not_json" if valid else "invalid_utf8"
    if not isinstance(found, dict):
        if not valid:
            return "invalid_utf8"
        whole = isinstance(found, list) or SCALAR_END.match(text, end)
        return "not_an_object" if whole else "not_json"
    ts, uid = found.get("ts"), found.get("uid")
    if ts is None:
        return "missing_ts"
    if read_time(ts) is None:
        return "bad_ts"
    if uid is None or uid == "":
        return "missing_uid"
    if not valid and "\ufffd" in (uid if isinstance(uid, str) else json.dumps(uid, ensure_ascii=False)):
        return "invalid_utf8"
    return "counted"


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["1468244384", "-5", "1e3", "0", " 7 ", "+7", "", "abc", "1.", ".5", "1.E2", "1e0001", "1.25"]),
    st.sampled_from(["2016-07-11T13:39:44Z", "2016-07-11 13:39+02", "2016-7-11T13:39Z", "2016-07-11T24:00:00Z"]),
    st.from_regex(r"\A[12]\d{3}-[01]\d-[0-3]\d[T ][0-2]\d:[0-6]\d(:[0-6]\d([.]\d{1,10})?)?( ?(Z|[+-][01]\d:?\d\d))?\Z"),
    st.integers(0, 2**32),
    st.floats(0, 1e19).map(lambda number: round(number, 3)),
    st.decimals(0, 10**10, places=9).map(str),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["ts", "uid", "x"]), inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from(["ts", "uid", "n", "TS"]), VALUES, max_size=4)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """JSON documents, mostly objects, some cut off or followed by more."""
    document = json.dumps(draw(st.one_of(OBJECTS, OBJECTS, VALUES)), ensure_ascii=draw(st.booleans())).encode(
        "utf-8", "surrogatepass"
    )
    how = draw(st.integers(0, 9))
    if how == 0:
        return document[: draw(st.integers(0, len(document)))]
    return document + (draw(st.sampled_from([b"\r", b" x", b"}", b"\n"])) if how == 1 else b"")


def run_and_account(spark: SparkSession, values: list[bytes | None]) -> list[str]:
    """What each value is counted as; checks that the accounting's totals and the other parser say the same."""
    frame = spark.createDataFrame([(i, value) for i, value in enumerate(values)], "i INT, value BINARY")
    observation = Observation(f"events-{len(values)}")
    rows = observe_events(parse_events(frame), 60, observation).collect()
    accounting = Accounting()
    accounting.add_counted(observation.get)
    assert sorted(parse_events(frame, decode=send_decoder(spark)).collect()) == sorted(rows)
    reasons = [row.reject_reason or "counted" for row in sorted(rows, key=lambda row: int(row.i))]
    totals = accounting.totals()
    assert totals["read"] == len(values) == totals["counted"] + totals["rejected"]
    assert dict(accounting.rejected) == {reason: reasons.count(reason) for reason in {*reasons} - {"counted"}}
    return reasons


PROPERTY = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@PROPERTY
@given(st.lists(st.binary(max_size=60) | st.none(), min_size=1, max_size=60))
@example([b"\x00", b"\xff\xfe", None, b"", b"[[[[", b"{" * 3000, b'"\\', b"-", b"1e400"])
def test_arbitrary_bytes_stop_nothing_and_add_up(spark: SparkSession, values: list[bytes | None]) -> None:
    expected = ["tombstone" if value is None else classify(value) for value in values]
    assert run_and_account(spark, values) == expected


@PROPERTY
@given(st.lists(documents(), min_size=1, max_size=80))
def test_arbitrary_json_agrees_with_an_independent_classification(spark: SparkSession, values: list[bytes]) -> None:
    assert run_and_account(spark, list(values)) == [classify(value) for value in values]


@pytest.mark.parametrize(
    "shape",
    [
        DEFAULT_SHAPE,  # nothing but fields of the value
        EventShape(time_format=TimeFormat("kafka"), users=parse_fields("@key")),  # none of them
    ],
)
def test_no_empty_set_of_columns_is_added(
    spark: SparkSession, shape: EventShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spark Connect refuses one; its own tests are not part of `make test`."""
    records = spark.createDataFrame(
        [(b"k", GOOD, datetime(2016, 7, 11, tzinfo=timezone.utc))], "key BINARY, value BINARY, timestamp TIMESTAMP"
    )
    kind = type(records)
    add = kind.withColumns

    def refuse_nothing(frame: DataFrame, columns: dict[str, Column]) -> DataFrame:
        assert columns
        return add(frame, columns)

    monkeypatch.setattr(kind, "withColumns", refuse_nothing)
    assert parse_events(records, shape=shape).count() == 1
