"""Years of minutes: backfill, rollups and ranges, against exact counts by sets.

    make bench-history

Loads events into an embedded Kafka, counts them with `unique_users.py --backfill`, unites them with `rollup_users.py`,
asks for a range of a year (or all), and compares every hour, day, week, month and year with sets in Python. Two
streams: a million events in 17 minutes, and two years of minutes with two events each. States time, memory and disk.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from datasketches import hll_sketch, hll_union, tgt_hll_type
from kafka_broker import KafkaBroker
from load_events import load_lines
from machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"
LG_K = 12
PERIODS = ("hour", "day", "week", "month", "year")
BLOCK = 100_000


@dataclass
class Exact:
    """Exact counts, kept while events are generated in order of time: period and start -> (users, events)."""

    counts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    direct: hll_sketch = field(default_factory=lambda: hll_sketch(LG_K, tgt_hll_type.HLL_8))
    minutes: set[int] = field(default_factory=set)
    _users: dict[tuple[str, str], set[int]] = field(default_factory=lambda: defaultdict(set))
    _events: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _hour: int = -1
    _keys: list[tuple[str, str]] = field(default_factory=list)

    def add(self, ts: int, user: int) -> None:
        """Counts an event."""
        if ts // 3600 != self._hour:
            self._hour = ts // 3600
            self._keys = name_periods(ts)
            for key in [key for key in self._users if key not in self._keys]:
                self._close(key)
        for key in self._keys:
            self._users[key].add(user)
            self._events[key] += 1
        self.direct.update(f"u{user}")
        self.minutes.add(ts // 60)

    def close(self) -> None:
        """Ends the last periods."""
        for key in list(self._users):
            self._close(key)

    def _close(self, key: tuple[str, str]) -> None:
        self.counts[key] = (len(self._users.pop(key)), self._events.pop(key))


def name_periods(ts: int) -> list[tuple[str, str]]:
    """The periods an event lies in, in UTC: (period, start)."""
    hour = datetime.fromtimestamp(ts, timezone.utc).replace(minute=0, second=0)
    day = hour.replace(hour=0)
    starts = (hour, day, day - timedelta(days=day.weekday()), day.replace(day=1), day.replace(day=1, month=1))
    return [(period, f"{start:%Y-%m-%dT%H:%M:%SZ}") for period, start in zip(PERIODS, starts, strict=True)]


def generate(start: str, minutes: int, events_a_minute: int, users: int, exact: Exact) -> Iterator[bytes]:
    """Lines of events, shuffled in blocks; `exact` has counted them when the last one is taken."""
    draw = random.Random(1)
    first = int(datetime.fromisoformat(start).replace(tzinfo=timezone.utc).timestamp())
    block: list[bytes] = []
    for minute in range(minutes):
        for second in sorted(draw.randrange(60) for _ in range(events_a_minute)):
            ts, user = first + 60 * minute + second, draw.randrange(users)
            exact.add(ts, user)
            block.append(b'{"ts":%d,"uid":"u%d"}' % (ts, user))
        if len(block) >= BLOCK:
            draw.shuffle(block)
            yield from block
            block = []
    draw.shuffle(block)
    yield from block
    exact.close()


def run_job(*command: str) -> tuple[float, dict[str, float], str]:
    """Runs spark-submit; returns seconds, the most memory of its processes in MB by name, and what it printed."""
    began = time.monotonic()
    process = subprocess.Popen(
        [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    peaks: dict[str, float] = defaultdict(float)
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            for pid in list_session(process.pid):
                name, peak = read_peak(pid)
                peaks[name] = max(peaks[name], peak)

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, err = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with status {process.returncode}:\n{err[-2000:]}")
    return time.monotonic() - began, dict(peaks), out


def list_session(session: int) -> Iterator[int]:
    """The processes of a session."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        if int(fields[3]) == session:
            yield int(folder.name)


def read_peak(pid: int) -> tuple[str, float]:
    """A process's name, java or python, and the most memory it had so far, in MB."""
    try:
        lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        # A JVM's name in there may be that of one of its threads.
        name = "python" if lines["Name"].strip().startswith("python") else "java"
        return name, int(lines["VmHWM"].split()[0]) / 1024
    except (OSError, KeyError):
        return "python", 0.0


def measure_disk(folder: Path) -> float:
    """Megabytes in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def read_values(broker: KafkaBroker, topic: str) -> Iterator[dict[str, Any]]:
    """The values of a topic with one partition, in order."""
    consumer = Consumer(
        {"bootstrap.servers": broker.bootstrap_servers, "group.id": "bench", "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    while (message := consumer.poll(10)) is not None and message.error() is None:
        yield json.loads(message.value() or b"")
    consumer.close()


def read_rows(broker: KafkaBroker, topic: str) -> dict[tuple[str, str], dict[str, Any]]:
    """(period, start) -> last record of the rollup topic."""
    return {(value["period"], value["period_start"]): value for value in read_values(broker, topic)}


def unite_minutes(broker: KafkaBroker, topic: str) -> tuple[hll_union, int]:
    """The union of the sketches of all minute records, made by the datasketches package, and their number."""
    union, seen = hll_union(LG_K), set()
    for value in read_values(broker, topic):
        union.update(hll_sketch.deserialize(base64.b64decode(value["sketch"])))
        seen.add(value["window_start"])
    return union, len(seen)


def read_registers(sketch: hll_sketch) -> bytes:
    """The registers of a sketch with many users."""
    return bytes(sketch.serialize_compact())[40:]


def measure(title: str, start: str, minutes: int, events_a_minute: int, users: int, batch: int) -> bool:
    """Runs one stream through both jobs and prints what came out; returns whether all of it was right."""
    exact = Exact()
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="history-") as name:
        folder, servers = Path(name), broker.bootstrap_servers
        broker.create_topic("in", partitions=2)
        for topic in ("out", "rollups"):
            broker.create_topic(topic)
        events = minutes * events_a_minute
        print(f"\n{title}: {events:,} events, {minutes:,} minutes, {users:,} users, lg_k {LG_K}", flush=True)
        load_lines(generate(start, minutes, events_a_minute, users, exact), servers, "in", progress=True)
        kafka = ("--bootstrap-servers", servers)
        tables = ("--minutes-table", str(folder / "minutes"), "--rollups-table", str(folder / "rollups"))
        flags = ("--backfill", "--counter", "hll_sketch", "--sketch", "--checkpoint-location", str(folder / "c1"))
        limit = ("--max-offsets-per-trigger", "500000")
        seconds, memory, _ = run_job("jobs/unique_users.py", *kafka, *flags, *limit)
        print_step("backfill", seconds, memory, f"staged {measure_disk(folder / 'c1'):,.0f} MB")
        bounded = ("--trigger", "available-now", "--max-offsets-per-trigger", str(batch))
        seconds, memory, _ = run_job(
            "jobs/rollup_users.py", *kafka, *tables, *bounded, "--checkpoint-location", str(folder / "c2")
        )
        disk = {table: measure_disk(folder / table) for table in ("minutes", "rollups")}
        print_step("rollup", seconds, memory, ", ".join(f"{table} {size:,.0f} MB" for table, size in disk.items()))
        first = datetime.fromisoformat(start)
        last = min(first + timedelta(days=365), first + timedelta(minutes=minutes))
        between = (f"{first:%Y-%m-%dT%H:%M}", f"{last:%Y-%m-%dT%H:%M}")
        seconds, memory, out = run_job("jobs/rollup_users.py", *tables, "--between", *between)
        answer = json.loads(out.splitlines()[-1])
        print_step("--between", seconds, memory, f"of that {answer.pop('seconds')} s the query")
        print(f"  {json.dumps(answer)}")
        return check(exact, read_rows(broker, "rollups"), *unite_minutes(broker, "out"))


def print_step(step: str, seconds: float, memory: dict[str, float], more: str) -> None:
    """One line a step."""
    peaks = ", ".join(f"{name} {peak:,.0f} MB" for name, peak in sorted(memory.items()) if peak > 10)
    print(f"  {step:<10}{seconds:>8.1f} s   peak memory: {peaks}   {more}", flush=True)


def check(exact: Exact, rows: dict[tuple[str, str], dict[str, Any]], union: hll_union, minutes: int) -> bool:
    """Prints how the rollups compare with the exact counts; returns whether all of them hold."""
    right = rows.keys() == exact.counts.keys()
    for period in PERIODS:
        errors, wrong = [], 0
        for key, (users, events) in exact.counts.items():
            if key[0] == period and key in rows:
                row = rows[key]
                errors.append(abs(row["unique_users"] / users - 1) / row["relative_error"])
                wrong += row["events"] != events
        within = sum(error <= 3 for error in errors) / len(errors)
        right &= not wrong and max(errors) <= 3
        print(
            f"  {period:<6}{len(errors):>8,} rows   largest error {max(errors):.2f} standard errors   "
            f"within three: {within:.2%}   events exact in all but {wrong}"
        )
    same = read_registers(union.get_result(tgt_hll_type.HLL_8)) == read_registers(exact.direct)
    whole = minutes == len(exact.minutes)
    print(
        f"  union of {minutes:,} minutes: the registers of a sketch of all events: {same}; no minute missing: {whole}"
    )
    return right and same and whole


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Backfill, rollups and ranges over years of minutes.")
    parser.add_argument("--days", type=int, default=730, help="of the long stream (default: %(default)s)")
    parser.add_argument(
        "--batch", type=int, default=100_000, help="minutes a batch of the rollup job (default: %(default)s)"
    )
    args = parser.parse_args()
    print(f"machine: {describe_machine()}")
    right = measure("dense", "2016-07-11T13:39", 17, 1_000_000 // 17, 500_000, args.batch)
    right &= measure("sparse", "2015-01-01T00:00", args.days * 1440, 2, 200_000, args.batch)
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
