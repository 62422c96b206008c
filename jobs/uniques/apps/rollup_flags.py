"""The flags of rollup_users.py."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from uniques.apps.shared_flags import add_kafka_options, add_metrics_option
from uniques.core.choices import HOUR_SECONDS, PERIODS, WEEKDAYS
from uniques.flag_types import (
    OneLineParser,
    duration_or_off,
    group_value,
    location,
    minute,
    refuse,
    topic,
    trigger,
    whole_number,
)

QUERY_NAME = "rollup_users"
# What Java, and so Spark, knows besides the names of zones: offsets, and abbreviations of three letters.
JAVA_ZONE = re.compile(r"(UTC|GMT|UT)?[+-]\d{1,2}(:?\d{1,2}(:?\d{2})?)?|UT|Z|[A-Z]{3}")


def zone(text: str) -> str:
    """A type for a time zone: Python refuses a wrong name at once; Spark has the last word when it has started."""
    name = text.strip()
    if not JAVA_ZONE.fullmatch(name) and not is_zone(name) and is_zone("Europe/Zurich"):
        raise refuse(text, "a zone such as UTC, Europe/Zurich or +05:30")
    return name


def is_zone(name: str) -> bool:
    """Whether Python has the zone; without a database of zones it has none."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def make_parser() -> OneLineParser:
    """The job's flags."""
    parser = OneLineParser(
        prog=QUERY_NAME,
        description="Unites minute sketches of unique_users.py to hours, days, weeks, months, years, and any range.",
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
        help="topic that gets every changed row, or off: tables only (default: %(default)s)",
    )
    topics.add_argument(
        "--max-offsets-per-trigger",
        type=whole_number(1, 10**9),
        default=20_000,
        metavar="N",
        help="most records in a batch; a smaller number takes less memory (default: %(default)s)",
    )
    tables = parser.add_argument_group(
        "tables (Delta): a path with a '/' (./minutes) or a URL, or the name of a table (catalog.schema.minutes)"
    )
    tables.add_argument(
        "--minutes-table",
        type=location,
        default="tables/minutes",
        metavar="TABLE",
        help="one row for each window (default: %(default)s)",
    )
    tables.add_argument(
        "--rollups-table",
        type=location,
        default="tables/rollups",
        metavar="TABLE",
        help="one row for each hour, day, week, month, year (default: %(default)s)",
    )
    tables.add_argument(
        "--minutes-retention",
        type=duration_or_off(HOUR_SECONDS),
        default="off",
        metavar="DURATION",
        help="how long minutes are kept, or off: for ever; larger periods are always kept (default: %(default)s)",
    )
    tables.add_argument(
        "--maintenance-interval",
        type=duration_or_off(1),
        default="1 day",
        metavar="DURATION",
        help="how often small files are joined and old files removed, or off: never (default: %(default)s)",
    )
    calendar = parser.add_argument_group("calendar")
    calendar.add_argument(
        "--timezone",
        type=zone,
        default="UTC",
        metavar="ZONE",
        help="zone of hours, days, …, such as Europe/Zurich (default: %(default)s)",
    )
    calendar.add_argument(
        "--week-start", choices=WEEKDAYS, default=WEEKDAYS[0], help="first day of a week (default: %(default)s)"
    )
    asking = parser.add_argument_group("one task instead of a stream")
    asking.add_argument(
        "--between",
        nargs=2,
        type=minute,
        metavar=("START", "END"),
        help="print the unique users of [START, END), full minutes, in the zone of the tables or with an offset; "
        "unique-users-ask does so in milliseconds",
    )
    asking.add_argument(
        "--and",
        nargs=2,
        type=minute,
        dest="and_between",
        metavar=("START", "END"),
        help="with --between: print also how many users both ranges have in common",
    )
    asking.add_argument(
        "--show",
        nargs="*",
        choices=("minute", *PERIODS),
        metavar="PERIOD",
        help="print the rows of minute, hour, day, week, month, year as a table (default: all but minute)",
    )
    asking.add_argument(
        "--group",
        type=group_value,
        action="append",
        default=[],
        metavar="PATH[=VALUE]",
        help="with --between and --show: only the group of a --by with this value of the field, or without a value; "
        "once for each field of the breakdown (default: the total)",
    )
    asking.add_argument(
        "--other",
        action="store_true",
        help="with --group PATH: the groups of that breakdown that have no name (default: the group named null)",
    )
    asking.add_argument(
        "--rebuild",
        action="store_true",
        help="replace the rollups by new ones made from the minutes, with another --timezone or --week-start too; "
        "stop the stream first",
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--checkpoint-location",
        type=location,
        default="checkpoint/rollup_users",
        metavar="DIR",
        help="folder or URL of the saved offsets; without it the topic is read again (default: %(default)s)",
    )
    running.add_argument(
        "--trigger",
        type=trigger,
        default="10 seconds",
        metavar="DURATION",
        help="start a batch this often, or available-now: read what is there, then end (default: %(default)s)",
    )
    add_metrics_option(running)
    return parser
