"""Shows the results in the output topic as a table, with a bar for each window.

    python tools/show_counts.py --topic out --exact exact.jsonl
    python tools/show_counts.py --topic out --follow

Of several records for a window it shows the one with the highest revision; among equal ones, the last.
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
    """The exact counts of a window."""

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


def select_valid(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The valid record of each window, in order of time: the highest revision, and among equal ones the last.

    Records of earlier releases have no revision; theirs is 0.
    """
    valid: dict[str, dict[str, Any]] = {}
    for result in results:
        known = valid.setdefault(result["window_start"], result)
        if result.get("revision", 0) >= known.get("revision", 0):
            valid[result["window_start"]] = result
    return [valid[start] for start in sorted(valid)]


def read_exact(path: Path) -> dict[str, Exact]:
    """Reads the file that `generate_events.py --exact` wrote: window start -> exact counts, without those of groups."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    totals = [row for row in rows if "group" not in row]
    return {row["window_start"]: Exact(row["unique_users"], row["events"]) for row in totals if row["events"]}


def format_header(exact: bool) -> str:
    """The header of the table, with the columns of `--exact` when `exact` is true."""
    more = f" {'exact':>9} {'error':>8}" if exact else ""
    return f"{'window (UTC)':<20} {'users':>9}{more} {'±1 s.e.':>8} {'events':>10}"


def format_row(result: dict[str, Any], largest: int, exact: Exact | None, with_exact: bool) -> str:
    """A result as one line. `largest` is the number of users that fills the bar."""
    users = result["unique_users"]
    middle = ""
    if with_exact:
        middle = f" {'-':>9} {'-':>8}"
        if exact:
            middle = f" {exact.unique_users:>9,} {users / exact.unique_users - 1:>+8.2%}"
    bar = "█" * round(BAR_WIDTH * users / max(1, largest))
    state = "final" if result["final"] else "so far"
    return (
        f"{result['window_start']:<20} {users:>9,}{middle} {result['relative_error']:>8.2%} "
        f"{result['events']:>10,} {state:<6} {bar}"
    )


def summarize_errors(results: list[dict[str, Any]], exact: dict[str, Exact]) -> tuple[str, bool]:
    """Compares the results with the exact counts.

    Returns a line for the user, and whether all windows are there, with the exact number of events, and with users
    within three standard errors.
    """
    errors = []
    wrong_events = 0
    for result in results:
        truth = exact.get(result["window_start"])
        if truth is None:
            wrong_events += 1
            continue
        errors.append((result["unique_users"] / truth.unique_users - 1) / (result["relative_error"] or 1e-9))
        wrong_events += result["events"] != truth.events
    largest = max((abs(error) for error in errors), default=0.0)
    line = (
        f"{len(results)} windows of {len(exact)} shown; largest error {largest:.2f} standard errors (bound: 3); "
        f"{wrong_events} windows whose number of events is not exact"
    )
    return line, largest <= 3 and wrong_events == 0 and len(results) == len(exact)


def show_table(args: argparse.Namespace) -> bool:
    """Prints the table of all results so far. Returns whether it agrees with `--exact`; True without that flag."""
    results = select_valid(read_results(args.bootstrap_servers, args.topic))
    exact = read_exact(args.exact) if args.exact else {}
    if not results:
        print(f"no results in topic {args.topic!r} yet")
        return not exact
    largest = max(result["unique_users"] for result in results)
    print(format_header(bool(exact)))
    for result in results:
        print(format_row(result, largest, exact.get(result["window_start"]), bool(exact)))
    if not exact:
        return True
    line, good = summarize_errors(results, exact)
    print(line)
    return good


def follow_table(args: argparse.Namespace) -> None:
    """Prints every record when it arrives, until interrupted."""
    exact = read_exact(args.exact) if args.exact else {}
    largest = 0
    print(format_header(bool(exact)), flush=True)
    for result in read_results(args.bootstrap_servers, args.topic, follow=True):
        largest = max(largest, result["unique_users"])
        print(format_row(result, largest, exact.get(result["window_start"]), bool(exact)), flush=True)


def main() -> None:
    """Shows the results. With --exact the exit status is 1 unless they agree."""
    parser = argparse.ArgumentParser(description="Show the results in the output topic.")
    parser.add_argument("--bootstrap-servers", default="localhost:9092", help="(default: localhost:9092)")
    parser.add_argument("--topic", default="out", help="(default: out)")
    parser.add_argument("--follow", action="store_true", help="show new records when they arrive, until Ctrl-C")
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
