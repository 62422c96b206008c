"""Shows the results in the output topic as a table, with a bar for each window.

    python tools/show_counts.py --topic out --exact exact.jsonl
    python tools/show_counts.py --topic out --follow

Of several records for a window it shows the one with the highest revision; among equal ones, the last. Where there are
breakdowns (--by) it then shows the largest groups of the window with most events.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BAR_WIDTH = 24
CONNECT_SECONDS = 10.0


class ShowError(Exception):
    """The results can't be read; the message is one line."""


@dataclass(frozen=True)
class Exact:
    """The exact counts of a window, or of a group in it."""

    unique_users: int
    events: int


def read_results(bootstrap_servers: str, topic: str, follow: bool = False) -> Iterator[dict[str, Any]]:
    """Yields the topic's records, parsed, from its beginning to its end. With `follow` it goes on until interrupted.

    It reads committed records only. Raises ShowError, one line, when Kafka does not answer or there is no such topic.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "show-counts",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
            "log_level": 0,
        }
    )
    try:
        found = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
        if found.error is not None or not found.partitions:
            raise ShowError(f"topic {topic!r} does not exist on {bootstrap_servers}")
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in found.partitions])
        at_end: set[int] = set()
        while follow or len(at_end) < len(found.partitions):
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                yield json.loads(message.value() or b"null")
            elif error.code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition() or 0)
            else:
                raise ShowError(error.str())
    except KafkaException as error:
        raise ShowError(f"Kafka at {bootstrap_servers} does not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


def key_of(result: dict[str, Any]) -> str:
    """What a record of the job, or a line of exact counts, is about: the window's start, and the group if it is one."""
    if "group" not in result:
        return str(result["window_start"])
    other = " other" if result.get("other") else ""
    return f"{result['window_start']} {json.dumps(result['group'], sort_keys=True, ensure_ascii=False)}{other}"


def name_group(result: dict[str, Any]) -> str:
    """The values of a group, for a reader; empty for a total."""
    values = [f"{path}={'-' if value is None else value}" for path, value in result.get("group", {}).items()]
    return ", ".join([*values, *(["all others"] if result.get("other") else [])])


def select_valid(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The valid record of each window and group, in order of time: the highest revision, among equal ones the last.

    Records of earlier releases have no revision; theirs is 0.
    """
    valid: dict[str, dict[str, Any]] = {}
    for result in results:
        known = valid.setdefault(key_of(result), result)
        if result.get("revision", 0) >= known.get("revision", 0):
            valid[key_of(result)] = result
    return [valid[key] for key in sorted(valid)]


def read_exact(path: Path) -> dict[str, Exact]:
    """Reads the file that `generate_events.py --exact` wrote: `key_of` a window or group -> exact counts."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {key_of(row): Exact(row["unique_users"], row["events"]) for row in rows if row["events"]}


def format_header(exact: bool) -> str:
    """The header of the table, with the columns of `--exact` when `exact` is true."""
    more = f" {'exact':>9} {'error':>8}" if exact else ""
    return f"{'window (UTC)':<20} {'users':>9}{more} {'±1 s.e.':>8} {'events':>10}"


def format_row(result: dict[str, Any], largest: int, exact: Exact | None, with_exact: bool) -> str:
    """A result as one line. `largest` is the number of users that fills the bar; a group has its name instead."""
    users = result["unique_users"]
    middle = ""
    if with_exact:
        middle = f" {'-':>9} {'-':>8}"
        if exact:
            middle = f" {exact.unique_users:>9,} {users / exact.unique_users - 1:>+8.2%}"
    bar = name_group(result) or "█" * round(BAR_WIDTH * users / max(1, largest))
    state = "final" if result["final"] else "so far"
    return (
        f"{result['window_start']:<20} {users:>9,}{middle} {result['relative_error']:>8.2%} "
        f"{result['events']:>10,} {state:<6} {bar}"
    )


def compare(results: list[dict[str, Any]], exact: dict[str, Exact]) -> tuple[list[float], int]:
    """The errors of users in standard errors, in order, and how many results have another number of events."""
    errors = []
    wrong_events = 0
    for result in results:
        truth = exact.get(key_of(result))
        if truth is None:
            wrong_events += 1
            continue
        errors.append(abs(result["unique_users"] / truth.unique_users - 1) / (result["relative_error"] or 1e-9))
        wrong_events += result["events"] != truth.events
    return sorted(errors), wrong_events


def summarize_errors(results: list[dict[str, Any]], exact: dict[str, Exact]) -> tuple[str, bool]:
    """Compares the results of windows with the exact counts.

    Returns a line for the user, and whether all windows are there, with the exact number of events, and with users
    within three standard errors.
    """
    errors, wrong_events = compare(results, exact)
    largest = max(errors, default=0.0)
    line = (
        f"{len(results)} windows of {len(exact)} shown; largest error {largest:.2f} standard errors (bound: 3); "
        f"{wrong_events} windows whose number of events is not exact"
    )
    return line, largest <= 3 and wrong_events == 0 and len(results) == len(exact)


def summarize_groups(results: list[dict[str, Any]], exact: dict[str, Exact]) -> tuple[str, bool]:
    """The same for groups, which are so many that a few may be further off: 99 of 100 are within three errors."""
    errors, wrong_events = compare(results, exact)
    largest = max(errors, default=0.0)
    within = sum(error <= 3 for error in errors) / max(1, len(errors))
    line = (
        f"{len(results):,} groups of {len(exact):,}; {within:.1%} within 3 standard errors (bound: 99 %), largest "
        f"error {largest:.2f} (bound: 5); {wrong_events} groups whose number of events is not exact"
    )
    return line, within >= 0.99 and largest <= 5 and wrong_events == 0 and len(results) == len(exact)


def show_table(args: argparse.Namespace) -> bool:
    """Prints the table of all results so far. Returns whether it agrees with `--exact`; True without that flag."""
    results = select_valid(read_results(args.bootstrap_servers, args.topic))
    exact = read_exact(args.exact) if args.exact else {}
    if not results:
        print(f"no results in topic {args.topic!r} yet")
        return not exact
    totals = [result for result in results if "group" not in result]
    groups = [result for result in results if "group" in result]
    print(format_header(bool(exact)))
    print_rows(totals, exact)
    good = True
    if exact:
        line, good = summarize_errors(totals, {key: truth for key, truth in exact.items() if " " not in key})
        print(line)
    if groups and totals:
        print_groups(totals, groups, exact, args.groups)
        if exact:
            line, all_good = summarize_groups(groups, {key: truth for key, truth in exact.items() if " " in key})
            print(line)
            good &= all_good
    return good


def print_rows(results: list[dict[str, Any]], exact: dict[str, Exact]) -> None:
    """Prints a line for each result."""
    largest = max((result["unique_users"] for result in results), default=0)
    for result in results:
        print(format_row(result, largest, exact.get(key_of(result)), bool(exact)))


def print_groups(
    totals: list[dict[str, Any]], groups: list[dict[str, Any]], exact: dict[str, Exact], number: int
) -> None:
    """Prints the largest groups of each breakdown in the window with most events, and what they add up to."""
    total = max(totals, key=lambda result: int(result["events"]))
    breakdowns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for result in groups:
        if result["window_start"] == total["window_start"]:
            breakdowns.setdefault(tuple(result["group"]), []).append(result)
    for paths, found in breakdowns.items():
        users, events = (sum(result[name] for result in found) for name in ("unique_users", "events"))
        print(
            f"\n{len(found):,} groups by {', '.join(paths)}: {events:,} events, {users:,} users added up; the window "
            f"has {total['events']:,} and {total['unique_users']:,}, who may each be in several groups"
        )
        print_rows(sorted(found, key=lambda result: -int(result["events"]))[:number], exact)


def follow_table(args: argparse.Namespace) -> None:
    """Prints every record when it arrives, until interrupted."""
    exact = read_exact(args.exact) if args.exact else {}
    largest = 0
    print(format_header(bool(exact)), flush=True)
    for result in read_results(args.bootstrap_servers, args.topic, follow=True):
        largest = max(largest, result["unique_users"])
        print(format_row(result, largest, exact.get(key_of(result)), bool(exact)), flush=True)


def main() -> None:
    """Shows the results. With --exact the exit status is 1 unless they agree."""
    parser = argparse.ArgumentParser(description="Show the results in the output topic.")
    parser.add_argument("--bootstrap-servers", default="localhost:9092", help="(default: localhost:9092)")
    parser.add_argument("--topic", default="out", help="(default: out)")
    parser.add_argument("--follow", action="store_true", help="show new records when they arrive, until Ctrl-C")
    parser.add_argument("--groups", type=int, default=5, metavar="N", help="groups of each breakdown (default: 5)")
    parser.add_argument(
        "--exact", type=Path, metavar="FILE", help="compare with these exact counts, from generate_events.py"
    )
    args = parser.parse_args()
    try:
        if args.follow:
            follow_table(args)
        elif not show_table(args):
            sys.exit(1)
    except KeyboardInterrupt:
        pass
    except (ShowError, OSError, ValueError, KeyError) as error:
        sys.exit(f"show_counts: error: {error}")


if __name__ == "__main__":
    main()
