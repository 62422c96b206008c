"""Unique users of hours, days, weeks, months and years: sketches of minutes from a Kafka topic, united in Delta tables.

    spark-submit jobs/rollup_users.py --bootstrap-servers localhost:9092 --input-topic out --rollup-topic rollups
    spark-submit jobs/rollup_users.py --between 2016-07-11T13:39 2016-07-12T00:00

In:  the records of unique_users.py --sketch
Out: key day 2016-07-11T00:00:00Z
     {"period":"day","name":"2016-07-11","period_start":"2016-07-11T00:00:00Z","period_end":"2016-07-12T00:00:00Z",
      "unique_users":81216,"events":1024770,"relative_error":0.0162,"final":true,"timezone":"UTC"}
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from uniques.backfill import describe_time
from uniques.checkpoint import check_parameters, query_location
from uniques.kafka import address_records, check_connector, check_topic, read_topic, write_topic_once
from uniques.lifecycle import UsageError, explained_failures, run_job, run_until_stopped
from uniques.options import (
    OneLineParser,
    add_kafka_options,
    add_metrics_option,
    cluster_of,
    duration_or_off,
    location,
    minute,
    needed_packages,
    to_seconds,
    topic,
    trigger,
    whole_number,
)
from uniques.progress import LagListener
from uniques.rollups import (
    BEFORE_KEPT_MINUTES,
    HOUR_SECONDS,
    MINUTES_SCHEMA,
    PERIODS,
    ROLLUPS_SCHEMA,
    WEEKDAYS,
    Calendar,
    make_rollup_records,
    parse_minutes,
    renew_rollups,
    select_minutes,
    select_range,
    unite_all,
)
from uniques.sketches import sketch_error_of
from uniques.tables import Table, is_maintenance_due, maintain, merge_rows, read_properties, set_property

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from delta.tables import DeltaTable
    from pyspark.sql import Column, DataFrame, SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener
    from uniques.kafka import KafkaCluster
    from uniques.lifecycle import StopSignal

QUERY_NAME = "rollup_users"
STATE_PARTITIONS = 2  # there is no state; partitions of small shuffles

TIMEZONE, WEEK_START = "unique_users.timezone", "unique_users.week_start"
KEPT_FROM = "unique_users.kept_from"
# In so many separate stretches of time files are looked up one by one; beyond, from the first to the last.
MAX_STRETCHES = 50
# How far the parts of one period can be apart, generously.
LARGEST_PARENT_DAYS = {"hour": 2, "day": 32, "month": 367}

DELTA_SETTINGS = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Delta replays a table's log in 50 tasks unless told otherwise: seconds, for logs as small as these.
    "spark.databricks.delta.snapshotPartitions": "2",
}

log = logging.getLogger("uniques")


def make_parser() -> OneLineParser:
    """The job's flags."""
    parser = OneLineParser(
        prog=QUERY_NAME,
        description="Unites the sketches of unique_users.py to hours, days, weeks, months, years, and any range.",
        allow_abbrev=False,
    )
    add_kafka_options(parser)
    topics = parser.add_argument_group("topics")
    topics.add_argument(
        "--input-topic",
        type=topic,
        default="out",
        metavar="TOPIC",
        help="results of unique_users.py --sketch (default: %(default)s)",
    )
    topics.add_argument(
        "--rollup-topic",
        type=topic,
        default="rollups",
        metavar="TOPIC",
        help="topic that gets every changed row, or off: only the tables (default: %(default)s)",
    )
    topics.add_argument(
        "--max-offsets-per-trigger",
        type=whole_number(1, 10**9),
        default=20_000,
        metavar="N",
        help="most records in one batch: bounds its memory (default: %(default)s)",
    )
    tables = parser.add_argument_group("tables (Delta): a path or URL, or the name of a table in a catalog")
    tables.add_argument(
        "--minutes-table",
        type=location,
        default="tables/minutes",
        metavar="TABLE",
        help="a row a window (default: %(default)s)",
    )
    tables.add_argument(
        "--rollups-table",
        type=location,
        default="tables/rollups",
        metavar="TABLE",
        help="a row an hour, day, week, month, year (default: %(default)s)",
    )
    tables.add_argument(
        "--minutes-retention",
        type=duration_or_off(HOUR_SECONDS),
        default="off",
        metavar="DURATION",
        help="how long minutes are kept, or off: for ever; larger periods stay (default: %(default)s)",
    )
    tables.add_argument(
        "--maintenance-interval",
        type=duration_or_off(1),
        default="1 day",
        metavar="DURATION",
        help="how often small files are joined and old ones removed, or off (default: %(default)s)",
    )
    calendar = parser.add_argument_group("calendar")
    calendar.add_argument(
        "--timezone",
        default="UTC",
        metavar="ZONE",
        help="zone of hours, days, …, such as Europe/Zurich (default: %(default)s)",
    )
    calendar.add_argument(
        "--week-start", choices=WEEKDAYS, default=WEEKDAYS[0], help="first day of a week (default: %(default)s)"
    )
    asking = parser.add_argument_group("ask the tables, or mend them, and end")
    asking.add_argument(
        "--between",
        nargs=2,
        type=minute,
        metavar=("START", "END"),
        help="print the unique users from START to before END, full minutes, in the tables' zone or with an offset",
    )
    asking.add_argument(
        "--and",
        nargs=2,
        type=minute,
        dest="and_between",
        metavar=("START", "END"),
        help="with --between: print also how many users were there in both ranges",
    )
    asking.add_argument(
        "--show",
        nargs="*",
        choices=("minute", *PERIODS),
        metavar="PERIOD",
        help="print the rows of minute, hour, day, week, month, year as a table (default: all but minute)",
    )
    asking.add_argument(
        "--rebuild",
        action="store_true",
        help="make the rollups table anew from the minutes, for another --timezone too",
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--checkpoint-location",
        type=location,
        default="checkpoint/rollup_users",
        metavar="DIR",
        help="folder or URL of the offsets read; losing it costs time only (default: %(default)s)",
    )
    running.add_argument(
        "--trigger",
        type=trigger,
        default="10 seconds",
        metavar="DURATION",
        help="start a batch this often, or available-now: work off what is there and end (default: %(default)s)",
    )
    add_metrics_option(running)
    return parser


@dataclass(frozen=True)
class Tables:
    """Where the minutes and the rollups are, and the calendar of the rollups."""

    minutes: Table
    rollups: Table
    calendar: Calendar


def tables_of(args: argparse.Namespace) -> Tables:
    """The tables that the flags name."""
    return Tables(
        Table("--minutes-table", args.minutes_table),
        Table("--rollups-table", args.rollups_table),
        Calendar(args.timezone, args.week_start),
    )


def run(spark: SparkSession, args: argparse.Namespace, cluster: KafkaCluster, stop: StopSignal) -> None:
    """Answers a question, mends the tables, or keeps them up to date."""
    if args.metrics_port:
        load_metrics()  # what it needs is missed before anything starts
    tables = tables_of(args)
    if args.between or args.show is not None:
        tables = read_calendar(spark, tables)
    with explained_failures():
        if args.between:
            print(json.dumps(answer_range(spark, tables, args.between, args.and_between)), flush=True)
        elif args.show is not None:
            show_tables(spark, tables, args.show or list(PERIODS))
        elif args.rebuild:
            check_zone(spark, args.timezone)
            rebuild(spark, tables, cluster, args.rollup_topic)
        else:
            run_stream(spark, args, tables, cluster, stop)


def check_zone(spark: SparkSession, zone: str) -> None:
    """Raises UsageError, one line, for a zone that Spark does not know."""
    try:
        spark.range(1).select(F.from_utc_timestamp(F.current_timestamp(), zone)).collect()
    except PySparkException as error:
        raise UsageError(f"--timezone {zone} is not known: give one such as UTC or Europe/Zurich") from error


def read_calendar(spark: SparkSession, tables: Tables) -> Tables:
    """The tables with the calendar that the rollups were made with."""
    properties = read_properties(tables.rollups.open(spark))
    if TIMEZONE not in properties:
        raise UsageError(f"{tables.rollups.flag} {tables.rollups.place} was not made by this job")
    return Tables(tables.minutes, tables.rollups, Calendar(properties[TIMEZONE], properties[WEEK_START]))


def create_tables(spark: SparkSession, tables: Tables) -> None:
    """Makes the tables where they are not there yet; raises UsageError when the calendar is another."""
    tables.minutes.create(spark, MINUTES_SCHEMA, {})
    calendar = {TIMEZONE: tables.calendar.timezone, WEEK_START: tables.calendar.week_start}
    tables.rollups.create(spark, ROLLUPS_SCHEMA, calendar, partition=["period"])


def run_stream(
    spark: SparkSession, args: argparse.Namespace, tables: Tables, cluster: KafkaCluster, stop: StopSignal
) -> None:
    """Keeps the tables up to date with the topic, as a stream or until all that is there is read."""
    check_zone(spark, args.timezone)
    check_connector(spark)
    topics = [args.input_topic] if args.rollup_topic == "off" else [args.input_topic, args.rollup_topic]
    for name in topics:
        check_topic(spark, cluster, name)
    check_parameters(
        spark,
        args.checkpoint_location,
        {
            "--input-topic": args.input_topic,
            # In other tables the records that are read already would be missing.
            "--minutes-table": args.minutes_table,
            "--rollups-table": args.rollups_table,
        },
        {},
        on_new=lambda: None,
    )
    create_tables(spark, tables)
    keeper = Keeper(args, tables, cluster)
    records = read_topic(spark, cluster, args.input_topic, "earliest", args.max_offsets_per_trigger)
    writer = records.writeStream.foreachBatch(keeper.work_batch).queryName(QUERY_NAME)
    writer = writer.option("checkpointLocation", query_location(args.checkpoint_location))
    now = args.trigger == "available-now"
    query = writer.trigger(availableNow=True) if now else writer.trigger(processingTime=args.trigger)
    with ExitStack() as stack:
        listeners: list[StreamingQueryListener] = [LagListener(QUERY_NAME)]
        if args.metrics_port:
            listeners.append(stack.enter_context(load_metrics()(args.metrics_port, keeper.totals)))
        for each in listeners:
            spark.streams.addListener(each)
            stack.callback(spark.streams.removeListener, each)
        started = query.start()
        log.info("started query %s, run %s", started.name, started.runId)
        run_until_stopped(started, stop)
    log.info("summary: %s", json.dumps(keeper.totals))


def load_metrics() -> Callable[[tuple[str, int], Mapping[str, int]], AbstractContextManager[StreamingQueryListener]]:
    """`metrics.serve_rollup_metrics`; raises UsageError, one line, when what it needs is missing."""
    with needed_packages("--metrics-port"):
        from uniques.metrics import serve_rollup_metrics
    return serve_rollup_metrics


class Keeper:
    """Keeps both tables and the topic up to date, batch by batch."""

    def __init__(self, args: argparse.Namespace, tables: Tables, cluster: KafkaCluster) -> None:
        """`totals` are the records read in this run, by what became of them, and the rows written."""
        self._tables = tables
        self._cluster = cluster
        self._rollup_topic = args.rollup_topic
        self._retention = None if args.minutes_retention == "off" else to_seconds(args.minutes_retention)
        off = args.maintenance_interval == "off"
        self._interval = None if off else timedelta(seconds=to_seconds(args.maintenance_interval))
        self._looked_at = float("-inf")
        self.totals = Counter({"read": 0, "windows": 0, "rollups": 0})

    def work_batch(self, records: DataFrame, batch: int) -> None:
        """Merges the windows of a batch, and renews the periods that hold them.

        Each step can be done again: windows are replaced by their best record, periods are united anew from their
        parts, and rows go to the topic before the table says that they are there.
        """
        began = time.monotonic()
        spark = records.sparkSession
        parsed = parse_minutes(records).persist()
        try:
            by_reason = {
                row["reject_reason"]: row["count"] for row in parsed.groupBy("reject_reason").count().collect()
            }
            windows = self._select_kept(spark, parsed, by_reason).persist()
            found = windows.count()
            written = self._merge_windows(spark, windows) if found else 0
            windows.unpersist()
        finally:
            parsed.unpersist()
        self._maintain(spark)
        read = sum(by_reason.values())
        rejected = {reason: number for reason, number in by_reason.items() if reason is not None}
        self.totals.update({"read": read, "windows": found, "rollups": written, **rejected})
        seconds = time.monotonic() - began
        text = " ".join(f"{reason}={number}" for reason, number in rejected.items())
        log.info(
            "batch=%s records=%s windows=%s rollups=%s seconds=%.1f %s", batch, read, found, written, seconds, text
        )

    def _select_kept(self, spark: SparkSession, parsed: DataFrame, by_reason: dict[str | None, int]) -> DataFrame:
        """The windows of a batch that are not older than the minutes that are kept; the others are noted."""
        windows = select_minutes(parsed)
        kept_from = read_kept_from(self._tables.minutes.open(spark))
        if kept_from is None:
            return windows
        kept = F.col("window_start") >= F.timestamp_seconds(F.lit(kept_from))
        gone = windows.where(~kept).count()
        if gone:
            # Their hour could not be united any more: the rest of it is gone.
            by_reason[BEFORE_KEPT_MINUTES] = gone
            log.warning("%s windows are older than --minutes-retention keeps them, and are left out", gone)
        return windows.where(kept)

    def _merge_windows(self, spark: SparkSession, windows: DataFrame) -> int:
        """Brings the windows into both tables and the topic; returns how many rollup rows that touched."""
        calendar = self._tables.calendar
        minutes, rollups = self._tables.minutes.open(spark), self._tables.rollups.open(spark)
        hours = collect_hours(windows, calendar)
        merge_rows(
            minutes,
            windows,
            ["window_start"],
            F.expr("struct(new.events, new.written_at, new.offset) > struct(old.events, old.written_at, old.offset)"),
            select_stretches(F.col("old.window_start"), hours),
        )
        near = minutes.toDF().where(select_stretches(F.col("window_start"), hours))
        old = rollups.toDF()
        parts = old.where(select_parts(hours)).persist()
        renewed = renew_rollups(near, parts, windows, calendar)
        parts.unpersist()
        # Periods that end now, without a change of their own.
        ended = old.where(~F.col("final")).join(renewed, ["period", "period_start"], "left_anti")
        over = period_is_over(minutes.toDF())
        rows = renewed.unionByName(ended.where(over)).withColumn("final", over).persist()
        try:
            starts = F.unix_seconds("period_start")
            number, first, last = rows.agg(F.count(F.lit(1)), F.min(starts), F.max(starts)).collect()[0]
            self._publish(rows)
            changed = F.expr(
                "NOT (new.sketch <=> old.sketch AND new.final <=> old.final AND new.events <=> old.events)"
            )
            old_start = F.col("old.period_start")
            within = old_start.between(F.timestamp_seconds(F.lit(first)), F.timestamp_seconds(F.lit(last)))
            merge_rows(rollups, rows, ["period", "period_start"], changed, within)
        finally:
            rows.unpersist()
        return int(number)

    def _publish(self, rows: DataFrame) -> None:
        if self._rollup_topic != "off":
            publish(rows, self._tables.calendar, self._cluster, self._rollup_topic)

    def _maintain(self, spark: SparkSession) -> None:
        """Once in a maintenance interval: drops minutes past their retention, joins files, removes old ones."""
        if self._interval is None or time.monotonic() < self._looked_at + min(
            HOUR_SECONDS, self._interval.total_seconds()
        ):
            return
        self._looked_at = time.monotonic()
        minutes = self._tables.minutes
        if not is_maintenance_due(minutes.open(spark), self._interval):
            return
        if self._retention is not None:
            drop_minutes(spark, minutes, self._tables.calendar, self._retention)
        for table in (minutes, self._tables.rollups):
            maintain(spark, table)
        log.info("maintenance of both tables took %.1f s", time.monotonic() - self._looked_at)


def publish(rows: DataFrame, calendar: Calendar, cluster: KafkaCluster, topic_name: str) -> None:
    """Writes rows of rollups to the topic, in order of time, smaller periods first."""
    records = make_rollup_records(rows.orderBy("period_end", "period_start"), calendar)
    write_topic_once(address_records(records.coalesce(1), topic_name), cluster)


def collect_hours(windows: DataFrame, calendar: Calendar) -> list[tuple[int, int]]:
    """The hours that hold windows, as stretches `[start, end)` in unix seconds; gaps of up to a day are closed."""
    hour = calendar.bounds(F.col("window_start"), "hour")
    bounds = windows.select(F.unix_seconds(hour.start).alias("start"), F.unix_seconds(hour.end).alias("end"))
    stretches: list[tuple[int, int]] = []
    for start, end in bounds.distinct().orderBy("start").collect():
        if stretches and start - stretches[-1][1] <= 24 * HOUR_SECONDS:
            stretches[-1] = (stretches[-1][0], max(end, stretches[-1][1]))
        else:
            stretches.append((start, end))
    return stretches if len(stretches) <= MAX_STRETCHES else [(stretches[0][0], stretches[-1][1])]


def select_stretches(time_: Column, stretches: list[tuple[int, int]]) -> Column:
    """Whether a TIMESTAMP lies in one of the stretches."""
    inside = F.lit(False)
    for start, end in stretches:
        inside |= (time_ >= F.timestamp_seconds(F.lit(start))) & (time_ < F.timestamp_seconds(F.lit(end)))
    return inside


def select_parts(stretches: list[tuple[int, int]]) -> Column:
    """Whether a row of rollups may be a part of a period that holds one of the stretches."""
    wanted = F.lit(False)
    for period, reach_days in LARGEST_PARENT_DAYS.items():
        reach = reach_days * 24 * HOUR_SECONDS
        widened = [(start - reach, end + reach) for start, end in stretches]
        wanted |= (F.col("period") == period) & select_stretches(F.col("period_start"), widened)
    return wanted


def period_is_over(minutes: DataFrame) -> Column:
    """Whether a row of rollups is final: a final window ended with it or later, and so did the clock.

    The clock, because one window far in the future, of a flipped timestamp, must not end all periods before it.
    """
    last = minutes.where("final").agg(F.unix_seconds(F.max("window_end"))).collect()[0][0]
    if last is None:
        return F.lit(False)
    return F.col("period_end") <= F.least(F.timestamp_seconds(F.lit(last)), F.current_timestamp())


def rebuild(spark: SparkSession, tables: Tables, cluster: KafkaCluster, rollup_topic: str) -> None:
    """Makes the rollups table anew from the minutes, in the calendar of `tables`, and publishes all its rows."""
    opened = tables.minutes.open(spark)
    if read_kept_from(opened) is not None:
        raise UsageError("--rebuild needs all minutes, and some were removed by --minutes-retention")
    if rollup_topic != "off":
        check_connector(spark)
        check_topic(spark, cluster, rollup_topic)
    minutes = opened.toDF()
    rows = unite_all(minutes, tables.calendar).withColumn("final", period_is_over(minutes)).persist()
    table = tables.rollups.create(spark, ROLLUPS_SCHEMA, {}, partition=["period"])
    for name, value in ((TIMEZONE, tables.calendar.timezone), (WEEK_START, tables.calendar.week_start)):
        set_property(spark, tables.rollups, name, value)
    table.delete()
    merge_rows(table, rows, ["period", "period_start"], F.lit(True), F.lit(True))
    if rollup_topic != "off":
        publish(rows, tables.calendar, cluster, rollup_topic)
    log.info("rebuilt %s rows of %s", rows.count(), tables.rollups.place)
    rows.unpersist()


def read_kept_from(minutes: DeltaTable) -> int | None:
    """The time in unix seconds before which minutes were removed; None when all are there."""
    text = read_properties(minutes).get(KEPT_FROM)
    return int(text) if text else None


def drop_minutes(spark: SparkSession, table: Table, calendar: Calendar, retention_seconds: int) -> None:
    """Removes the minutes of hours that ended longer ago than the retention, and notes from when on they are there."""
    limit = calendar.bounds(F.current_timestamp() - F.make_dt_interval(secs=F.lit(retention_seconds)), "hour").start
    seconds = spark.range(1).select(F.unix_seconds(limit)).collect()[0][0]
    # First the note: what comes in for a window before it would find half an hour.
    set_property(spark, table, KEPT_FROM, str(seconds))
    table.open(spark).delete(F.col("window_start") < F.timestamp_seconds(F.lit(seconds)))


def to_instant(calendar: Calendar, time_: datetime) -> Column:
    """A time from the command line as TIMESTAMP, in the calendar's zone where it has no offset of its own."""
    if time_.tzinfo is not None:
        return F.timestamp_seconds(F.lit(int(time_.timestamp())))
    return F.to_utc_timestamp(F.lit(time_.strftime("%Y-%m-%d %H:%M:%S")).cast("timestamp"), calendar.timezone)


def answer_range(
    spark: SparkSession,
    tables: Tables,
    between: Sequence[datetime],
    and_between: Sequence[datetime] | None,
) -> dict[str, Any]:
    """The unique users of a range, and of both of two, as a JSON object.

    Raises UsageError when the range is empty, or needs minutes that are no longer kept.
    """
    began = time.monotonic()
    first = unite_range(spark, tables, between, "--between")
    answer = describe_range(first)
    if and_between:
        second = unite_range(spark, tables, and_between, "--and")
        both = first.unionByName(second).agg(F.hll_union_agg("sketch", True).alias("sketch"))
        other = describe_range(second)
        union = both.select(F.hll_sketch_estimate("sketch"), sketch_error_of(F.col("sketch"))).collect()[0]
        users = [answer["unique_users"], other["unique_users"], union[0] or 0]
        # |A and B| = |A| + |B| - |A or B|; its standard error is at most the sum of theirs, however they depend.
        answer = {
            "between": answer,
            "and": other,
            "in_both": max(0, users[0] + users[1] - users[2]),
            "standard_error_at_most": round(sum(users) * (union[1] or 0)),
        }
    return {**answer, "seconds": round(time.monotonic() - began, 1)}


def unite_range(spark: SparkSession, tables: Tables, between: Sequence[datetime], flag: str) -> DataFrame:
    """One row: `first`, `last` STRING, `sketch` BINARY, `events` BIGINT, and the number of rows of each period."""
    start, end = (to_instant(tables.calendar, time_) for time_ in between)
    opened = tables.minutes.open(spark)
    seconds = spark.range(1).select(F.unix_seconds(start), F.unix_seconds(end)).collect()[0]
    if seconds[0] >= seconds[1]:
        raise UsageError(f"{flag}: {describe_time(seconds[1])} is not after {describe_time(seconds[0])}")
    kept_from = read_kept_from(opened)
    if kept_from is not None:
        for edge, seconds_ in zip((start, end), seconds, strict=True):
            hour = spark.range(1).select(F.unix_seconds(tables.calendar.bounds(edge, "hour").start)).collect()[0][0]
            if seconds_ < kept_from and seconds_ != hour:
                raise UsageError(
                    f"{flag}: minutes before {describe_time(kept_from)} are no longer kept: give a full hour"
                )
    parts = select_range(opened.toDF(), tables.rollups.open(spark).toDF(), tables.calendar, start, end)
    numbers = [
        F.count_if(F.col("period") == period).alias(period) for period in ("year", "month", "day", "hour", "minute")
    ]
    return parts.agg(
        F.hll_union_agg("sketch", True).alias("sketch"),
        F.coalesce(F.sum("events"), F.lit(0)).alias("events"),
        *numbers,
    ).withColumns({"first": F.lit(describe_time(seconds[0])), "last": F.lit(describe_time(seconds[1]))})


def describe_range(united: DataFrame) -> dict[str, Any]:
    """A row of `unite_range` as a JSON object, with two standard errors to both sides."""
    row = united.select(
        "*", F.hll_sketch_estimate("sketch").alias("users"), sketch_error_of(F.col("sketch")).alias("error")
    ).collect()[0]
    users, error = row["users"] or 0, row["error"] if row["events"] else 0.0
    return {
        "from": row["first"],
        "to": row["last"],
        "unique_users": users,
        "relative_error": round(error, 4),
        "low": round(users * (1 - 2 * error)),
        "high": round(users * (1 + 2 * error)),
        "events": row["events"],
        "rows": {period: row[period] for period in ("year", "month", "day", "hour", "minute") if row[period]},
    }


def show_tables(spark: SparkSession, tables: Tables, periods: Sequence[str]) -> None:
    """Prints the rows of the periods, in order of time, as a table."""
    calendar = tables.calendar
    columns = ["period", "name", "unique_users", "relative_error", "events", "final"]
    rollups = tables.rollups.open(spark).toDF()
    minutes = tables.minutes.open(spark).toDF()
    named = F.date_format(F.from_utc_timestamp("window_start", calendar.timezone), "yyyy-MM-dd'T'HH:mm")
    rows = minutes.select(
        F.lit("minute").alias("period"),
        named.alias("name"),
        "unique_users",
        sketch_error_of(F.col("sketch")).alias("relative_error"),
        "events",
        "final",
        F.col("window_start").alias("start"),
    ).unionByName(rollups.withColumn("start", F.col("period_start")).select(*columns, "start"))
    print(f"{'period':<7}{'start (' + calendar.timezone + ')':<26}{'users':>12}{'±1 s.e.':>9}{'events':>15}")
    for period in ("minute", *PERIODS):
        if period in periods:
            for row in rows.where(F.col("period") == period).orderBy("start").toLocalIterator():
                print(
                    f"{row['period']:<7}{row['name']:<26}{row['unique_users']:>12,}{row['relative_error']:>9.2%}"
                    f"{row['events']:>15,}{' final' if row['final'] else ''}"
                )


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the flags, runs the job, and ends with its exit status (0, or see `uniques.lifecycle`)."""
    parser = make_parser()
    args = parser.parse_args(argv)
    cluster = cluster_of(parser, args)
    questions = {"--between": args.between, "--show": args.show is not None, "--rebuild": args.rebuild}
    asked = [flag for flag, given in questions.items() if given]
    if len(asked) > 1:
        parser.error(f"{' and '.join(asked)}: give one of them")
    if args.and_between and not args.between:
        parser.error("--and needs --between")
    run_job(QUERY_NAME, STATE_PARTITIONS, lambda spark, stop: run(spark, args, cluster, stop), DELTA_SETTINGS)


if __name__ == "__main__":
    main()
