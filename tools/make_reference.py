"""The reference pages of the documentation, made from the code: `make reference`.

Flags come from the parsers, records from what the functions that make them return for one literal row, tables from
their schemas, metrics from the registry that Prometheus reads. What the code does not say, such as what a field means,
is kept here; a name without a text is an error. `tests/unit/test_reference.py` fails when a page is stale.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from packages import read_packages
from prometheus_client import CollectorRegistry
from pyspark.sql import SparkSession
from unique_users_service.ask import make_parser as make_ask_parser
from unique_users_service.flags import make_service_parser
from uniques.apps import count_flags, rollup_flags
from uniques.apps.backfill import StagedBatches
from uniques.core.calendar import Calendar
from uniques.core.counts import Counter
from uniques.core.events import REJECT_REASONS
from uniques.core.rollups import (
    MINUTE_REJECT_REASONS,
    MINUTES_SCHEMA,
    ROLLUPS_SCHEMA,
    make_rollup_records,
)
from uniques.filters import FUNCTIONS
from uniques.kafka.records import make_reject_records
from uniques.runtime.listener import ProgressListener
from uniques.runtime.metrics import GAUGES, MetricsListener, QueryMetrics, RollupMetrics
from uniques.state.accounting import Accounting
from uniques.state.publishing import Key, Window, make_record
from uniques.tables import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pyspark.sql import DataFrame

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
HEAD = "<!-- Made by `make reference` from the code: change it there. -->\n"

# Defaults that the parsers leave to another function.
DEFAULTS = {"--bootstrap-servers": "`localhost:9092`", "--delivery": "`exactly-once`"}
# What a flag without a text of its own means.
PLAIN_FLAGS = {"--input-topic": "topic of the events", "--output-topic": "topic of the results"}
# Where a page says more about a flag, by job.
MORE = {
    "unique_users": {
        "--kafka-config": "[Security](../deploy/security.md)",
        "--max-offsets-per-trigger": "[Tuning](../guides/tuning.md)",
        "--backfill": "[History](../guides/history.md)",
        "--json-parser": "[Tuning](../guides/tuning.md#json-parser)",
        "--format": "[Formats](../guides/formats.md)",
        "--schema-registry": "[Formats](../guides/formats.md#a-schema-registry)",
        "--schema": "[Formats](../guides/formats.md#a-schema-in-a-file)",
        "--message": "[Formats](../guides/formats.md#a-schema-in-a-file)",
        "--start-time": "[Handover](../guides/history.md#handover-to-the-stream)",
        "--time-field": "[Paths](../guides/event-format.md#paths)",
        "--time-format": "[Times](../guides/event-format.md#times)",
        "--ts-unit": "[Times](../guides/event-format.md#times)",
        "--time-zone": "[Times](../guides/event-format.md#times)",
        "--user-field": "[Users](../guides/event-format.md#users)",
        "--where": "[Conditions](../guides/event-format.md#conditions)",
        "--by": "[Breakdowns](../guides/breakdowns.md)",
        "--max-groups": "[Many values](../guides/breakdowns.md#many-values)",
        "--slide": "[Rolling counts](../guides/rolling.md)",
        "--read-tasks": "[Partitions](../guides/tuning.md#partitions)",
        "--max-future": "[Arrival time](../concepts/arrival-time.md)",
        "--rejects-topic": "[Rejected events](../guides/rejects.md)",
        "--watermark": "[When a result appears](../concepts/when-a-result-appears.md)",
        "--allowed-lateness": "[Corrections](../concepts/when-a-result-appears.md#corrections)",
        "--counter": "[Accuracy](../concepts/accuracy.md)",
        "--rsd": "[Accuracy](../concepts/accuracy.md#approx_count_distinct)",
        "--sketch": "[Accuracy](../concepts/accuracy.md#sketches)",
        "--output-mode": "[The record](../concepts/when-a-result-appears.md#the-record)",
        "--correction-interval": "[Corrections](../concepts/when-a-result-appears.md#corrections)",
        "--delivery": "[Exactly once](../concepts/exactly-once.md)",
        "--summary": "[Accounting](../concepts/accounting.md)",
        "--checkpoint-location": "[Object stores](../deploy/object-stores.md), [Changes](../operate/changes.md)",
        "--idle-timeout": "[Silence](../concepts/when-a-result-appears.md#silence)",
        "--consumer-group": "[Lag](../operate/lag.md)",
        "--metrics-port": "[Metrics](../operate/metrics.md)",
    },
    "rollup_users": {
        "--group": "[Breakdowns](../guides/breakdowns.md#larger-periods)",
        "--other": "[Breakdowns](../guides/breakdowns.md#larger-periods)",
        "--kafka-config": "[Security](../deploy/security.md)",
        "--minutes-retention": "[Size and retention](../guides/rollups.md#size-and-retention)",
        "--timezone": "[Calendar](../guides/rollups.md#calendar)",
        "--between": "[Any range](../guides/ranges.md)",
        "--metrics-port": "[Metrics](../operate/metrics.md)",
    },
}

REASONS = {
    "tombstone": "the record has no value",
    "unknown_schema": "the schema registry has no schema of its id for this `--format`, or one that can't be used",
    "bad_bytes": "its bytes are not in `--format`: none of the schema, or without the id of a schema where "
    "`--schema-registry` is given",
    "invalid_utf8": "it is no event and not UTF-8, or such bytes damage its user, or a field of `--where`",
    "not_an_object": "JSON, but an array, a string, a number, `true`, `false` or `null`",
    "not_json": "no JSON; or nested deeper than 1,000 levels, or with a number of more than 1,000 digits",
    "missing_ts": "no time in `--time-field`, or `null`",
    "bad_ts": "the time is none in `--time-format`, is before 1970, or is beyond the year 9999",
    "missing_uid": "no user in `--user-field`: missing, `null`, or empty",
    "ts_in_future": "the time is more than `--max-future` after the arrival of the record in Kafka",
    "ts_too_old": "the time is more than `--max-age` before it",
    "outside_range": "the time is before `--start-time`, or not before `--end-time`; not written to the rejects topic",
}
MINUTE_REASONS = {
    "tombstone": "the record has no value",
    "not_a_record": "no JSON object with `window_start`, `window_end` and `events`, or `revision` is no whole number",
    "no_sketch": "no `sketch`: the job that wrote it runs without `--sketch`",
    "bad_sketch": "`sketch` is no HLL sketch in base64",
    "bad_window": "windows of its length do not fill the hours of `--timezone`, such as 20 minutes in Asia/Kolkata",
    "before_kept_minutes": "the minutes of that time were removed (`--minutes-retention`)",
}

RECORD = {
    "window_start": "ISO 8601, UTC; the window is `[start, end)`",
    "window_end": "ISO 8601, UTC",
    "unique_users": "the estimate",
    "events": "accepted events in the window, exact",
    "counter": "how users were counted: `approx_count_distinct`, `hll_sketch` or `exact`",
    "relative_error": "one standard error of that counter, relative to `unique_users`; 0 for `exact`",
    "final": "`true`: the window is published, and only corrections can follow; `false`: a count so far "
    "(`--output-mode update`)",
    "revision": "0 in the first record of a window, then 1, 2, …, one more in each further record of the key; the "
    "record with the highest one is valid; `--backfill` writes the unix time of its first start, in seconds",
    "sketch": "with `--sketch`: the window's Apache DataSketches HLL sketch, base64",
    "group": "with `--by`, in the record of a group: path -> value or null",
    "other": "`true` in the record of all groups of a breakdown that have no name (`--max-groups`)",
}
ROLLUP_RECORD = {
    "period": "`hour`, `day`, `week`, `month` or `year`",
    "name": "the period in its calendar: `2016-07-11T13`, `2016-07-11`, `2016-W28`, `2016-07`, `2016`",
    "period_start": "ISO 8601, UTC; the period is `[start, end)`",
    "period_end": "ISO 8601, UTC",
    "unique_users": "the estimate",
    "events": "accepted events in the period, exact",
    "relative_error": "one standard error, relative to `unique_users`",
    "final": "`true`: a later window is final too, and the period is over by the clock; only a "
    "correction or a repair changes the row",
    "timezone": "the zone of the calendar",
}
SUMMARY = {
    "carried": "events that an earlier run on the checkpoint had read, and no record had yet",
    "read": "records that this run read",
    "counted": "events in the records that this run wrote; those that a later record repeats count once",
    "rejected": "records that can't be counted",
    "filtered": "events that `--where` leaves out",
    "late": "events that came when their window could not be corrected any more",
    "in_open_windows": "events that no record has yet",
    "rejected_by_reason": "the rejected ones by [reason](reject-reasons.md), without those that did not occur",
    "open_windows": "windows with events that no record has yet",
    "corrections": "corrections that were written",
    "corrected_events": "events that came by them; `counted` has them too",
    "exact": "`false`: Spark ran tasks twice, and the numbers above may be off; the records are right",
}
HEADERS = {
    "reason": "one of the [reject reasons](reject-reasons.md)",
    "topic": "where the record was",
    "partition": "where the record was",
    "offset": "where the record was",
    "arrival_time": "the timestamp of the record in the input topic, ISO 8601, UTC, milliseconds",
    "timestamp_type": "whose clock that is: `CreateTime` the producer's, `LogAppendTime` the broker's",
}
COLUMNS = {
    "window_start": "start of the window",
    "window_end": "end of the window, exclusive",
    "unique_users": "the estimate",
    "events": "accepted events, exact",
    "final": "as in the record",
    "revision": "as in the record; null, in rows of an earlier release, means 0",
    "written_at": "Kafka timestamp of the record",
    "offset": "offset of the record",
    "group": "of a `--by`: the group, a JSON object; null for the total, and in rows of an earlier release",
    "other": "`true`: all groups of the breakdown that have no name; else null",
    "sketch": "HLL sketch of the users",
    "period": "`hour`, `day`, `week`, `month` or `year`; the table is partitioned by it",
    "period_start": "start of the period",
    "period_end": "end of the period, exclusive",
    "name": "the period in its calendar",
    "relative_error": "one standard error, relative to `unique_users`",
    "minutes": "windows with events",
    "parent_start": "start of the larger period that a range prefers when it fits; none for weeks and years",
    "parent_end": "its end",
}
SPARK_VERSIONS = {
    "4.2": ("this project's own", "nothing"),
    "4.0": ("Databricks 17.3 LTS, EMR Spark 8", "nothing"),
    "3.5": (
        "Databricks 16.4 LTS, EMR 7 (with its Python 3.9 [replaced](../deploy/emr.md): Python 3.10 or newer is needed)",
        "nothing",
    ),
}
# What every version lacks where Python reaches no JVM.
CONNECT_LACKS = (
    "corrections, exactly-once output and `--output-mode update`: Spark closes windows `--allowed-lateness` after "
    "their end, and writes each at least once. More on [its page](../deploy/connect.md)"
)


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description="Writes docs/reference/ from the code.").parse_args()
    spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        for name, text in make_pages(spark).items():
            (PAGES / name).write_text(text)
    finally:
        spark.stop()


def make_pages(spark: SparkSession) -> dict[str, str]:
    """All pages, file name -> text."""
    pages = {
        "unique-users-flags.md": describe_flags("unique_users.py", count_flags.make_parser()),
        "rollup-users-flags.md": describe_flags("rollup_users.py", rollup_flags.make_parser()),
        "service-flags.md": describe_service_flags(),
        "records.md": describe_records(spark),
        "reject-reasons.md": describe_reasons(),
        "tables.md": describe_tables(),
        "conditions.md": describe_conditions(),
        "metrics.md": describe_metrics(),
        "versions.md": describe_versions(),
    }
    return {name: HEAD + text for name, text in pages.items()}


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def explain(names: Iterable[str], texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Names in the order of the code, each with its text; raises KeyError for one that has none."""
    return [(name, texts[name]) for name in names]


def describe_names(what: str, why: str, names: Iterable[str], texts: Mapping[str, str]) -> str:
    """A table of names and their texts."""
    return make_table([what, why], [(f"`{name}`", text) for name, text in explain(names, texts)])


# Flags


def describe_flags(script: str, parser: argparse.ArgumentParser) -> str:
    """The flags of a job, a table for each group."""
    text = (
        f"# Flags of {script}\n\n{parser.description}\n\n`spark-submit jobs/{script} --help` says the same. Spark's "
        "own settings (memory, cores, master) are spark-submit's flags and `conf/spark-defaults.conf`.\n\n"
        "A `DURATION` is a whole number and a unit: `5 seconds`, `1 minute`, `2 hours`, `1 day`. A `TIME` is ISO 8601, "
        "such as `2016-07-11T13:39`.\n"
    )
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if actions:
            title = group.title or ""
            rows = [describe_flag(action, MORE[parser.prog]) for action in actions]
            text += f"\n## {title[:1].upper()}{title[1:]}\n\n"
            text += make_table(["flag", "default", "value", "meaning"], rows)
    return text


def describe_service_flags() -> str:
    """The flags of both commands of the query service."""
    text = "# Flags of the query service\n\n[Ask and look](../guides/ask.md) says what it is for.\n"
    for parser in (make_service_parser(), make_ask_parser()):
        text += f"\n## {parser.prog}\n\n{parser.description}\n"
        for group in parser._action_groups:
            actions = [action for action in group._group_actions if action.dest != "help"]
            if actions:
                rows = [describe_flag(action, {}, {}) for action in actions]
                title = {"positional arguments": "What to ask for", "options": "Of any question"}.get(group.title or "")
                title = title or f"{(group.title or '')[:1].upper()}{(group.title or '')[1:]}"
                text += f"\n### {title}\n\n" + make_table(["flag", "default", "value", "meaning"], rows)
    return text


def describe_flag(
    action: argparse.Action, more: Mapping[str, str], defaults: Mapping[str, str] = DEFAULTS
) -> tuple[str, str, str, str]:
    """A flag, its default, what it takes, and what it means."""
    flag = action.option_strings[0] if action.option_strings else str(action.metavar)
    default = defaults.get(flag, f"`{action.default}`" if action.default else "none")
    # The default has a column of its own.
    help_text = re.sub(r"\s*\(default: (%\(default\)s|any|none|without|not at all)\)$", "", action.help or "")
    meaning = (help_text % vars(action)) or PLAIN_FLAGS[flag]
    meaning = re.sub(r"(?<![\w-])(--[a-z][a-z-]*[a-z])", r"`\1`", meaning)
    if flag in more:
        meaning = f"{meaning}. {more[flag]}"
    return f"`{flag}`", default, describe_value(action), meaning


def describe_value(action: argparse.Action) -> str:
    """What follows a flag."""
    if action.nargs == 0:
        return ""
    metavar = action.metavar
    if action.choices and not metavar:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    shown = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar)
    return f"`{shown} …`" if action.nargs == "*" else f"`{shown}`{describe_limits(action)}"


def describe_limits(action: argparse.Action) -> str:
    """From where to where a number may be, as the flag's type says it when it refuses another."""
    try:
        if callable(action.type):
            action.type("?")
    except argparse.ArgumentTypeError as refusal:
        limits = re.search(r" number (from \S+ to \S+)", str(refusal))
        return f" {limits[1]}" if limits else ""
    return ""


# Records


def utc(text: str) -> datetime:
    """A time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def describe_records(spark: SparkSession) -> str:
    """The records of both jobs: their fields, and one of each that the code made."""
    start = int(utc("2016-07-11T13:39:00").timestamp())
    counter = Counter(with_sketch=True)
    window = Window(Key(start), 25_391, 30_083, "c2tldGNo", revision=0, final=True)
    key, value = make_record(window, 60, counter)
    shown = value.decode().replace("c2tldGNo", "…")
    group = replace(window, key=Key(start, '{"country":null}', other=True), unique_users=310, events=322)
    group_key, group_value = make_record(group, 60, counter)
    rollup_schema = (
        "period STRING, name STRING, period_start TIMESTAMP, period_end TIMESTAMP, unique_users BIGINT, events BIGINT, "
        "relative_error DOUBLE, final BOOLEAN"
    )
    day = (
        *("day", "2016-07-11", utc("2016-07-11T00:00:00"), utc("2016-07-12T00:00:00")),
        *(81_216, 1_024_770, 0.0162, True),
    )
    rollup = read_record(make_rollup_records(spark.createDataFrame([day], rollup_schema), Calendar()))
    return (
        "# Records\n\nField names are stable. A reader who takes the last record of a key has the best one.\n"
        "\n## Results of unique_users.py\n\nOne record a window, and one for each correction. The key is the window's "
        f"start. The value:\n\n```\n{key.decode()}\n{shown}\n```\n\nWith `--by` each group of a window "
        "has records too. The key is the start and the group: [Breakdowns](../guides/breakdowns.md). All fields:\n\n"
        + describe_record(group_key.decode(), group_value.decode(), RECORD)
        + "\n## Results of rollup_users.py\n\nOne record for every changed period. The key is the period and its "
        "start. The value:\n\n"
        + describe_record(*rollup, ROLLUP_RECORD)
        + "\n## Rejected records\n\nWith `--rejects-topic`: key, value and headers as they came, byte for byte, and "
        "behind them these headers, all of them text:\n\n"
        + describe_names("header", "meaning", read_headers(spark), HEADERS)
        + "\n## Summary of unique_users.py\n\nWhat `--summary FILE` holds, one JSON object, and the job's last line "
        "says: [Accounting](../concepts/accounting.md).\n\n"
        + describe_names("field", "meaning", Accounting().summary(), SUMMARY)
    )


def read_record(records: DataFrame) -> tuple[str, str]:
    """Key and value of the one record."""
    row = records.collect()[0]
    return row.key, row.value


def describe_record(key: str, value: str, texts: Mapping[str, str]) -> str:
    """A table of the fields of a record, and the record."""
    types = {str: "string", int: "int", float: "number", bool: "bool", dict: "object"}
    fields = json.loads(value)
    rows = [(f"`{name}`", types[type(fields[name])], text) for name, text in explain(fields, texts)]
    shown = value.replace(fields["sketch"], "…") if "sketch" in fields else value
    return f"{make_table(['field', 'type', 'meaning'], rows)}\n```\n{key}\n{shown}\n```\n"


def read_headers(spark: SparkSession) -> list[str]:
    """Names of the headers of a rejected record."""
    schema = (
        "key BINARY, value BINARY, topic STRING, partition INT, offset BIGINT, timestamp TIMESTAMP, "
        "timestampType INT, reject_reason STRING"
    )
    row = (b"key", b"value", "in", 0, 0, utc("2016-07-11T13:39:00"), 0, "not_json")
    records = make_reject_records(spark.createDataFrame([row], schema), "rejects").collect()
    return [header["key"] for header in records[0].headers]


def describe_reasons() -> str:
    """Why a record is left out, for both jobs."""
    return (
        "# Reject reasons\n\n## unique_users.py\n\nA record that is no countable event gets the first of these reasons "
        "that fits. The list is closed. Which record gets which: [Event format](../guides/event-format.md). How to see "
        "them: [Rejected events](../guides/rejects.md).\n\n"
        + describe_names("reason", "why", REJECT_REASONS, REASONS)
        + "\n## rollup_users.py\n\nA record of the input topic that can't be merged is left out, for the first of "
        "these reasons that fits:\n\n" + describe_names("reason", "why", MINUTE_REJECT_REASONS, MINUTE_REASONS)
    )


# Tables


def describe_tables() -> str:
    """Both Delta tables."""
    text = (
        "# Tables\n\nThe rollup job keeps two Delta tables. Give each as a path with a `/`, such as `./minutes` for a "
        "folder, as a URL, or as the name of a table in a catalog, of one to three parts. Times are in UTC.\n"
    )
    for flag, row, schema in (
        ("--minutes-table", "A row a window.", MINUTES_SCHEMA),
        ("--rollups-table", "A row a period.", ROLLUPS_SCHEMA),
    ):
        types = dict(column.split() for column in schema.split(", "))
        rows = [(f"`{name}`", types[name], meaning) for name, meaning in explain(types, COLUMNS)]
        text += f"\n## {flag}\n\n{row}\n\n" + make_table(["column", "type", "meaning"], rows)
    properties = [(f"`{name}`", f"`{value}`") for name, value in PROPERTIES.items()]
    return f"{text}\n## Properties\n\nBoth tables are made with:\n\n" + make_table(["property", "value"], properties)


# Metrics


def describe_metrics() -> str:
    """The metrics of both jobs."""
    registries = CollectorRegistry(), CollectorRegistry()
    count = MetricsListener(ProgressListener(StagedBatches(Accounting())), registries[0])
    rollup = RollupMetrics({"read": 0, "windows": 0, "rollups": 0}, registries[1])
    return (
        "# Metrics\n\nServed for Prometheus with `--metrics-port`: [Metrics](../operate/metrics.md). Names and labels "
        "are stable. `process_…` metrics of the driver's Python come with them.\n"
        "\n## unique_users.py\n\n"
        + describe_families(registries[0], count, {f"{count.prefix}_{name}": text for name, text in GAUGES.items()})
        + "\n## rollup_users.py\n\n"
        + describe_families(registries[1], rollup, {})
    )


def describe_families(registry: CollectorRegistry, metrics: QueryMetrics, later: Mapping[str, str]) -> str:
    """A table of the metrics of a job; `later` are gauges that only show once they are known."""
    rows = {}
    for family in registry.collect():
        if family.name.startswith(metrics.prefix):
            labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
            name = f"{family.name}_total" if family.type == "counter" else family.name
            shown = f"`{name}{{{','.join(labels)}}}`" if labels else f"`{name}`"
            rows[name] = (shown, family.type, family.documentation)
    rows |= {name: (f"`{name}`", "gauge", text) for name, text in later.items()}
    return make_table(["metric", "type", "meaning"], rows.values())


# Conditions


def describe_conditions() -> str:
    """What may occur in --where."""
    return (
        "# Conditions\n\nWhat `--where` may use: [Event format](../guides/event-format.md#conditions). "
        "Nothing in it asks a clock, calls other code, or fails for what a field holds.\n\n"
        "- Comparisons, `AND`, `OR`, `NOT`, `IN`, `BETWEEN`, `IS NULL`, `IS DISTINCT FROM`, `CASE`, `CAST`, "
        "arithmetic, `||`.\n- `LIKE`, `ILIKE` and `RLIKE` with a pattern that stands in the condition.\n"
        "- These functions, as "
        "[Spark](https://spark.apache.org/docs/latest/api/sql/) has them: "
        + ", ".join(f"`{name}`" for name in FUNCTIONS)
        + ".\n"
    )


# Versions


def describe_versions() -> str:
    """Which versions of Spark the job runs on, and with which jars."""
    project = (ROOT / "pyproject.toml").read_text()
    python = re.search(r'^requires-python = ">=(.+)"', project, re.MULTILINE)
    if python is None:
        raise ValueError("pyproject.toml has no requires-python")
    rows = [
        row.split()
        for row in (ROOT / "conf" / "spark-versions.txt").read_text().splitlines()
        if row and not row.startswith("#")
    ]
    support, jars = [], []
    for spark, delta, kafka_jar, delta_jar, avro_jar in rows:
        stands_for, lacks = SPARK_VERSIONS[spark.rpartition(".")[0]]
        support.append((spark, delta, stands_for, lacks))
        jars.append((spark, f"`{kafka_jar}`", f"`{delta_jar}`", f"`{avro_jar}`"))
    support.append(("each, by Spark Connect", "", "a remote client", CONNECT_LACKS))
    own = "\n".join(read_packages())
    return (
        f"# Versions\n\nPython {python[1]} or newer, Java 17. `make test-matrix` runs the tests of both jobs on each "
        "of these versions of Spark, with its own Delta and connector.\n\n"
        + make_table(["Spark", "Delta", "stands for", "what it lacks"], support)
        + "\n## Jars\n\nWhat `--packages` has to name on a Spark that lacks them:\n\n"
        + make_table(["Spark", "Kafka connector", "Delta, for rollup_users.py", "Avro, for --format avro"], jars)
        + "\n`--format protobuf` needs no jar: Spark has a copy of Protobuf. `--schema-registry` with Avro or Protobuf "
        "needs `confluent-kafka[schemaregistry]` on the driver: [Formats](../guides/formats.md).\n"
        + f"\n`make install` puts these in place (`conf/packages.txt`):\n\n```\n{own}\n```\n"
    )


if __name__ == "__main__":
    main()
