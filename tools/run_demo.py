"""Runs the job from end to end on this machine: `make demo`.

It starts an embedded Kafka, loads generated events, runs `spark-submit jobs/unique_users.py` on them, and shows the
counts next to the exact ones. It ends with status 0 only when every minute is there and within the stated bound.
`--shape clickstream` does the same with nested events of another shape, the flags that say where they have what, and
three breakdowns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from clickstream import BY_FLAGS, FLAGS
from generate_events import SHAPES, ExactCounts, Settings, generate_events
from inspect_topic import quote
from kafka_broker import BrokerError, KafkaBroker
from load_events import LoadError, load_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"
# Shape of events -> the flags with which the job counts them.
SHAPE_FLAGS: dict[str, tuple[str, ...]] = {"challenge": (), "clickstream": (*FLAGS, *BY_FLAGS)}


def say(text: str) -> None:
    """Prints a line that says what happens now."""
    print(f"demo: {text}", flush=True)


def run_demo(events: int, shape: str) -> int:
    """Runs the demo with events of a shape; returns the exit status."""
    # 500 events a second of event time: 200,000 events are six full minutes and a part of a seventh.
    settings = Settings(events=events, rate=500, malformed=0.001, shape=shape)
    counts = ExactCounts()
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="unique-users-") as folder:
        servers = broker.bootstrap_servers
        say(f"an embedded Kafka runs on {servers}")
        broker.create_topic("in", partitions=2)
        broker.create_topic("out")

        def lines() -> Iterator[bytes]:
            for event in generate_events(settings):
                counts.add(event)
                yield event.line

        say(f"loading {events:,} generated events of 2 kB into topic in")
        load_lines(lines(), servers, "in", progress=True)
        exact = Path(folder) / "exact.jsonl"
        exact.write_text("".join(json.dumps(row) + "\n" for row in counts.rows()))

        job = [str(SPARK_SUBMIT), "jobs/unique_users.py", "--bootstrap-servers", servers]
        job += ["--trigger", "available-now", "--max-offsets-per-trigger", "50000", *SHAPE_FLAGS[shape]]
        say("spark-submit " + " ".join(map(quote, job[1:])))
        done = subprocess.run([*job, "--checkpoint-location", f"{folder}/checkpoint"], cwd=ROOT, check=False)
        if done.returncode != 0:
            say(f"the job ended with status {done.returncode}")
            return 1
        say("topic out, next to the exact counts:")
        show = [sys.executable, str(ROOT / "tools" / "show_counts.py"), "--bootstrap-servers", servers]
        status = subprocess.run([*show, "--exact", str(exact)], check=False).returncode
        say("make live shows a page that moves")
        return status


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Run the job on an embedded Kafka and check its counts.")
    parser.add_argument("--events", type=int, default=200_000, help="number of events to load (default: %(default)s)")
    parser.add_argument("--shape", choices=SHAPES, default=SHAPES[0], help="of the events (default: %(default)s)")
    args = parser.parse_args()
    if args.events < 1:
        parser.error("argument --events: give a number from 1")
    try:
        status = run_demo(args.events, args.shape)
    except (BrokerError, LoadError, OSError) as error:
        sys.exit(f"demo: error: {error}")
    except KeyboardInterrupt:
        sys.exit("demo: interrupted")
    sys.exit(status)


if __name__ == "__main__":
    main()
