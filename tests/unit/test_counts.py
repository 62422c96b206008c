from __future__ import annotations

import base64
import json
import math
import random
from typing import TYPE_CHECKING

import pytest
from chispa import assert_df_equality
from datasketches import hll_sketch
from uniques.core.counts import Counter, count_unique_users, hll_error, make_records
from uniques.core.events import accept_events, parse_events
from uniques.core.observation import observe_events

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def make_events(spark: SparkSession, rows: list[tuple[int, str]]) -> DataFrame:
    frame = spark.createDataFrame(rows, "ts BIGINT, uid STRING")
    return frame.selectExpr("timestamp_seconds(ts) AS event_time", "uid")


def in_seconds(counts: DataFrame) -> DataFrame:
    return counts.selectExpr(
        "unix_seconds(window_start) AS start", "unix_seconds(window_end) AS end", "unique_users", "events"
    )


COUNTS = "start BIGINT, end BIGINT, unique_users BIGINT, events BIGINT"


def test_a_user_counts_once_a_window_and_every_event_counts(spark: SparkSession) -> None:
    events = make_events(spark, [(60, "a"), (60, "a"), (119, "b"), (120, "a"), (0, "c")])
    expected = spark.createDataFrame([(0, 60, 1, 1), (60, 120, 2, 3), (120, 180, 1, 1)], COUNTS)
    assert_df_equality(in_seconds(count_unique_users(events)), expected, ignore_row_order=True, ignore_nullable=True)


def test_windows_start_on_the_full_minute_in_any_time_zone(spark: SparkSession) -> None:
    # The session is in Asia/Kathmandu, 5:45 h from UTC.
    events = make_events(spark, [(1468244384, "a")])
    expected = spark.createDataFrame([(1468244340, 1468244400, 1, 1)], COUNTS)
    assert_df_equality(in_seconds(count_unique_users(events)), expected, ignore_nullable=True)


def test_the_window_is_a_parameter(spark: SparkSession) -> None:
    events = make_events(spark, [(0, "a"), (59, "a"), (299, "b"), (300, "b")])
    expected = spark.createDataFrame([(0, 300, 2, 3), (300, 600, 1, 1)], COUNTS)
    actual = in_seconds(count_unique_users(events, window_seconds=300))
    assert_df_equality(actual, expected, ignore_row_order=True, ignore_nullable=True)


def test_no_events_no_windows(spark: SparkSession) -> None:
    assert count_unique_users(make_events(spark, [])).isEmpty()


@pytest.mark.parametrize(("rsd", "error"), [(0.05, 0.0489), (0.02, 0.0173), (0.0175, 0.0173), (0.01, 0.0086)])
def test_relative_error_is_that_of_the_registers_spark_takes(rsd: float, error: float) -> None:
    assert hll_error(rsd) == pytest.approx(error, abs=5e-5)
    assert hll_error(rsd) <= rsd


def test_estimates_stay_within_three_standard_errors(spark: SparkSession) -> None:
    # Every minute another 20,000 draws from 50,000 users: more than the 50,000 a record of user lists could hold.
    draw = random.Random(7)
    rows = [(minute * 60, f"{draw.randrange(50_000):x}") for minute in range(8) for _ in range(20_000)]
    exact = {minute * 60: len({uid for ts, uid in rows if ts == minute * 60}) for minute in range(8)}
    counted = in_seconds(count_unique_users(make_events(spark, rows))).collect()
    errors = [row.unique_users / exact[row.start] - 1 for row in counted]
    assert {row.start: row.events for row in counted} == dict.fromkeys(exact, 20_000)
    assert max(map(abs, errors)) <= 3 * hll_error(0.02)
    # An estimate that is always right would not be one: it shows that the estimator was used.
    assert math.sqrt(sum(error**2 for error in errors) / len(errors)) > 0


def test_a_record_is_the_documented_json_under_its_window_start(spark: SparkSession) -> None:
    events = make_events(spark, [(1468244384, "a"), (1468244399, "b"), (1468244399, "a")])
    record = make_records(count_unique_users(events), Counter(), final=True, revision=0).collect()
    assert [row.key for row in record] == ["2016-07-11T13:39:00Z"]
    assert record[0].value == (
        '{"window_start":"2016-07-11T13:39:00Z","window_end":"2016-07-11T13:40:00Z","unique_users":2,"events":3,'
        '"counter":"approx_count_distinct","relative_error":0.0489,"final":true,"revision":0}'
    )


def test_a_record_says_whether_it_is_final_and_which_revision_it_is(spark: SparkSession) -> None:
    counts = count_unique_users(make_events(spark, [(0, "a")]))
    # Unix time of a backfill's start, beyond 2038.
    for final, revision in ((False, 0), (True, 3), (True, 2_200_000_000)):
        value = json.loads(make_records(counts, Counter(), final, revision).collect()[0].value)
        assert (value["final"], value["revision"]) == (final, revision)


def test_the_optimised_plan_parses_json_once(spark: SparkSession) -> None:
    raw = spark.createDataFrame([(bytearray(b"{}"),)], "value BINARY")
    events = accept_events(observe_events(parse_events(raw), window_seconds=60))
    records = make_records(count_unique_users(events), Counter(), final=True, revision=0)
    plan = records._jdf.queryExecution().optimizedPlan().toString()
    assert plan.count("from_json(StructField(ts,") == 1


def test_the_notebook_lines_of_the_readme(spark: SparkSession) -> None:
    raw = spark.createDataFrame([('{"ts":1468244384,"uid":"a"}',), ("rubbish",)], "value STRING")
    rows = raw.transform(parse_events).transform(accept_events).transform(count_unique_users).collect()
    assert [(row.unique_users, row.events) for row in rows] == [(1, 1)]


ROWS = [(60, "a"), (60, "a"), (119, "b"), (120, "a")]


@pytest.mark.parametrize("name", ["approx_count_distinct", "hll_sketch", "exact"])
def test_every_counter_counts_users_and_events_with_and_without_a_sketch(spark: SparkSession, name: str) -> None:
    expected = spark.createDataFrame([(60, 120, 2, 3), (120, 180, 1, 1)], COUNTS)
    for with_sketch in (False, True):
        counts = count_unique_users(make_events(spark, ROWS), counter=Counter(name, with_sketch=with_sketch))
        assert ("sketch" in counts.columns) == with_sketch
        assert_df_equality(in_seconds(counts), expected, ignore_row_order=True, ignore_nullable=True)


def test_the_exact_counter_is_exact_where_the_others_are_not(spark: SparkSession) -> None:
    rows = [(0, f"{user % 5_000}") for user in range(7_000)]
    users = {
        name: count_unique_users(make_events(spark, rows), counter=Counter(name, rsd=0.3, lg_k=8)).collect()[0]
        for name in ("exact", "approx_count_distinct", "hll_sketch")
    }
    assert users["exact"].unique_users == 5_000
    assert {row.events for row in users.values()} == {7_000}
    assert 5_000 not in {users["approx_count_distinct"].unique_users, users["hll_sketch"].unique_users}


@pytest.mark.parametrize(("lg_k", "error"), [(8, 0.0649), (10, 0.0325), (12, 0.0162), (14, 0.0081)])
def test_the_error_of_a_sketch_follows_from_its_registers(lg_k: int, error: float) -> None:
    assert Counter("hll_sketch", lg_k=lg_k).relative_error == pytest.approx(error, abs=5e-5)
    assert Counter("exact", lg_k=lg_k).relative_error == 0


def test_a_record_can_carry_its_sketch(spark: SparkSession) -> None:
    counter = Counter("hll_sketch", with_sketch=True)
    counts = count_unique_users(make_events(spark, ROWS[:3]), counter=counter)
    value = json.loads(make_records(counts, counter, final=True, revision=0).collect()[0].value)
    assert list(value)[-3:] == ["final", "revision", "sketch"]
    assert (value["counter"], value["relative_error"], value["unique_users"]) == ("hll_sketch", 0.0162, 2)
    sketch = hll_sketch.deserialize(base64.b64decode(value["sketch"]))
    assert (sketch.lg_config_k, round(sketch.get_estimate())) == (12, 2)


def test_the_estimate_of_a_sketch_does_not_depend_on_the_order_of_events(spark: SparkSession) -> None:
    # 600 users: no longer listed one by one, and not yet from several partial sketches.
    rows = [(0, f"{user}") for user in range(600)]
    counter = Counter("hll_sketch", with_sketch=True)
    draw = random.Random(1)
    found = set()
    for _ in range(3):
        draw.shuffle(rows)
        row = count_unique_users(make_events(spark, rows).coalesce(1), counter=counter).collect()[0]
        found.add((row.unique_users, bytes(row.sketch)))
    assert len(found) == 1


def test_a_counter_that_is_a_sketch_is_made_once(spark: SparkSession) -> None:
    counter = Counter("hll_sketch", with_sketch=True)
    plan = count_unique_users(make_events(spark, ROWS), counter=counter)._jdf.queryExecution().executedPlan().toString()
    # Partial and final aggregation, each with its function in its node's functions.
    assert plan.count("hll_sketch_agg(uid") <= 2
