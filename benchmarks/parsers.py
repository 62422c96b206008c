"""What getting `ts` and `uid` out of 2 kB of JSON costs, in plain Python and in Spark: `make bench ARGS=parsers`.

In Python every parser goes through the same list of events, in one thread. In Spark every way goes through the same
frame, cached in memory, and writes its two fields to nowhere; reading alone is the base. Before anything is measured
each way must find the same two fields in every event.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import msgspec
import orjson
import pyarrow as pa
import rapidjson
import simdjson
import ujson
from generate_events import Settings, generate_events
from pyspark.sql import functions as F
from report import make_table, save_bars, show_spread
from rows import alternate, ratios
from session import choose_memory, start_session
from uniques.core.json_fields import STRICT_JSON
from uniques.decoder import send_decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from pyspark.sql import DataFrame
    from rows import Recorder, Row

    Fields = tuple[int | str, str]
    Parse = Callable[[bytes], Fields]

PACKAGES = ("msgspec", "orjson", "pyarrow", "pysimdjson", "python-rapidjson", "ujson")
CORES = 2
# Spark reads from it what kind of function it gets, so it must exist at run time.
Columns = Iterator[pa.Array]
READ_ONLY = "read only"
JOB = "Jackson on the bytes (the job)"
FROM_JSON = "from_json, 2 fields"
STANDARD = "json"
EVENT_SCHEMA = "ts STRING, uid STRING, malformed STRING"
# Bounds what a Python worker holds: Spark's 10,000 records are 20 MB of 2 kB events. The rate is the same.
EVENTS_AN_ARROW_BATCH = 1_000
# Every field that the generator writes; what it nests in a list is of several types.
FULL_SCHEMA = (
    f"{EVENT_SCHEMA}, type STRING, data STRUCT<ts BIGINT, uid STRING, path STRING, list ARRAY<STRING>>, text STRING"
)


class Event(msgspec.Struct):
    """The two fields, for msgspec: all others are skipped."""

    ts: int | str
    uid: str


def make_parsers() -> dict[str, Parse]:
    """The parsers of plain Python: from an event's bytes to its `ts`, as it stands there, and its `uid`."""

    def pick(load: Callable[[bytes], Any]) -> Parse:
        def parse(line: bytes) -> Fields:
            event = load(line)
            return event["ts"], event["uid"]

        return parse

    typed = msgspec.json.Decoder(Event)

    def parse_typed(line: bytes) -> Fields:
        event = typed.decode(line)
        return event.ts, event.uid

    simd = simdjson.Parser()

    def parse_simd(line: bytes) -> Fields:
        event = cast("simdjson.Object", simd.parse(line))
        return cast("Fields", (event["ts"], event["uid"]))

    return {
        STANDARD: pick(json.loads),
        "python-rapidjson": pick(rapidjson.loads),
        "ujson": pick(ujson.loads),
        "orjson": pick(orjson.loads),
        "msgspec, untyped": pick(msgspec.json.Decoder().decode),
        "msgspec, typed Struct": parse_typed,
        "pysimdjson": parse_simd,
    }


def time_parser(parse: Parse, lines: Sequence[bytes]) -> float:
    """Events a second."""
    began = time.perf_counter()
    for line in lines:
        parse(line)
    return len(lines) / (time.perf_counter() - began)


def make_stage(struct: bool) -> Callable[[Columns], Columns]:
    """An Arrow stage from `value` to `ts` and `uid`, STRING both: with a msgspec Struct, or else with orjson."""

    # Nested, class and all, so that it travels to the workers as code: this module is not on their path.
    def parse_values(columns: Columns) -> Columns:
        decode = msgspec.json.Decoder(msgspec.defstruct("Event", [("ts", int | str), ("uid", str)])).decode
        for values in columns:
            if struct:
                typed: list[Any] = [decode(value) for value in values.to_pylist()]
                ts, uid = [str(event.ts) for event in typed], [event.uid for event in typed]
            else:
                loaded = [orjson.loads(value) for value in values.to_pylist()]
                ts, uid = [str(event["ts"]) for event in loaded], [event["uid"] for event in loaded]
            yield pa.StructArray.from_arrays([pa.array(ts), pa.array(uid)], ["ts", "uid"])

    return parse_values


def make_ways(values: DataFrame) -> dict[str, DataFrame]:
    """Spark's ways: frames of `ts` and `uid`, STRING both."""
    text = F.col("value").cast("string")

    def parse_with(schema: str) -> DataFrame:
        # The options keep Spark from leaving out the fields that are not asked for.
        options = {**STRICT_JSON, "columnNameOfCorruptRecord": "malformed"}
        return values.select(F.from_json(text, schema, options).alias("event")).select("event.ts", "event.uid")

    def run_stage(struct: bool) -> DataFrame:
        find = F.arrow_udf  # type: ignore[attr-defined]  # left out of its stubs
        stage = find(make_stage(struct), "ts STRING, uid STRING")
        return values.select(stage("value").alias("event")).select("event.ts", "event.uid")

    variant = values.select(F.try_parse_json(text).alias("event"))
    return {
        JOB: values.select(send_decoder(values.sparkSession)(F.col("value")).alias("event")).select(
            (F.col("event.time") / 1_000_000).cast("bigint").cast("string").alias("ts"),
            F.col("event.value_0").alias("uid"),
        ),
        FROM_JSON: parse_with(EVENT_SCHEMA),
        "from_json, all fields": parse_with(FULL_SCHEMA),
        "json_tuple": values.select(F.json_tuple(text, "ts", "uid").alias("ts", "uid")),
        "get_json_object, twice": values.select(
            F.get_json_object(text, "$.ts").alias("ts"), F.get_json_object(text, "$.uid").alias("uid")
        ),
        "variant": variant.select(
            F.try_variant_get("event", "$.ts", "string").alias("ts"),
            F.try_variant_get("event", "$.uid", "string").alias("uid"),
        ),
        "Arrow stage, orjson": run_stage(struct=False),
        "Arrow stage, msgspec Struct": run_stage(struct=True),
    }


def digest(parsed: DataFrame) -> tuple[int, int]:
    """How many rows of `ts` and `uid` there are, and the sum of their hashes: the same for the same rows only."""
    (row,) = parsed.agg(F.count(F.lit(1)), F.sum(F.xxhash64("ts", "uid").cast("decimal(38, 0)"))).collect()
    return int(row[0]), int(row[1])


def time_frame(frame: DataFrame, events: int) -> float:
    """Events a second, written to nowhere."""
    began = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return events / (time.perf_counter() - began)


def measure_python(recorder: Recorder, rounds: int, events: int) -> None:
    """The parsers in plain Python, one thread."""
    generated = list(generate_events(Settings(events=events)))
    lines = [event.line for event in generated]
    parsers = make_parsers()
    for name, parse in parsers.items():
        if [(int(ts), uid) for ts, uid in map(parse, lines)] != [(event.ts, event.uid) for event in generated]:
            raise ValueError(f"{name} does not find the fields of the events")
    rates = alternate({name: partial(time_parser, parse, lines) for name, parse in parsers.items()}, rounds)
    for name, values in rates.items():
        recorder.add(name, "rate", "events/s", values, events=events, where="Python", threads=1)
        recorder.add(name, "ratio", f"of {STANDARD}", ratios(values, rates[STANDARD]), where="Python")


def measure_spark(recorder: Recorder, rounds: int, events: int) -> None:
    """Spark's ways on one cached frame."""
    spark = start_session("parsers", choose_memory(recorder.quick), CORES)
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", EVENTS_AN_ARROW_BATCH)
    generated = list(generate_events(Settings(events=events)))
    expected = spark.createDataFrame([(str(event.ts), event.uid) for event in generated], "ts STRING, uid STRING")
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.writelines(event.line + b"\n" for event in generated)
        file.flush()
        lines = spark.read.text(file.name).select(F.col("value").cast("binary"))
        values = lines.repartition(2 * CORES).persist()
        values.count()
    wanted = digest(expected)
    ways = make_ways(values)
    for name, frame in ways.items():
        if digest(frame) != wanted:
            raise ValueError(f"{name} does not find the fields of the events")
    frames = {READ_ONLY: values.select("value"), **ways}
    rates = alternate({name: partial(time_frame, frame, events) for name, frame in frames.items()}, rounds)
    spark.stop()
    for name, found in rates.items():
        recorder.add(name, "rate", "events/s", found, events=events, where="Spark", cores=CORES)
        recorder.add(name, "ratio", f"of {JOB}", ratios(found, rates[JOB]), where="Spark")
        # (time of the way - time of reading) / time of the way.
        shares = [1 - share for share in ratios(found, rates[READ_ONLY])]
        recorder.add(name, "share of JSON", "of the time", shares, where="Spark")


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures both."""
    measure_python(recorder, rounds, 5_000 if recorder.quick else 50_000)
    measure_spark(recorder, rounds, 10_000 if recorder.quick else 200_000)


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    found = {(row.metric, row.parameters["where"], row.what): row for row in rows}
    python = [row for (metric, where, _), row in found.items() if (metric, where) == ("rate", "Python")]
    spark = [row for (metric, where, _), row in found.items() if (metric, where) == ("rate", "Spark")]
    ways = [row for row in spark if row.what != READ_ONLY]
    fastest_python = max(python, key=lambda row: row.median)
    fastest = max(ways, key=lambda row: row.median)
    save_bars(python, plots / "parsers_python.svg", "JSON in plain Python, one thread", "events of 2 kB a second")
    save_bars(ways, plots / "parsers_spark.svg", f"JSON in Spark, {CORES} cores", "events of 2 kB a second")
    share = found["share of JSON", "Spark", JOB].median
    gain = found["ratio", "Spark", fastest.what].median
    faster = f", {gain:,.2f} times as fast as the job's way" if fastest.what != JOB else ""
    over_spark = 1 / found["ratio", "Spark", FROM_JSON].median
    return (
        "## JSON\n\nEvery way gets `ts` and `uid` out of the same events of 2 kB, and was held to finding the right "
        "ones in each event before it was measured.\n\n"
        "### In plain Python\n\n![Events a second](plots/parsers_python.svg)\n\n"
        + make_table(
            ["one thread", "events/s: median (range)", f"of {STANDARD}"],
            [[row.what, show_spread(row), show_spread(found["ratio", "Python", row.what], 2)] for row in python],
        )
        + f"\nFastest here: {fastest_python.what}, {found['ratio', 'Python', fastest_python.what].median:,.1f} times "
        f"as fast as {STANDARD} of Python's library. The typed Struct and pysimdjson make no Python objects for fields "
        "that nobody asked for.\n\n"
        f"### In Spark\n\nA frame of values cached in memory, on {CORES} cores; the two fields are written to nowhere. "
        "JSON's share of the time is (time of the way - time of reading only) / time of the way, round by round. An "
        "Arrow stage runs in Python processes beside the JVM, on the same cores where the machine has no more, and "
        f"gets {EVENTS_AN_ARROW_BATCH:,} events at a time.\n\n"
        "![Events a second](plots/parsers_spark.svg)\n\n"
        + make_table(
            ["", "events/s: median (range)", "of the job's way", "JSON's share of the time"],
            [
                [
                    row.what,
                    show_spread(row),
                    show_spread(found["ratio", "Spark", row.what], 2),
                    "" if row.what == READ_ONLY else f"{found['share of JSON', 'Spark', row.what].median:.0%}",
                ]
                for row in spark
            ],
        )
        + f"\nFastest here: {fastest.what}{faster}. The job's way, where JSON takes {share:.0%} of the time, is "
        f"{over_spark:,.1f} times as fast as {FROM_JSON}. The ways do not take the same records for events: "
        "where they differ, a contract has to decide, not speed. Events like these, with a long text in them, favour "
        "parsers that skip what nobody asked for.\n"
    )
