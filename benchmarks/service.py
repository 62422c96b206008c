"""How fast the query service answers: two years of minutes, one day of them dense.

    PYTHONPATH=tools python benchmarks/service.py

Makes both tables without Spark (1,051,200 minutes; on one day each minute has 100,000 users), starts the service as its
users do, and asks for ranges with random minute edges: 50 questions a second from 4 clients. Prints the time to the
first answer, median and 99th percentile, memory, and the time of the same question to DuckDB over the same files and to
`rollup_users.py --between`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from datasketches import hll_sketch, hll_union, tgt_hll_type
from deltalake import DeltaTable, Schema, write_deltalake
from kafka_broker import find_free_port
from machine import describe_machine
from unique_users_service.sketches import serialize
from unique_users_service.state import PERIODS
from unique_users_service.store import Store
from unique_users_service.tables import TOTAL, Place

ROOT = Path(__file__).resolve().parent.parent
FIRST = int(datetime(2016, 7, 1, tzinfo=timezone.utc).timestamp())
DAY_MINUTES = 1_440
USERS, DENSE_USERS = 100_000, 100_000
LG_K = 12
CLIENTS = 4
TIME = pa.timestamp("us", "UTC")
NUMBERS = [("unique_users", pa.int64()), ("events", pa.int64())]
MINUTES = [("window_start", TIME), ("window_end", TIME), *NUMBERS, ("final", pa.bool_()), ("revision", pa.int64())]
MINUTES += [("written_at", TIME), ("offset", pa.int64()), ("sketch", pa.binary())]
ROLLUPS = [("period", pa.string()), ("period_start", TIME), ("period_end", TIME), ("name", pa.string()), *NUMBERS]
ROLLUPS += [("relative_error", pa.float64()), ("minutes", pa.int64()), ("final", pa.bool_())]
ROLLUPS += [("parent_start", TIME), ("parent_end", TIME), ("sketch", pa.binary())]
PARENTS = {"hour": "day", "day": "month", "month": "year"}


@dataclass
class Timings:
    """Seconds of questions."""

    seconds: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Milliseconds within which that share of the questions was answered."""
        ordered = sorted(self.seconds)
        return 1_000 * ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def make_sketches(minutes: int) -> tuple[list[bytes], list[int]]:
    """The sketch and the events of each minute: two users, but on a day in the middle DENSE_USERS."""
    draw, rng = random.Random(1), np.random.default_rng(1)
    dense_from = minutes // DAY_MINUTES // 2 * DAY_MINUTES
    full = hll_sketch(LG_K, tgt_hll_type.HLL_8)
    for user in range(DENSE_USERS):
        full.update(f"dense{user}")
    template = bytes(full.serialize_updatable())
    registers = np.frombuffer(template, np.uint8, 1 << LG_K, 40)
    sketches, events = [], []
    for minute in range(minutes):
        if dense_from <= minute < dense_from + DAY_MINUTES:
            # As large as a minute of other users, and not equal to the others.
            varied = np.maximum(1, registers - (rng.random(1 << LG_K) < 0.1)).astype(np.uint8)
            sketches.append(template[:40] + varied.tobytes())
            events.append(2 * DENSE_USERS)
            continue
        sketch = hll_sketch(LG_K, tgt_hll_type.HLL_8)
        for _ in range(2):
            sketch.update(f"u{draw.randrange(USERS)}")
        sketches.append(bytes(sketch.serialize_updatable()))
        events.append(2)
    return sketches, events


def write_table(path: Path, columns: list[tuple[str, Any]], rows: dict[str, Any], properties: dict[str, str]) -> None:
    """Writes a Delta table with the columns and properties of the rollup job."""
    schema = pa.schema(columns)
    partition = ["period"] if "period" in schema.names else None
    DeltaTable.create(
        path,
        Schema.from_arrow(schema),
        partition_by=partition,
        configuration=properties or None,
        raise_if_key_not_exists=False,
    )
    table = pa.table({name: pa.array(rows[name], type_) for name, type_ in columns}, schema=schema)
    write_deltalake(path, table, mode="append")


def make_tables(folder: Path, minutes: int) -> None:
    """Makes both tables; the rollups are united by the service's own code."""
    sketches, events = make_sketches(minutes)
    starts = [1_000_000 * (FIRST + 60 * minute) for minute in range(minutes)]
    ends = [start + 60_000_000 for start in starts]
    rows: dict[str, Any] = {"window_start": starts, "window_end": ends, "unique_users": events, "events": events}
    rows |= {"final": [True] * minutes, "revision": [0] * minutes, "written_at": ends, "offset": list(range(minutes))}
    write_table(folder / "minutes", MINUTES, {**rows, "sketch": sketches}, {})
    store = Store(Place("--minutes-table", str(folder / "minutes")), Place("--rollups-table", str(folder / "no")))
    store.refresh()
    state, calendar = store.state, store.state.calendar
    found: dict[str, list[Any]] = {name: [] for name, _ in ROLLUPS}
    for period in PERIODS:
        for block in state.series[TOTAL][period].values():
            for index in range(len(block)):
                start, end = int(block.start[index]), int(block.end[index])
                parent = calendar.bounds(start, PARENTS[period]) if period in PARENTS else (None, None)
                sketch = block.sketch_of(index)
                row: dict[str, Any] = {"period": period, "period_start": start, "period_end": end, "name": ""}
                row |= {"unique_users": sketch.estimate(), "relative_error": sketch.relative_error}
                row |= {"events": int(block.events[index]), "minutes": int(block.minutes[index]), "final": True}
                row |= {"parent_start": parent[0], "parent_end": parent[1], "sketch": serialize(sketch)}
                for name, value in row.items():
                    is_time = name.endswith(("_start", "_end")) and value is not None
                    found[name].append(1_000_000 * value if is_time else value)
    properties = {"unique_users.timezone": "UTC", "unique_users.week_start": "monday"}
    write_table(folder / "rollups", ROLLUPS, found, properties)


def draw_range(draw: random.Random, minutes: int) -> tuple[datetime, datetime]:
    """Two minutes, in order."""
    first, last = sorted(draw.sample(range(minutes + 1), 2))
    begin = datetime.fromtimestamp(FIRST, timezone.utc)
    return begin + timedelta(minutes=first), begin + timedelta(minutes=last)


def name(time_: datetime) -> str:
    """A time as questions have it."""
    return time_.strftime("%Y-%m-%dT%H:%M")


class Server:
    """The service as a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Starts it, and waits for its first answer: `cold_seconds`."""
        self.port = find_free_port()
        command = [sys.executable, "-m", "unique_users_service.server", "--port", str(self.port)]
        command += ["--minutes-table", f"{folder}/minutes", "--rollups-table", f"{folder}/rollups"]
        began = time.monotonic()
        self._process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
        while True:
            try:
                status, _ = get(http.client.HTTPConnection("127.0.0.1", self.port, timeout=10), "/v1/series?" + YEAR)
                if status == 200:
                    break
            except OSError:
                pass
            if self._process.poll() is not None:
                sys.exit("service: error: the service ended")
            time.sleep(0.005)
        self.cold_seconds = time.monotonic() - began

    def read_memory(self) -> tuple[float, float]:
        """Megabytes in memory now, and at most so far."""
        lines = Path(f"/proc/{self._process.pid}/status").read_text().splitlines()
        values = dict(line.split(":", 1) for line in lines)
        return int(values["VmRSS"].split()[0]) / 1024, int(values["VmHWM"].split()[0]) / 1024

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.communicate()


YEAR = "period=month&from=2016-08-01&to=2016-09-01"


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    """Status and body of an answer."""
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read()


def load(port: int, minutes: int, rate: float, seconds: float) -> Timings:
    """Asks for random ranges at a rate, from CLIENTS clients; what waits for an answer before counts as waiting."""
    timings, lock = Timings(), threading.Lock()

    def ask(client: int) -> None:
        draw = random.Random(client)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        began = time.perf_counter() + client / rate
        for number in range(int(rate * seconds / CLIENTS)):
            due = began + number * CLIENTS / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            first, last = draw_range(draw, minutes)
            status, body = get(connection, f"/v1/unique-users?from={name(first)}&to={name(last)}")
            taken = time.perf_counter() - due
            if status != 200:
                raise AssertionError(body)
            with lock:
                timings.seconds.append(taken)

    threads = [threading.Thread(target=ask, args=(client,)) for client in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return timings


def time_series(port: int, minutes: int, zone: str) -> Timings:
    """Asks for all days, each time for another last one, so that no answer was kept."""
    timings, connection = Timings(), http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    first = datetime.fromtimestamp(FIRST, timezone.utc)
    for round_ in range(10):
        last = first + timedelta(minutes=minutes) - timedelta(hours=round_)
        began = time.perf_counter()
        path = f"/v1/series?period=day&from={name(first)}&to={name(last)}&timezone={zone}"
        status, body = get(connection, path)
        timings.seconds.append(time.perf_counter() - began)
        if status != 200:
            raise AssertionError(body)
    return timings


def ask_duckdb(folder: Path, first: datetime, last: datetime) -> int:
    """The same rows, read by DuckDB from the Parquet files of both tables, united by datasketches.

    Its own functions for sketches and for Delta are extensions that are downloaded; these tables have no deletion
    vectors, so their files are all there is to read.
    """
    hour = timedelta(hours=1)
    head = first if first == floor_hour(first) else min(floor_hour(first) + hour, last)
    tail = max(floor_hour(last), head)
    rows = duckdb.execute(
        """SELECT sketch FROM read_parquet($rollups, hive_partitioning = true)
           WHERE period <> 'week' AND period_start >= $first AND period_end <= $last
             AND NOT coalesce(parent_start >= $first AND parent_end <= $last, false)
           UNION ALL SELECT sketch FROM read_parquet($minutes)
           WHERE (window_start >= $first AND window_end <= $head) OR (window_start >= $tail AND window_end <= $last)""",
        {
            "rollups": f"{folder}/rollups/*/*.parquet",
            "minutes": f"{folder}/minutes/*.parquet",
            "first": first,
            "last": last,
            "head": head,
            "tail": tail,
        },
    ).fetchall()
    union = hll_union(LG_K)
    for (sketch,) in rows:
        union.update(hll_sketch.deserialize(sketch))
    united = union.get_result(tgt_hll_type.HLL_8)
    union.update(united)
    return int(union.get_estimate() + 0.5)


def floor_hour(time_: datetime) -> datetime:
    """The full hour before a time, or the time."""
    return time_.replace(minute=0)


def ask_spark(folder: Path, first: datetime, last: datetime) -> tuple[float, int]:
    """Seconds and answer of `rollup_users.py --between`."""
    command = [str(Path(sys.executable).parent / "spark-submit"), "--conf", "spark.ui.enabled=false"]
    command += ["jobs/rollup_users.py", "--between", f"{name(first)}Z", f"{name(last)}Z"]
    command += ["--minutes-table", f"{folder}/minutes", "--rollups-table", f"{folder}/rollups"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"service: error: --between ended with status {done.returncode}: {done.stderr[-500:]}")
    return time.monotonic() - began, int(json.loads(done.stdout.splitlines()[-1])["unique_users"])


def compare(folder: Path, port: int, minutes: int, rounds: int) -> list[tuple[str, str]]:
    """The same questions to the service, to DuckDB and to Spark, in turn."""
    draw, connection = random.Random(99), http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    times: dict[str, Timings] = {"service": Timings(), "duckdb": Timings(), "spark": Timings()}
    for _ in range(rounds):
        first, last = draw_range(draw, minutes)
        began = time.perf_counter()
        _, body = get(connection, f"/v1/unique-users?from={name(first)}&to={name(last)}")
        times["service"].seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        by_duckdb = ask_duckdb(folder, first, last)
        times["duckdb"].seconds.append(time.perf_counter() - began)
        seconds, by_spark = ask_spark(folder, first, last)
        times["spark"].seconds.append(seconds)
        answers = {json.loads(body)["unique_users"], by_duckdb, by_spark}
        if len(answers) > 1:
            sys.exit(f"service: error: {name(first)} to {name(last)} has several answers: {answers}")
    base = times["service"].quantile(0.5)
    lines = [(f"median of {rounds}: service", f"{base:,.1f} ms")]
    for who, title in (("duckdb", "DuckDB, same files"), ("spark", "--between, its start too")):
        median = times[who].quantile(0.5)
        lines.append((f"median of {rounds}: {title}", f"{median:,.1f} ms, {median / base:,.0f} times the service"))
    return lines


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure the query service.")
    parser.add_argument("--days", type=int, default=730, help="days of minutes (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=50.0, help="questions a second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of the comparison; 0: none (default: %(default)s)")
    args = parser.parse_args()
    if args.days < 2 or args.rate <= 0 or args.seconds <= 0 or args.rounds < 0:
        parser.error("give days from 2, and numbers above 0")
    minutes = args.days * DAY_MINUTES
    print(f"machine: {describe_machine()}", flush=True)
    with tempfile.TemporaryDirectory(prefix="service-") as temporary:
        folder = Path(temporary)
        make_tables(folder, minutes)
        print(f"tables: {minutes:,} minutes; one day of them with {DENSE_USERS:,} users a minute", flush=True)
        server = Server(folder)
        try:
            lines = [("start to first answer", f"{server.cold_seconds:.2f} s")]
            load(server.port, minutes, args.rate, min(5.0, args.seconds))  # warm
            timings = load(server.port, minutes, args.rate, args.seconds)
            title = f"any range, {args.rate:g}/s from {CLIENTS} clients, {len(timings.seconds):,} questions"
            spread = ", ".join(f"{label} {timings.quantile(share):.1f} ms" for label, share in QUANTILES)
            lines.append((title, spread))
            for zone in ("UTC", "Europe/Zurich", "Asia/Kathmandu"):
                found = time_series(server.port, minutes, zone)
                lines.append((f"{args.days} days as a series, {zone}", f"median {found.quantile(0.5):.0f} ms"))
            now, most = server.read_memory()
            lines.append(("memory", f"{now:.0f} MB, at most {most:.0f} MB"))
            lines += compare(folder, server.port, minutes, args.rounds) if args.rounds else []
        finally:
            server.stop()
    width = max(len(title) for title, _ in lines)
    for title, value in lines:
        print(f"{title.ljust(width)}  {value}")


QUANTILES = (("p50", 0.5), ("p99", 0.99), ("largest", 1.0))

if __name__ == "__main__":
    main()
