"""Asks the tables how many users there were, without a server and without Spark: `unique-users-ask`.

unique-users-ask 2016-07-11T13:39 2016-07-12 --timezone Europe/Zurich
unique-users-ask 2016-07-11 2016-07-25 --series day
unique-users-ask 2016-07-11 2016-07-12 --and 2016-07-12 2016-07-13 --output json
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from uniques.core.choices import WEEKDAYS
from uniques.errors import EXIT_FAILED, EXIT_USAGE
from uniques.flag_types import OneLineParser, whole_number

from unique_users_service import questions
from unique_users_service.errors import AskError, QuestionError
from unique_users_service.flags import MEBIBYTE, add_table_options, find_places
from unique_users_service.parameters import (
    PERIODS,
    parse_calendar,
    parse_days,
    parse_key,
    parse_names,
    parse_range,
)
from unique_users_service.questions import Limits
from unique_users_service.sheets import list_rows, write_sheet
from unique_users_service.store import Budget, Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from unique_users_service.state import State

NAME = "unique-users-ask"
# Most of what a question needs are rollups; minutes are read when it cuts an hour.
MEMORY = 64 * MEBIBYTE
LIMITS = Limits(days=36_600, points=1_000_000)
# Columns of a table for people, in order; what an answer does not have is left out.
COLUMNS = ["line", "name", "cohort", "day", "days", "group", "from", "to", "unique_users", "low", "high", "share"]
COLUMNS += ["relative_error", "standard_error", "standard_error_at_most", "stickiness", "events", "complete"]


def make_parser() -> OneLineParser:
    """The flags."""
    parser = OneLineParser(
        prog=NAME, description="Says how many users there were in [FROM, TO), from the tables.", allow_abbrev=False
    )
    parser.add_argument("begin", metavar="FROM", help="a full minute, ISO 8601: 2016-07-11T13:39, or a date")
    parser.add_argument("end", metavar="TO", help="a full minute, exclusive")
    asking = parser.add_argument_group("other questions about [FROM, TO); without them: the users of all of it")
    which = asking.add_mutually_exclusive_group()
    which.add_argument(
        "--series", choices=PERIODS, metavar="PERIOD", help=f"each {', '.join(PERIODS)} that overlaps it"
    )
    which.add_argument(
        "--rolling", nargs="?", const="1,7,28", metavar="DAYS", help="the last days up to each day (1,7,28)"
    )
    which.add_argument("--and", nargs=2, dest="second", metavar=("FROM", "TO"), help="what it has in common with these")
    which.add_argument(
        "--retention", choices=("day", "week", "month"), metavar="PERIOD", help="who came again, by day, week or month"
    )
    which.add_argument("--breakdown", metavar="FIELD,…", help="each group of a breakdown, such as country")
    parser.add_argument(
        "--timezone", metavar="ZONE", help="zone of times without an offset, and of periods (default: the tables')"
    )
    parser.add_argument("--week-start", choices=WEEKDAYS, help="first day of a week (default: the tables')")
    parser.add_argument(
        "--group", action="append", default=[], metavar="FIELD=VALUE", help="only users of that group; may be repeated"
    )
    parser.add_argument("--other", action="store_true", help="only the rest of a breakdown")
    parser.add_argument(
        "--periods", type=whole_number(2, 26), default=8, metavar="N", help="with --retention: how many (%(default)s)"
    )
    parser.add_argument(
        "--output", choices=("table", "json", "csv"), default="table", help="how to print it (default: %(default)s)"
    )
    add_table_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the answer; exit status 0, 1 when it can't be answered now, 2 for a wrong question."""
    parser = make_parser()
    args = parser.parse_args(argv)
    store = Store(*find_places(parser, args), Budget(MEMORY), quiet=True)
    store.refresh()
    try:
        if store.problem and not store.state.series:
            fail(EXIT_FAILED, store.problem)
        found = ask(store.state, args)
    except QuestionError as error:
        fail(EXIT_USAGE, error.detail)
    except AskError as error:
        fail(EXIT_FAILED, error.detail)
    sys.stdout.write(write_answer(found, args.output))


def ask(state: State, args: argparse.Namespace) -> dict[str, Any]:
    """The answer; raises AskError where there is none."""
    calendar = parse_calendar(state, args.timezone, args.week_start)
    range_ = parse_range(args.begin, args.end, calendar)
    if args.breakdown:
        return questions.answer_breakdown(state, calendar, parse_names(args.breakdown), range_, LIMITS)
    key = parse_key(args.group, args.other, state)
    if args.series:
        return questions.answer_series(state, calendar, key, args.series, range_, LIMITS)
    if args.rolling:
        return questions.answer_rolling(state, calendar, key, parse_days(args.rolling), range_, LIMITS)
    if args.second:
        sides = [(key, range_), (key, parse_range(args.second[0], args.second[1], calendar))]
        return questions.answer_overlap(state, calendar, sides, LIMITS)
    if args.retention:
        return questions.answer_retention(state, calendar, key, args.retention, args.periods, range_[1], LIMITS)
    return questions.answer_range(state, calendar, key, range_, LIMITS)


def write_answer(answer: Mapping[str, Any], output: str) -> str:
    """An answer as text."""
    if output == "json":
        return json.dumps(answer, ensure_ascii=False) + "\n"
    return write_sheet(answer) if output == "csv" else write_table(answer)


def write_table(answer: Mapping[str, Any]) -> str:
    """An answer as a table for people."""
    rows = list(list_rows(answer))
    columns = [name for name in COLUMNS if any(row.get(name) is not None for row in rows)]
    cells = [columns, *([write_cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    numeric = [all(not isinstance(row.get(name), str | dict) for row in rows) for name in columns]
    lines = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in cells
    ]
    if not answer.get("complete", True):
        lines.append(f"Not all of it is final yet: final until {answer.get('final_until')}.")
    if "note" in answer:
        lines.append(str(answer["note"]))
    return "\n".join(lines) + "\n"


def write_cell(value: object) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.2%}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def fail(status: int, text: str) -> NoReturn:
    """Ends with one line."""
    sys.stderr.write(f"{NAME}: error: {text}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
