"""The rollup job on a real Kafka and real Delta tables."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
from collections import defaultdict
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from datasketches import hll_sketch, tgt_hll_type
from kafka_broker import find_free_port
from load_events import load_lines
from monitoring import METRIC, read_expressions
from sketch_registers import registers_of
from support import ROOT, SPARK_SUBMIT, plain_environment, read_messages, read_records, utc, wait_for_metric
from uniques.apps import rollup, rollup_topic
from uniques.errors import JobError, UsageError
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession
    from support import InProcess

pytestmark = pytest.mark.usefixtures("in_utc")

START = 1468244340  # 2016-07-11T13:39:00Z
PAGES = [ROOT / "docs" / "guides" / name for name in ("ranges.md", "history.md")]
SQL = [re.findall(r"```sql\n(.*?)```", page.read_text(), re.DOTALL)[0] for page in PAGES]
Minute = tuple[int, list[str]]


def make_sketch(users: list[str]) -> bytes:
    """The sketch of these users."""
    sketch = hll_sketch(12, tgt_hll_type.HLL_8)
    for user in users:
        sketch.update(user)
    return bytes(sketch.serialize_updatable())


def make_record(ts: int, users: list[str], seconds: int = 60, revision: int | None = 0) -> bytes:
    """A record as unique_users.py --sketch writes it, made without it; `seconds` of the window.

    Without a revision it is one of an earlier release.
    """
    value = {
        "window_start": utc(ts),
        "window_end": utc(ts + seconds),
        "unique_users": len(set(users)),
        "events": len(users),
        "counter": "hll_sketch",
        "relative_error": 0.0162,
        "final": True,
        **({} if revision is None else {"revision": revision}),
        "sketch": base64.b64encode(make_sketch(users)).decode(),
    }
    return json.dumps(value).encode()


def utc_of(time: datetime) -> str:
    """A TIMESTAMP that was collected, which is in this machine's zone."""
    return utc(int(time.timestamp()))


def count_periods(minutes: list[Minute]) -> dict[str, tuple[int, int]]:
    """Key of a rollup in UTC -> (unique users, events), by sets and Python's calendar."""
    users: dict[str, list[str]] = defaultdict(list)
    for ts, names in minutes:
        time = datetime.fromtimestamp(ts, timezone.utc)
        monday = ts // 86400 * 86400 - time.weekday() * 86400
        users[f"hour {time:%Y-%m-%dT%H}:00:00Z"] += names
        users[f"day {time:%Y-%m-%d}T00:00:00Z"] += names
        users[f"week {utc(monday)}"] += names
        users[f"month {time:%Y-%m}-01T00:00:00Z"] += names
        users[f"year {time:%Y}-01-01T00:00:00Z"] += names
    return {key: (len(set(names)), len(names)) for key, names in users.items()}


class Rollups:
    """The rollup job in the tests' own session, with topics and tables of its own."""

    def __init__(
        self, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], folder: Path, source: str = ""
    ) -> None:
        self._spark = spark
        self._broker = broker
        self.source, self.sink = source or new_topic("out", partitions=2), new_topic("rollups")
        self.tables = ["--minutes-table", str(folder / "minutes"), "--rollups-table", str(folder / "rollups")]
        self._checkpoint = ["--checkpoint-location", str(folder / "checkpoint"), "--trigger", "available-now"]

    def load(self, minutes: list[Minute], *others: bytes) -> None:
        records = [*(make_record(ts, users) for ts, users in minutes), *others]
        load_lines(records, self._broker.bootstrap_servers, self.source)

    def flags(self) -> list[str]:
        topics = ["--bootstrap-servers", self._broker.bootstrap_servers, "--input-topic", self.source]
        return [*topics, "--rollup-topic", self.sink, *self.tables, *self._checkpoint]

    def run(self, *flags: str, stop: StopSignal | None = None) -> None:
        settings = rollup.parse_settings([*self.flags(), *flags])
        rollup.run(self._spark, settings, stop or StopSignal())

    def ask(self, sql: str) -> list[Any]:
        """The rows of a query on the documentation's tables."""
        for name in ("minutes", "rollups"):
            sql = sql.replace(f"`tables/{name}`", f"`{self.tables[self.tables.index(f'--{name}-table') + 1]}`")
        return self._spark.sql(sql).collect()

    def read_topic(self) -> dict[str, dict[str, Any]]:
        """Key -> last record, as a compacted topic keeps it: without the keys that end with a tombstone."""
        last = {(message.key() or b"").decode(): message.value() for message in read_messages(self._broker, self.sink)}
        return {key: json.loads(value) for key, value in last.items() if value is not None}

    def produce(self, partitions: dict[int, list[bytes]], **settings: Any) -> None:
        """Writes records to these partitions of the source; in one transaction with a `transactional.id`."""
        producer = Producer({"bootstrap.servers": self._broker.bootstrap_servers, **settings})
        if settings:
            producer.init_transactions()
            producer.begin_transaction()
        for partition, records in partitions.items():
            for record in records:
                producer.produce(self.source, record, partition=partition)
        if settings:
            producer.commit_transaction()
        producer.flush()

    def read_keys(self) -> set[str]:
        """The keys that the rows of the table have in the topic."""
        frame = self._spark.read.format("delta").load(self.tables[3]).select("period", "period_start")
        return {f"{row[0]} {utc_of(row[1])}" for row in frame.collect()}

    def read_commits(self) -> list[list[dict[str, Any]]]:
        """The actions of each commit of the rollups table."""
        logs = sorted((Path(self.tables[3]) / "_delta_log").glob("*.json"))
        return [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]

    def read_table(self, name: str) -> list[tuple[Any, ...]]:
        """All of a table but when and where its rows were written; of sketches the registers."""
        path = self.tables[self.tables.index(f"--{name}-table") + 1]
        frame = self._spark.read.format("delta").load(path).drop("written_at", "offset")
        return sorted((*tuple(row)[:-1], registers_of(bytes(row["sketch"]))) for row in frame.collect())


@pytest.fixture
def rollups(spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path) -> Rollups:
    return Rollups(spark, broker, new_topic, tmp_path)


def assert_counts(found: dict[str, dict[str, Any]], minutes: list[Minute]) -> None:
    exact = count_periods(minutes)
    assert found.keys() == exact.keys()
    for key, (users, events) in exact.items():
        assert found[key]["events"] == events
        assert abs(found[key]["unique_users"] / users - 1) <= 3 * found[key]["relative_error"]


def make_minutes() -> list[Minute]:
    draw = random.Random(1)
    starts = [START + 60 * minute for minute in range(30)] + [START + 86400 * day for day in range(1, 25)]
    return [(ts, [f"u{draw.randrange(400)}" for _ in range(50)]) for ts in starts]


def test_tables_and_topic_follow_the_minutes_whatever_comes_twice(
    rollups: Rollups, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = make_minutes()
    rollups.load(minutes[:20])
    rollups.run()
    rollups.load(minutes[20:])
    rollups.run("--max-offsets-per-trigger", "20")
    assert_counts(rollups.read_topic(), minutes)
    before = rollups.read_table("minutes"), rollups.read_table("rollups"), rollups.read_topic()
    # The last minute is 2016-08-04T13:39: its hour has not ended, nor its day, week, month, year.
    running = {key for key, value in before[2].items() if not value["final"]}
    assert running == {
        *("hour 2016-08-04T13:00:00Z", "day 2016-08-04T00:00:00Z", "week 2016-08-01T00:00:00Z"),
        *("month 2016-08-01T00:00:00Z", "year 2016-01-01T00:00:00Z"),
    }

    # Delivered again, in another order, some of them with less in them: nothing changes.
    again = minutes[::-1] + [(ts, users[:10]) for ts, users in minutes]
    rollups.load(again)
    rollups.run()
    assert (rollups.read_table("minutes"), rollups.read_table("rollups"), rollups.read_topic()) == before

    # A repaired minute, with the late event in it, goes through to the year.
    ts, users = minutes[3]
    mended = [(ts, [*users, "late"]), *minutes[:3], *minutes[4:]]
    rollups.load(mended[:1])
    rollups.run()
    assert_counts(rollups.read_topic(), mended)

    # Any range, from the tables alone.
    capsys.readouterr()
    rollups.run("--between", "2016-07-11T13:39", "2016-07-12", "--and", "2016-07-11T14:00", "2016-07-11T14:09")
    answer = json.loads(capsys.readouterr().out)
    first = [users for ts, users in mended if ts < START + 86400]
    second = [users for ts, users in mended if START + 1260 <= ts < START + 1800]
    exact = [set().union(*sets) for sets in (first, second)]
    assert abs(answer["between"]["unique_users"] / len(exact[0]) - 1) <= 3 * answer["between"]["relative_error"]
    assert answer["between"]["events"] == sum(map(len, first))
    assert answer["between"]["rows"] == {"hour": 1, "minute": 21}
    assert abs(answer["in_both"] - len(exact[0] & exact[1])) <= 3 * answer["standard_error_at_most"]

    # The SQL of the documentation gives the same for this range, and finds the minutes that stand alone.
    row = rollups.ask(SQL[0])[0]
    assert (row.unique_users, row.events) == (answer["between"]["unique_users"], answer["between"]["events"])
    lonely = [ts for ts, _ in minutes if ts > START + 3600]
    assert sorted(utc_of(row.window_start) for row in rollups.ask(SQL[1].replace("< 3", "< 51"))) == [
        utc(ts) for ts in lonely
    ]

    rollups.run("--show", "year", "month")
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [["month", "2016-07"], ["month", "2016-08"], ["year", "2016"]]

    # The same minutes in another zone.
    with pytest.raises(UsageError, match=r"timezone UTC \(now Europe/Zurich\)"):
        rollups.run("--timezone", "Europe/Zurich")
    rollups.run("--rebuild", "--timezone", "Europe/Zurich")
    days = {row[3]: (row[4], row[6]) for row in rollups.read_table("rollups") if row[0] == "day"}
    local = count_periods([(ts + 7200, users) for ts, users in mended])
    expected = {key[4:14]: counts for key, counts in local.items() if key.startswith("day")}
    assert {day: events for day, (_, events) in days.items()} == {day: events for day, (_, events) in expected.items()}
    rollups.run("--timezone", "Europe/Zurich")


def test_a_repair_by_backfill_brings_late_events_into_every_period(
    rollups: Rollups, broker: KafkaBroker, new_topic: Callable[..., str], job: InProcess, tmp_path: Path
) -> None:
    events = new_topic("in")

    def load(*pairs: tuple[int, str]) -> None:
        lines = [json.dumps({"ts": START + after, "uid": uid}).encode() for after, uid in pairs]
        load_lines(lines, broker.bootstrap_servers, events)

    flags = ["--input-topic", events, "--output-topic", rollups.source, "--counter", "hll_sketch", "--sketch"]
    stream = [*flags, "--checkpoint-location", str(tmp_path / "stream"), "--trigger", "available-now"]
    load((0, "a"), (61, "b"), (3661, "c"))
    job.run(*stream)
    # Late: the stream runs no more. While it does, it corrects a minute itself for an hour.
    load((1, "late"), (3662, "too late"))
    rollups.run()
    day = "day 2016-07-11T00:00:00Z"
    assert (rollups.read_topic()[day]["unique_users"], rollups.read_topic()[day]["events"]) == (3, 3)
    # Only the first minute is mended.
    bounds = ["--start-time", utc(START), "--end-time", utc(START + 60)]
    job.run(*flags, "--backfill", *bounds, "--checkpoint-location", str(tmp_path / "repair"))
    rollups.run()
    found = rollups.read_topic()
    assert (found[day]["unique_users"], found[day]["events"]) == (4, 4)
    assert found["hour 2016-07-11T13:00:00Z"]["events"] == 3
    assert found["hour 2016-07-11T14:00:00Z"]["events"] == 1
    assert found["year 2016-01-01T00:00:00Z"]["unique_users"] == 4
    # The source of the first minute was wrong: a second repair counts less.
    (tmp_path / "right").mkdir()
    (tmp_path / "right" / "0.jsonl").write_text(json.dumps({"ts": START, "uid": "a"}) + "\n")
    right = ["--input", str(tmp_path / "right"), *flags[2:], "--backfill"]
    job.run(*right, "--checkpoint-location", str(tmp_path / "second-repair"))
    rollups.run()
    found = rollups.read_topic()
    assert (found[day]["unique_users"], found[day]["events"]) == (3, 3)
    assert found["hour 2016-07-11T13:00:00Z"]["events"] == 2


def read_events(rollups: Rollups) -> dict[str, tuple[int, int]]:
    """Name of an hour, day or year -> (unique users, events), from the table."""
    rows = rollups.read_table("rollups")
    return {row[3]: (row[4], row[6]) for row in rows if row[0] in {"hour", "day", "year"}}


def test_the_highest_revision_of_a_minute_is_the_valid_one_whatever_came_first(rollups: Rollups) -> None:
    rollups.load([(START, ["a", "b", "c"]), (START + 60, ["d"]), (START + 3600, ["e"])])
    rollups.run()
    assert read_events(rollups) == {
        "2016-07-11T13": (4, 4),
        "2016-07-11T14": (1, 1),
        "2016-07-11": (5, 5),
        "2016": (5, 5),
    }
    # Fewer events, and within the same batch a lower revision that is written later.
    rollups.load([], make_record(START, ["x"], revision=5), make_record(START, ["a", "b", "c", "f"], revision=4))
    rollups.run()
    recounted = {"2016-07-11T13": (2, 2), "2016-07-11T14": (1, 1), "2016-07-11": (3, 3), "2016": (3, 3)}
    assert read_events(rollups) == recounted
    assert [row[2:6] for row in rollups.read_table("minutes")] == [(1, 1, True, 5), (1, 1, True, 0), (1, 1, True, 0)]
    last = rollups.read_topic()["day 2016-07-11T00:00:00Z"]
    assert (last["unique_users"], last["events"]) == (3, 3)

    before = rollups.read_table("minutes"), rollups.read_table("rollups"), rollups.read_topic()
    # A lower revision, one of an earlier release, and the same record again; each in a batch of its own.
    for record in (
        make_record(START, ["a", "b", "c", "f"], revision=3),
        make_record(START, ["a", "b", "c", "f"], revision=None),
        make_record(START, ["x"], revision=5),
    ):
        rollups.load([], record)
        rollups.run()
        assert (rollups.read_table("minutes"), rollups.read_table("rollups"), rollups.read_topic()) == before

    # A backfill's revision is a time.
    rollups.load([], make_record(START, ["x", "y"], revision=1_800_000_000))
    rollups.run()
    assert read_events(rollups) == {
        "2016-07-11T13": (3, 3),
        "2016-07-11T14": (1, 1),
        "2016-07-11": (4, 4),
        "2016": (4, 4),
    }


def test_a_table_of_minutes_of_an_earlier_release_goes_on(rollups: Rollups, spark: SparkSession) -> None:
    table = f"delta.`{rollups.tables[1]}`"
    spark.sql(
        f"CREATE TABLE {table} (window_start TIMESTAMP, window_end TIMESTAMP, unique_users BIGINT, events BIGINT, "
        "final BOOLEAN, written_at TIMESTAMP, offset BIGINT, sketch BINARY) USING delta"
    )
    minutes = [(START, ["a", "b"]), (START + 60, ["b", "c"])]
    for ts, users in minutes:
        sketch = make_sketch(users).hex()
        spark.sql(
            f"INSERT INTO {table} SELECT timestamp_seconds({ts}), timestamp_seconds({ts + 60}), 2, 2, true, "
            f"current_timestamp(), {ts}, X'{sketch}'"
        )
    rollups.run("--rebuild")
    assert read_events(rollups)["2016-07-11T13"] == (3, 4)
    rollups.load([(START + 120, ["d"])])
    rollups.run()
    assert read_events(rollups)["2016-07-11T13"] == (4, 5)
    assert [row[2:6] for row in rollups.read_table("minutes")] == [
        (2, 2, True, None),
        (2, 2, True, None),
        (1, 1, True, 0),
    ]
    # No revision is 0: fewer events change nothing, as before, and more or a higher revision replace.
    rollups.load(
        [],
        make_record(START, ["a"], revision=None),
        make_record(START + 60, ["b", "c", "e"]),
    )
    rollups.run()
    assert read_events(rollups)["2016-07-11T13"] == (5, 6)
    rollups.load([], make_record(START, ["b"], revision=1))
    rollups.run()
    assert read_events(rollups)["2016-07-11T13"] == (4, 5)


KILLS = 20


@pytest.mark.timeout(1800)
def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(
    spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    killed = Rollups(spark, broker, new_topic, tmp_path / "killed")
    left_alone = Rollups(spark, broker, new_topic, tmp_path / "left_alone", source=killed.source)
    draw = random.Random(7)
    minutes = make_minutes()
    # With repeats and repairs in between, as a job that is killed itself writes them.
    parts = [(ts, users[:30]) for ts, users in minutes]
    fewer = [(ts, users[:20]) for ts, users in minutes[::5]]
    records = [make_record(*minute) for minute in parts + minutes + minutes[::3]]
    records += [make_record(*minute, revision=2) for minute in fewer]
    draw.shuffle(records)
    share = len(records) // KILLS + 1
    flags = [*killed.flags(), "--trigger", "1 second", "--max-offsets-per-trigger", "3"]
    for kill in range(KILLS):
        killed.load([], *records[kill * share : (kill + 1) * share])
        with submit_rollups(tmp_path, *flags) as process:
            # At the start of the first batch, or of the one after; and then somewhere within it.
            wait_for_line(process, draw.choice(["started query", " records="]))
            with suppress(subprocess.TimeoutExpired):
                process.wait(draw.uniform(0, 8))
                pytest.fail("the job ended by itself")
    killed.run("--max-offsets-per-trigger", "1000")
    left_alone.run()
    assert killed.read_table("minutes") == left_alone.read_table("minutes")
    assert killed.read_table("rollups") == left_alone.read_table("rollups")
    assert killed.read_topic() == left_alone.read_topic()
    assert_counts(killed.read_topic(), list({**dict(minutes), **dict(fewer)}.items()))


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if text in line:
            return
    pytest.fail(f"the job ended by itself with status {process.wait()}")


@contextmanager
def submit_rollups(folder: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """The rollup job as its users start it; killed at the end, with kill -9."""
    command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", str(ROOT / "jobs" / "rollup_users.py"), *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=folder, env=plain_environment(), start_new_session=True
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_summary(caplog: pytest.LogCaptureFixture) -> dict[str, int]:
    """The totals of the last run."""
    texts = [record.getMessage() for record in caplog.records]
    summary: dict[str, int] = json.loads([text for text in texts if text.startswith("summary: ")][-1][9:])
    return summary


@pytest.fixture
def _logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "uniques")


@pytest.mark.usefixtures("_logged")
def test_windows_that_do_not_fill_an_hour_of_the_zone_are_left_out_with_a_reason(
    rollups: Rollups, caplog: pytest.LogCaptureFixture
) -> None:
    hour = START // 3600 * 3600
    whole = [make_record(hour + 1200 * index, [f"u{index}"], 1200) for index in range(6)]
    rollups.load([(hour + 60, ["a"])], *whole)
    rollups.run("--timezone", "Asia/Kolkata")
    assert {(row[0], row[3], row[6]) for row in rollups.read_table("rollups") if row[0] in {"hour", "day"}} == {
        ("hour", "2016-07-11T18", 1),
        ("day", "2016-07-11", 1),
    }
    assert read_summary(caplog) == {"read": 7, "windows": 1, "rollups": 5, "bad_window": 6}
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [text for text in warnings if "windows of 20 minutes" in text and "--timezone Asia/Kolkata" in text]
    assert len(warnings) == 1


@pytest.mark.usefixtures("_logged")
def test_minutes_past_their_retention_go_and_what_they_made_stays(
    rollups: Rollups, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    now = int(datetime.now(timezone.utc).timestamp()) // 3600 * 3600
    old, new = now - 10 * 86400, now - 3600
    rollups.load([(old, ["a", "b"]), (new, ["a", "c"])])
    flags = ("--minutes-retention", "2 days", "--maintenance-interval", "1 second")
    rollups.run(*flags)
    assert [row[3] for row in rollups.read_table("minutes")] == [2]
    before = rollups.read_table("rollups")
    # A late window can't be united with the rest of its hour any more.
    rollups.load([(old + 60, ["d"]), (old + 60, ["d"])])
    rollups.run(*flags)
    assert rollups.read_table("rollups") == before
    # Each record counts once.
    assert read_summary(caplog) == {"read": 2, "windows": 0, "rollups": 0, "before_kept_minutes": 2}
    capsys.readouterr()
    with pytest.raises(UsageError, match="are no longer kept: give a full hour"):
        rollups.run("--between", utc(old + 60), utc(now))
    rollups.run("--between", utc(old), utc(now))
    assert json.loads(capsys.readouterr().out)["unique_users"] == 3
    with pytest.raises(UsageError, match="--rebuild needs all minutes"):
        rollups.run("--rebuild")


def test_the_metrics_are_the_totals_of_the_batches(rollups: Rollups) -> None:
    minutes = make_minutes()
    rollups.load(minutes, b"", b"{}")
    port, stop = find_free_port(), StopSignal()
    flags = ["--trigger", "1 second", "--metrics-port", f"127.0.0.1:{port}"]
    job = Thread(target=rollups.run, args=flags, kwargs={"stop": stop})
    job.start()
    try:
        samples = wait_for_metric(port, "rollup_users_records_read_total", len(minutes) + 2)
    finally:
        stop.handle(None)
        job.join()
    assert samples["rollup_users_windows_merged_total"][""] == len(minutes)
    assert samples["rollup_users_rows_renewed_total"][""] == len(count_periods(minutes))
    reasons = samples["rollup_users_records_rejected_total"]
    assert {reason: number for reason, number in reasons.items() if number} == {"not_a_record": 2}
    assert samples["rollup_users_lag_records"][""] == 0
    assert samples["rollup_users_batch_duration_seconds_count"][""] == 1
    asked = {name for expression in read_expressions() for name in METRIC.findall(expression)}
    ours = {name for name in asked if name.startswith("rollup_users_")}
    assert ours
    assert ours <= set(samples)


def test_no_period_is_final_while_a_part_of_it_is_unread_in_another_partition(
    rollups: Rollups, broker: KafkaBroker
) -> None:
    hour = START // 3600 * 3600
    # Partition 0 is a day ahead, with few windows; partition 1 holds six windows of each of six hours, then rubbish.
    ahead = [(hour + 3600 * (24 + index), [f"a{index}"]) for index in range(6)]
    behind = [(hour + 600 * index, [f"b{index}"]) for index in range(36)]
    rollups.produce({0: [make_record(*minute) for minute in ahead]})
    rollups.produce({1: [*(make_record(*minute) for minute in behind), b"{}", b"{}"]})
    stop = StopSignal()
    stop.handle(None)  # at once: what the first batch knew is forgotten
    rollups.run("--max-offsets-per-trigger", "8", stop=stop)
    rollups.run("--max-offsets-per-trigger", "8")
    exact = count_periods(ahead + behind)
    seen: dict[str, bool] = {}
    records = read_records(broker, rollups.sink)
    for key, value in records:
        assert not value["final"] or value["events"] == exact[key][1], "a final record was corrected"
        assert value["final"] or not seen.get(key), "a final record is not final any more"
        seen[key] = value["final"]
    # Hours are final long before all is read.
    assert any(value["final"] for _, value in records[: len(records) // 2])
    newest = utc(hour + 3600 * 29 + 60)
    assert {key for key, final in seen.items() if final} == {
        key for key, value in rollups.read_topic().items() if value["period_end"] <= newest
    }


def test_marks_of_transactions_are_not_unread_records(rollups: Rollups) -> None:
    records = {partition: [make_record(START + 3600 * partition, ["a"])] for partition in (0, 1)}
    rollups.produce(records, **{"transactional.id": rollups.source})
    rollups.run()
    assert {key for key, value in rollups.read_topic().items() if value["final"]} == {"hour 2016-07-11T13:00:00Z"}


def test_a_rebuild_is_one_commit_and_leaves_no_old_key_in_the_topic(
    rollups: Rollups, spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollups.load(make_minutes()[:40])
    rollups.run()
    before = rollups.read_commits()
    final_hours = {key for key, value in rollups.read_topic().items() if key.startswith("hour") and value["final"]}
    rollups.run("--rebuild", "--timezone", "Europe/Zurich")
    assert rollups.read_topic().keys() == rollups.read_keys()
    assert {value["timezone"] for value in rollups.read_topic().values()} == {"Europe/Zurich"}
    # The hours begin at the same time in both zones, and what was final still is.
    assert final_hours == {
        key for key, value in rollups.read_topic().items() if key.startswith("hour") and value["final"]
    }
    changes = [commit for commit in rollups.read_commits()[len(before) :] if any("add" in action for action in commit)]
    assert len(changes) == 1
    added = [json.loads(action["add"]["stats"])["numRecords"] for action in changes[0] if "add" in action]
    assert sum(added) == len(rollups.read_keys())
    [metadata] = [action["metaData"]["configuration"] for action in changes[0] if "metaData" in action]
    assert metadata["unique_users.timezone"] == "Europe/Zurich"
    assert metadata["delta.enableDeletionVectors"] == "true"

    # Cut short between the commit and the topic, the next start publishes; so does the next rebuild.
    def cut(*_: Any) -> None:
        raise JobError("cut")

    for zone, flag in (("Asia/Kolkata", ""), ("UTC", "--rebuild")):
        monkeypatch.setattr(rollup_topic, "write_topic_once", cut)
        with pytest.raises(JobError, match="cut"):
            rollups.run("--rebuild", "--timezone", zone)
        monkeypatch.undo()
        rollups.run("--timezone", zone, *filter(None, [flag]))
        assert rollups.read_topic().keys() == rollups.read_keys()
        assert {value["timezone"] for value in rollups.read_topic().values()} == {zone}

    # A table of somebody else stays as it is.
    other = str(tmp_path / "other")
    spark.range(3).write.format("delta").save(other)
    with pytest.raises(UsageError, match="was not made by this job"):
        rollups.run("--rebuild", "--rollups-table", other)
    assert spark.read.format("delta").load(other).count() == 3


def test_a_rebuild_refuses_a_zone_whose_hours_the_windows_do_not_fill(rollups: Rollups) -> None:
    hour = START // 3600 * 3600
    rollups.load([], *(make_record(hour + 1200 * index, [f"u{index}"], 1200) for index in range(3)))
    rollups.run()
    before = rollups.read_table("rollups")
    with pytest.raises(UsageError, match=r"--rebuild: windows of 20 minutes, .* --timezone Asia/Kolkata"):
        rollups.run("--rebuild", "--timezone", "Asia/Kolkata")
    assert rollups.read_table("rollups") == before


@pytest.mark.timeout(1800)
def test_a_rebuild_that_is_killed_leaves_the_old_rollups_or_the_new_ones(
    rollups: Rollups, spark: SparkSession, tmp_path: Path
) -> None:
    rollups.load(make_minutes()[:40])
    rollups.run()
    draw, zones = random.Random(3), ["UTC", "Asia/Kolkata"]
    expected = {"UTC": rollups.read_table("rollups")}
    rollups.run("--rebuild", "--timezone", zones[1])
    expected[zones[1]] = rollups.read_table("rollups")
    zone = zones[1]
    lines = ["making", "replaced"]
    for line, wait in [
        (lines[0], 0.0),
        (lines[0], draw.uniform(0, 6)),
        (lines[1], 0.0),
        (lines[1], draw.uniform(0, 1)),
    ]:
        wanted = zones[1 - zones.index(zone)]
        with submit_rollups(tmp_path, *rollups.flags(), "--rebuild", "--timezone", wanted) as process:
            wait_for_line(process, line)
            with suppress(subprocess.TimeoutExpired):
                process.wait(wait)
        detail = spark.sql(f"DESCRIBE DETAIL delta.`{rollups.tables[3]}`").collect()[0]
        zone = detail.properties["unique_users.timezone"]
        assert line == lines[0] or zone == wanted
        assert rollups.read_table("rollups") == expected[zone]
    rollups.run("--rebuild", "--timezone", zone)
    assert rollups.read_topic().keys() == rollups.read_keys()
    assert {value["timezone"] for value in rollups.read_topic().values()} == {zone}


def test_tables_are_found_by_name_and_by_relative_path(rollups: Rollups, spark: SparkSession, tmp_path: Path) -> None:
    rollups.load([(START, ["a"])])
    # A name that SQL takes for a number unless it is quoted.
    name, folder = f"default.1e{tmp_path.stat().st_ino}", tmp_path / "a b"
    rollups.run("--minutes-table", name, "--rollups-table", os.path.relpath(folder))
    try:
        assert spark.table(name.replace("1e", "`1e") + "`").count() == 1
        assert spark.read.format("delta").load(str(folder)).count() == 5
        # The same table under another spelling.
        quoted = "`default`.`1e" + name.partition("1e")[2] + "`"
        rollups.run("--minutes-table", quoted, "--rollups-table", os.path.relpath(folder))
    finally:
        spark.sql("DROP TABLE " + name.replace("1e", "`1e") + "`")
    with pytest.raises(UsageError, match=r"--rollups-table `prod-eu`\.analytics\.rollups: .*prod-eu") as wrong:
        rollups.run("--rollups-table", "prod-eu.analytics.rollups", "--show")
    assert "is not a Delta table" not in str(wrong.value)


def test_what_is_wrong_is_said_in_one_line(rollups: Rollups) -> None:
    with pytest.raises(UsageError, match="--timezone XYZ is not known"):
        rollups.run("--timezone", "XYZ")
    with pytest.raises(UsageError, match="--rollups-table"):
        rollups.run("--between", "2016-07-11T13:39", "2016-07-12")
