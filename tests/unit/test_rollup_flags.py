"""The flags of the rollup job, before Spark starts."""

from __future__ import annotations

import pytest
from uniques.apps import rollup
from uniques.apps.rollup_progress import bound_completeness, parse_planned
from uniques.apps.rollup_settings import Between, Rebuild, RollupSettings, Show


def test_without_flags_the_settings_are_the_defaults() -> None:
    assert rollup.parse_settings([]) == RollupSettings()


def test_off_and_available_now_are_none() -> None:
    flags = ["--rollup-topic", "off", "--minutes-retention", "2 days", "--maintenance-interval", "off"]
    settings = rollup.parse_settings([*flags, "--trigger", "available-now"])
    assert settings.topic is None
    assert (settings.upkeep.retention_seconds, settings.upkeep.interval_seconds) == (172_800, None)
    assert settings.running.trigger_milliseconds is None


def test_a_task_is_one_of_three() -> None:
    assert rollup.parse_settings(["--rebuild"]).task == Rebuild()
    assert rollup.parse_settings(["--show"]).task == Show()
    assert rollup.parse_settings(["--show", "day"]).task == Show(("day",))
    task = rollup.parse_settings(["--between", "2016-07-11T13:39", "2016-07-12"]).task
    assert isinstance(task, Between)
    assert [f"{time:%d %H:%M}" for time in task.first] == ["11 13:39", "12 00:00"]
    assert task.second is None


ZONES = ["UTC", "Europe/Zurich", "Asia/Kathmandu", "Z", "+05:30", "-3", "GMT+5", "UTC-08:00", "UT+1", "PST", "EST"]


@pytest.mark.parametrize("zone", ZONES)
def test_zones_that_spark_may_know_are_left_to_it(zone: str) -> None:
    assert rollup.parse_settings(["--timezone", zone]).tables.calendar.timezone == zone


WRONG = [
    (["--timezone", "Mars/Olympus"], "argument --timezone: 'Mars/Olympus' is not allowed: give a zone such as UTC"),
    (["--timezone", "Europe"], "argument --timezone: 'Europe' is not allowed"),
    (["--timezone", ""], "argument --timezone: '' is not allowed"),
    (["--timezone", "../zone"], "argument --timezone: '../zone' is not allowed"),
    (["--rebuild", "--show"], "--show and --rebuild: give one of them"),
    (["--and", "2016-07-11", "2016-07-12"], "--and needs --between"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG)
def test_a_wrong_flag_ends_with_one_line_before_spark_starts(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        rollup.parse_settings(flags)
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"rollup_users: error: {message}")


BOUNDS = [
    # (newest final window, unread partitions, positions, complete until)
    (None, set(), {}, None),
    (900, set(), {0: 100}, 900),
    (900, {0}, {0: 100, 1: 900}, 100),
    (900, {0, 1}, {0: 100, 1: 900}, 100),
    (900, {1}, {0: 100, 1: 900}, 900),
    # Of partition 1 nothing is read yet.
    (900, {0, 1}, {0: 100}, None),
]


@pytest.mark.parametrize(("newest", "unread", "positions", "until"), BOUNDS)
def test_the_slowest_partition_with_unread_records_bounds_what_is_complete(
    newest: int | None, unread: set[int], positions: dict[int, int], until: int | None
) -> None:
    assert bound_completeness(newest, unread, positions) == until


def test_the_end_of_a_batch_is_in_the_file_that_spark_writes_before_it() -> None:
    metadata = '{"batchWatermarkMs":0,"batchTimestampMs":1480000000000,"conf":{"spark.sql.shuffle.partitions":"2"}}'
    assert parse_planned(["v1", metadata, '{"out":{"0":12,"1":0}}'], "out") == {0: 12, 1: 0}
    assert parse_planned(["v1", metadata, "-"], "out") == {}
