"""The settings of the rollup job: what its flags say, once parsed and checked.

A function takes the part it needs, so a test or a notebook can call it without a command line. Durations are seconds,
unless their name says milliseconds. The defaults are those of the flags.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uniques.apps.rollup_tables import Tables
from uniques.core.calendar import Calendar
from uniques.core.choices import PERIODS
from uniques.errors import UsageError
from uniques.flag_types import AVAILABLE_NOW, OFF
from uniques.kafka.properties import KafkaCluster
from uniques.tables import Table

if TYPE_CHECKING:
    import argparse
    from datetime import datetime

Range = tuple["datetime", "datetime"]


@dataclass(frozen=True)
class SourceSettings:
    """The topic with the minutes, and the most records that a batch reads from it."""

    topic: str = "out"
    max_offsets_per_trigger: int = 20_000


@dataclass(frozen=True)
class UpkeepSettings:
    """How long minutes are kept (None: for ever), and how often the tables are maintained (None: never)."""

    retention_seconds: int | None = None
    interval_seconds: int | None = 86_400


@dataclass(frozen=True)
class RunningSettings:
    """How the job runs. `trigger_milliseconds` None: read what is there, then end."""

    checkpoint_location: str = "checkpoint/rollup_users"
    trigger_milliseconds: int | None = 10_000
    metrics_address: tuple[str, int] | None = None


@dataclass(frozen=True)
class Group:
    """Whom a question is about: all, or one group by its JSON `text`, or all groups without a name (`other`)."""

    text: str | None = None
    other: bool = False


@dataclass(frozen=True)
class Between:
    """The question for the users of a range, and perhaps for those who were in a second one too."""

    first: Range
    second: Range | None = None
    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class Show:
    """The question for the rows of these periods."""

    periods: tuple[str, ...] = PERIODS
    group: Group = field(default_factory=Group)


@dataclass(frozen=True)
class Rebuild:
    """The order to rebuild the rollups."""


@dataclass(frozen=True)
class RollupSettings:
    """All settings of the rollup job. `topic` None: tables only. `task` None: keep the tables up to date."""

    cluster: KafkaCluster = field(default_factory=lambda: KafkaCluster("localhost:9092"))
    source: SourceSettings = field(default_factory=SourceSettings)
    tables: Tables = field(default_factory=Tables)
    topic: str | None = "rollups"
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    running: RunningSettings = field(default_factory=RunningSettings)
    task: Between | Show | Rebuild | None = None


def make_settings(args: argparse.Namespace, cluster: KafkaCluster) -> RollupSettings:
    """The settings that the flags say.

    Raises UsageError, one line, for flags that are right each by itself but not together.
    """
    return RollupSettings(
        cluster,
        SourceSettings(args.input_topic, args.max_offsets_per_trigger),
        Tables(
            Table("--minutes-table", args.minutes_table),
            Table("--rollups-table", args.rollups_table),
            Calendar(args.timezone, args.week_start),
        ),
        None if args.rollup_topic == OFF else args.rollup_topic,
        UpkeepSettings(
            None if args.minutes_retention == OFF else args.minutes_retention,
            None if args.maintenance_interval == OFF else args.maintenance_interval,
        ),
        RunningSettings(
            args.checkpoint_location,
            None if args.trigger == AVAILABLE_NOW else args.trigger,
            args.metrics_port,
        ),
        choose_task(args),
    )


def make_group(args: argparse.Namespace) -> Group:
    """The group that the flags name, as the records write it: paths in order, no blanks."""
    if not args.group:
        if args.other:
            raise UsageError("--other needs --group PATH, the fields of the breakdown")
        return Group()
    values = {found.text: value for found, value in sorted(args.group)}
    if args.other and any(value is not None for value in values.values()):
        raise UsageError("--other: give each --group without a value: its groups have no name")
    return Group(json.dumps(values, ensure_ascii=False, separators=(",", ":")), args.other)


def choose_task(args: argparse.Namespace) -> Between | Show | Rebuild | None:
    """What the flags ask for; raises UsageError, one line, when they ask for several things at once."""
    tasks: dict[str, Between | Show | Rebuild] = {}
    group = make_group(args)
    if args.between:
        tasks["--between"] = Between(tuple(args.between), tuple(args.and_between) if args.and_between else None, group)
    if args.show is not None:
        tasks["--show"] = Show(tuple(args.show) or PERIODS, group)
    if args.rebuild:
        tasks["--rebuild"] = Rebuild()
    if len(tasks) > 1:
        raise UsageError(f"{' and '.join(tasks)}: give one of them")
    if args.and_between and not args.between:
        raise UsageError("--and needs --between")
    if group.text is not None and not tasks.keys() & {"--between", "--show"}:
        raise UsageError("--group needs --between or --show")
    return next(iter(tasks.values()), None)
