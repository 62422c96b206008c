"""The flags of rollup_users.py."""

from __future__ import annotations

from uniques.apps.shared_flags import add_kafka_options, add_metrics_option
from uniques.core.calendar import HOUR_SECONDS, WEEKDAYS
from uniques.core.rollups import PERIODS
from uniques.flag_types import OneLineParser, duration_or_off, location, minute, topic, trigger, whole_number

QUERY_NAME = "rollup_users"


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
    tables = parser.add_argument_group(
        "tables (Delta): a path with a '/' (./minutes) or a URL, or the name of a table (catalog.schema.minutes)"
    )
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
