"""The flags of unique_users.py that say where an event has what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uniques.core.choices import TS_UNITS
from uniques.flag_types import field, fields, time_format

if TYPE_CHECKING:
    import argparse


def add_event_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `fields.EventShape`, but for its breakdowns, to a parser."""
    events = parser.add_argument_group("events")
    events.add_argument(
        "--time-field",
        type=field,
        default="ts",
        metavar="PATH",
        help="the field with an event's time; of nested objects with dots, names with dots in backticks: "
        "context.`sent.at` (default: %(default)s)",
    )
    events.add_argument(
        "--time-format",
        type=time_format,
        default="auto",
        metavar="FORMAT",
        help="auto: unix time in seconds, milli-, micro- or nanoseconds, told apart by size, or ISO 8601; unix; iso; "
        "kafka: the arrival time of the record is the event's; or a pattern of Spark's, such as "
        "'dd/MMM/yyyy:HH:mm:ss Z' (default: %(default)s)",
    )
    events.add_argument(
        "--ts-unit",
        choices=tuple(TS_UNITS),
        help="unit of unix times, which are then not told apart by size (default: s for --time-format unix)",
    )
    events.add_argument(
        "--time-zone",
        default="UTC",
        metavar="ZONE",
        help="zone of times that say none, such as Europe/Zurich (default: %(default)s)",
    )
    events.add_argument(
        "--user-field",
        type=fields,
        default="uid",
        metavar="PATH,…",
        help="the field with the user; of several the first that is there and not empty; @key is the record's key, "
        "@header.NAME a header (default: %(default)s)",
    )
    events.add_argument(
        "--where",
        metavar="CONDITION",
        help="count only events for which this SQL condition over their fields holds, such as \"type = 'view' AND "
        "coalesce(bot, 'false') <> 'true'\"; fields are strings; functions that fail or ask a clock are not allowed "
        "(default: all)",
    )
