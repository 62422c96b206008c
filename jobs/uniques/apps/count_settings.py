"""The settings of the main job: what its flags say, once parsed and checked.

A function takes the part it needs, so a test or a notebook can call it without a command line. Durations are seconds,
times unix seconds. The defaults are those of the flags.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uniques.apps.count_flags import DELIVERIES
from uniques.apps.format_settings import FormatSettings, make_format
from uniques.core.counts import Counter
from uniques.core.fields import DEFAULT_SHAPE, EventShape, TimeFormat
from uniques.errors import UsageError
from uniques.flag_types import AVAILABLE_NOW, OFF
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.subscription import Subscription
from uniques.times import describe_duration, describe_time

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

STDIN = STDOUT = "-"


@dataclass(frozen=True)
class SourceSettings:
    """Where records come from: topics, or `path`, a file, a folder or STDIN, which then has an end.

    `read_tasks` None: one a core.
    """

    subscription: Subscription = field(default_factory=Subscription)
    path: str | None = None
    starting_offsets: str = "earliest"
    max_offsets_per_trigger: int = 250_000
    read_tasks: int | None = None


@dataclass(frozen=True)
class EventSettings:
    """How records are parsed, and which events count; None stands for any time and any age.

    `where` is the condition as it was given: only Spark can read it, and `shape` has none.
    """

    json_parser: str = "auto"
    shape: EventShape = DEFAULT_SHAPE
    where: str | None = None
    start_time: int | None = None
    end_time: int | None = None
    max_future_seconds: int | None = 5
    max_age_seconds: int | None = None
    format: FormatSettings = field(default_factory=FormatSettings)


@dataclass(frozen=True)
class CountingSettings:
    """How users are counted; at most `max_groups` of a breakdown keep their name in a window.

    A window begins every `slide_seconds`; None: when the one before ends.
    """

    window_seconds: int = 60
    slide_seconds: int | None = None
    watermark_seconds: int = 5
    lateness_seconds: int = 3_600
    counter: Counter = field(default_factory=Counter)
    max_groups: int = 1_000

    @property
    def keep_seconds(self) -> int:
        """How long after its end, in event time, Spark keeps a window: until no record of it can be due any more."""
        return max(self.watermark_seconds, self.lateness_seconds)


@dataclass(frozen=True)
class OutputSettings:
    """Where results go: `topic`, or standard output when it is None.

    `exactly_once` None: where the driver has Kafka's client.
    """

    topic: str | None = "out"
    mode: str = "append"
    correction_seconds: int = 10
    exactly_once: bool | None = None
    rejects_topic: str | None = None
    summary: Path | None = None


@dataclass(frozen=True)
class RunningSettings:
    """How the job runs. `trigger_milliseconds` None: read what is there, then end. `idle_seconds` None: never idle."""

    checkpoint_location: str = "checkpoint/unique_users"
    backfill: bool = False
    keep_staged: bool = False
    trigger_milliseconds: int | None = 200
    idle_seconds: int | None = 5
    consumer_group: str | None = None
    metrics_address: tuple[str, int] | None = None
    state_partitions: int = 2


@dataclass(frozen=True)
class CountSettings:
    """All settings of the main job. The modes exclude each other: a stream, a bounded input, a backfill."""

    cluster: KafkaCluster = field(default_factory=lambda: KafkaCluster("localhost:9092"))
    source: SourceSettings = field(default_factory=SourceSettings)
    events: EventSettings = field(default_factory=EventSettings)
    counting: CountingSettings = field(default_factory=CountingSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
    running: RunningSettings = field(default_factory=RunningSettings)

    @property
    def is_stream(self) -> bool:
        """Whether the input has no end."""
        return self.source.path is None and not self.running.backfill


def make_settings(args: argparse.Namespace, cluster: KafkaCluster) -> CountSettings:
    """The settings that the flags say.

    Raises UsageError, one line, for flags that are right each by itself but not together.
    """
    if args.input_topic and args.input_pattern:
        raise UsageError("--input-pattern: not allowed with --input-topic: give the one or the other")
    settings = CountSettings(
        cluster,
        SourceSettings(
            Subscription(args.input_topic or ("in",), args.input_pattern),
            args.input,
            args.starting_offsets,
            args.max_offsets_per_trigger,
            args.read_tasks,
        ),
        EventSettings(
            args.json_parser,
            make_shape(args),
            args.where,
            args.start_time,
            args.end_time,
            None if args.max_future == OFF else args.max_future,
            args.max_age,
            make_format(args, cluster),
        ),
        CountingSettings(
            args.window,
            args.slide,
            args.watermark,
            args.allowed_lateness,
            Counter(args.counter, args.rsd, args.lg_k, args.sketch),
            args.max_groups,
        ),
        OutputSettings(
            None if args.output == STDOUT else args.output_topic,
            args.output_mode,
            args.correction_interval,
            None if args.delivery is None else args.delivery == DELIVERIES[0],
            args.rejects_topic,
            args.summary,
        ),
        RunningSettings(
            args.checkpoint_location,
            args.backfill,
            args.keep_staged,
            None if args.trigger == AVAILABLE_NOW else args.trigger,
            None if args.idle_timeout == OFF else args.idle_timeout,
            args.consumer_group,
            args.metrics_port,
            args.state_partitions,
        ),
    )
    check_settings(settings)
    return settings


def make_shape(args: argparse.Namespace) -> EventShape:
    """Where an event has its time and its users, as the flags say. A unit that is given says what format it is of."""
    name = args.time_format
    if args.ts_unit is not None and name != "unix":
        if name != "auto":
            raise UsageError(f"--ts-unit {args.ts_unit} is for unix times: leave out --time-format {name}, or the unit")
        name = "unix"
    # A breakdown is the same in any order of its fields.
    breakdowns = tuple(dict.fromkeys(tuple(sorted(set(breakdown))) for breakdown in args.by))
    time_format = TimeFormat(name, args.ts_unit or "s", args.time_zone)
    return EventShape(args.time_field, time_format, args.user_field, breakdowns=breakdowns)


def check_settings(settings: CountSettings) -> None:
    """Raises UsageError, one line, for settings that are right each by itself but not together."""
    window = settings.counting.window_seconds
    start, end = settings.events.start_time, settings.events.end_time
    backfill, path, output = settings.running.backfill, settings.source.path, settings.output
    for flag, time in (("--start-time", start), ("--end-time", end)):
        if time is not None and time % window:
            raise UsageError(
                f"{flag} {describe_time(time)} cuts a window of {describe_duration(window)}: give the start of a window"
            )
    if end is not None and settings.is_stream:
        raise UsageError("--end-time is for --backfill and --input: a stream has no end")
    if start is not None and end is not None and start >= end:
        raise UsageError(f"--end-time {describe_time(end)} is not after --start-time")
    if backfill and path == STDIN:
        raise UsageError("--backfill can't go on with standard input after a restart: leave it out, or give a file")
    if backfill and output.mode == "update":
        raise UsageError("--output-mode update is for a stream: --backfill writes one final record a window")
    if backfill and output.exactly_once:
        raise UsageError(
            "--delivery exactly-once is for a stream: --backfill may write a record again, equal under its key"
        )
    check_slide(settings)
    check_record_fields(settings, settings.events.shape)
    if settings.running.keep_staged and not backfill:
        raise UsageError("--keep-staged is for --backfill: nothing else stages events")
    if output.exactly_once and (path is not None or output.topic is None):
        raise UsageError("--delivery exactly-once: not allowed with --input or --output -: it is about topics")
    if output.rejects_topic and output.topic is None and path is None:
        raise UsageError(
            f"--rejects-topic: {output.rejects_topic!r} is not allowed with --output - on a stream: give an "
            "--output-topic, or --input"
        )


def check_slide(settings: CountSettings) -> None:
    """Raises UsageError, one line, for hopping windows that can't be."""
    window, slide = settings.counting.window_seconds, settings.counting.slide_seconds
    if slide is None:
        return
    if window % slide:
        raise UsageError(
            f"--slide {describe_duration(slide)} is no part of --window {describe_duration(window)}: give one that "
            "divides it"
        )
    if settings.running.backfill or settings.events.start_time is not None or settings.events.end_time is not None:
        raise UsageError(
            "--slide: not allowed with --backfill, --start-time or --end-time, which cut time between windows"
        )


def check_record_fields(settings: CountSettings, shape: EventShape) -> None:
    """Raises UsageError, one line, when events are to have something of their record, and lines of files are read."""
    if settings.source.path is None:
        return
    if not shape.has_time_field:
        raise UsageError("--time-format kafka is for a topic: the lines of --input have no arrival time")
    for found in shape.record_fields:
        raise UsageError(f"{found.text} is of a topic's records: the lines of --input have none")
