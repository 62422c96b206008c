"""Durations and times: text at the edge, seconds inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.core.counts import count_unique_users
from uniques.core.events import parse_events
from uniques.times import describe_duration, parse_duration, parse_iso_time, to_interval

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 seconds"), (1, "1 second"), (60, "1 minute"), (90, "90 seconds"), (7_200, "2 hours"), (86_400, "1 day")],
)
def test_a_duration_is_described_in_the_largest_unit_that_fits(seconds: int, text: str) -> None:
    assert describe_duration(seconds) == text
    assert parse_duration(text, "second|minute|hour|day") == seconds * 1_000


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "5 seconds", "1 second' OR '1", None])
def test_what_is_no_duration_never_becomes_sql(spark: SparkSession, wrong: object) -> None:
    with pytest.raises(ValueError, match="is no duration: give a whole number of seconds"):
        to_interval(wrong)  # type: ignore[arg-type]
    events = spark.createDataFrame([], "event_time TIMESTAMP, uid STRING")
    records = spark.createDataFrame([], "value STRING, timestamp TIMESTAMP")
    uses: list[Callable[[], object]] = [
        lambda: count_unique_users(events, window_seconds=wrong),  # type: ignore[arg-type]
        lambda: parse_events(records, max_future_seconds=wrong or 0.5),  # type: ignore[arg-type]
        lambda: parse_events(records, max_age_seconds=wrong or 0.5),  # type: ignore[arg-type]
    ]
    for use in uses:
        with pytest.raises(ValueError, match="is no duration"):
            use()


def test_a_window_has_a_length(spark: SparkSession) -> None:
    with pytest.raises(ValueError, match="0 is no duration: give a whole number of seconds, 1 or more"):
        count_unique_users(spark.createDataFrame([], "event_time TIMESTAMP, uid STRING"), window_seconds=0)


def test_a_time_keeps_its_offset() -> None:
    with_offset, without = parse_iso_time("2016-07-11T13:39:44Z"), parse_iso_time("2016-07-11T13:39:44")
    assert with_offset is not None
    assert with_offset.timestamp() == 1468244384
    assert without is not None
    assert without.tzinfo is None
    assert parse_iso_time("soon") is None
