"""Counts the unique users of every minute, hour, day, week, month and year of a file: `make totals FILE=…`.

It loads the file into an embedded Kafka, runs both jobs on it, and prints the tables.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from kafka_broker import BrokerError, KafkaBroker
from load_events import LoadError, load_lines, read_lines

ROOT = Path(__file__).resolve().parent.parent
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"
PERIODS = ("minute", "hour", "day", "week", "month", "year")


def say(text: str) -> None:
    """Prints a line that says what happens now."""
    print(f"totals: {text}", file=sys.stderr, flush=True)


def print_totals(file: str, lg_k: int, timezone: str, periods: list[str]) -> int:
    """Loads the file, runs both jobs, prints the table; returns the exit status."""
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="unique-users-") as folder:
        servers = broker.bootstrap_servers
        broker.create_topic("in", partitions=2)
        broker.create_topic("out")
        say(f"loading {file}")
        load_lines(read_lines([file]), servers, "in", progress=True)
        tables = ["--minutes-table", f"{folder}/minutes", "--rollups-table", f"{folder}/rollups"]
        counting = ["--backfill", "--max-future", "off", "--counter", "hll_sketch", "--sketch", "--lg-k", str(lg_k)]
        uniting = [*tables, "--rollup-topic", "off", "--trigger", "available-now", "--timezone", timezone]
        commands = [
            [
                "jobs/unique_users.py",
                "--bootstrap-servers",
                servers,
                *counting,
                "--checkpoint-location",
                f"{folder}/c1",
            ],
            ["jobs/rollup_users.py", "--bootstrap-servers", servers, *uniting, "--checkpoint-location", f"{folder}/c2"],
            ["jobs/rollup_users.py", *tables, "--show", *periods],
        ]
        for command in commands:
            say("spark-submit " + " ".join(command))
            done = subprocess.run([str(SPARK_SUBMIT), *command], cwd=ROOT, check=False)
            if done.returncode != 0:
                return done.returncode
    return 0


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Count the unique users of every period of a file of events.")
    parser.add_argument("file", help="events, one on each line; a .gz file is unpacked")
    parser.add_argument(
        "--lg-k",
        type=int,
        default=14,
        help="size of the sketches: 2^lg_k registers (default: %(default)s, an error of 0.8 %%)",
    )
    parser.add_argument(
        "--timezone", default="UTC", help="time zone of hours, days and longer periods (default: %(default)s)"
    )
    parser.add_argument(
        "--periods", nargs="+", choices=PERIODS, default=list(PERIODS), help="periods to print (default: all)"
    )
    args = parser.parse_args()
    if not Path(args.file).exists():
        parser.error(f"{args.file} does not exist: make generate writes such a file")
    try:
        sys.exit(print_totals(args.file, args.lg_k, args.timezone, args.periods))
    except (BrokerError, LoadError, OSError) as error:
        sys.exit(f"totals: error: {error}")
    except KeyboardInterrupt:
        sys.exit("totals: interrupted")


if __name__ == "__main__":
    main()
