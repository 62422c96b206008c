"""Delta tables in an object store: the rollup job on them, two drivers on one table, and the query service."""

from __future__ import annotations

import base64
import json
import os
import random
import shlex
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, QueryBuilder, write_deltalake
from load_events import load_lines
from service_tables import TOTAL, make_sketch
from sketch_registers import registers_of
from store_flags import BUCKET, submit_flags
from support import ROOT, SPARK_SUBMIT, plain_environment, utc
from unique_users_service.questions import unite_range
from unique_users_service.sketches import serialize
from unique_users_service.store import Store
from unique_users_service.tables import Place

if TYPE_CHECKING:
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from object_store import ObjectStore

pytestmark = pytest.mark.timeout(1500)

START = 1468244340  # 2016-07-11T13:39:00Z
COMMITS = 15


def make_record(start: int, users: list[str]) -> bytes:
    """A record as unique_users.py --sketch writes it."""
    value = {
        "window_start": utc(start),
        "window_end": utc(start + 60),
        "unique_users": len(set(users)),
        "events": len(users),
        "counter": "hll_sketch",
        "relative_error": 0.0162,
        "final": True,
        "revision": 0,
        "sketch": base64.b64encode(make_sketch(users)).decode(),
    }
    return json.dumps(value).encode()


class Rollups:
    """The rollup job from one topic into tables in a folder or in the store."""

    def __init__(self, broker: KafkaBroker, topic: str, place: str, *submit: str) -> None:
        self._submit = submit
        self.tables = [f"{place}/minutes", f"{place}/rollups"]
        self._flags = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", topic, "--rollup-topic", "off"]
        self._flags += ["--minutes-table", self.tables[0], "--rollups-table", self.tables[1]]
        self._flags += ["--checkpoint-location", f"{place}/checkpoint", "--trigger", "available-now"]

    def start(self, folder: Path, *flags: str) -> subprocess.Popen[str]:
        command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", *self._submit]
        command += [str(ROOT / "jobs" / "rollup_users.py"), *self._flags, *flags]
        environment = plain_environment()
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment, start_new_session=True
        )

    def run(self, folder: Path) -> None:
        with self.start(folder) as process:
            _, said = process.communicate()
        assert process.returncode == 0, said[-3000:]

    def kill_in_batch(self, folder: Path, batches: int) -> None:
        """Starts it with small batches, and kills it when it has told of so many."""
        with self.start(folder, "--max-offsets-per-trigger", "4") as process:
            assert process.stderr is not None
            told = (line for line in process.stderr if " records=" in line)
            for _ in range(batches):
                assert next(told, None), "the job ended by itself"
            os.killpg(process.pid, signal.SIGKILL)


def open_service(rollups: Rollups, options: dict[str, str]) -> Store:
    """The query service's view of the tables."""
    minutes, periods = rollups.tables
    store = Store(Place("--minutes-table", minutes, options), Place("--rollups-table", periods, options))
    store.refresh()
    assert store.problem is None
    return store


def read_rows(path: str, options: dict[str, str] | None) -> list[dict[str, Any]]:
    """The rows of a table of rollups; of sketches the registers."""
    table = DeltaTable(path, storage_options=options)
    rows = pa.table(QueryBuilder().register("t", table).execute("SELECT * FROM t")).to_pylist()
    found = [{**row, "sketch": registers_of(row["sketch"])} for row in rows]
    return sorted(found, key=lambda row: (row["period"], row["period_start"]))


def test_tables_killed_and_continued_answer_as_local_ones(
    broker: KafkaBroker, store: ObjectStore, tmp_path: Path, prefix: str
) -> None:
    draw = random.Random(1)
    starts = [START + 60 * minute for minute in range(12)] + [START + 86_400 * day for day in range(1, 9)]
    minutes = {start: [f"u{draw.randrange(400)}" for _ in range(50)] for start in starts}
    topic = f"{prefix}-out"
    broker.create_topic(topic)
    load_lines([make_record(*minute) for minute in minutes.items()], broker.bootstrap_servers, topic)
    far = Rollups(broker, topic, f"s3a://{BUCKET}/{prefix}", *submit_flags(store))
    near = Rollups(broker, topic, str(tmp_path / "tables"))
    for batches in (1, 2):
        far.kill_in_batch(tmp_path, batches)
    far.run(tmp_path)
    near.run(tmp_path)

    options = store.delta_options()
    assert read_rows(far.tables[1], options) == read_rows(near.tables[1], None)
    there, here = open_service(far, options), open_service(near, {})
    for first, last in [(START, START + 720), (START - 3_600, START + 9 * 86_400), (START + 60, START + 86_460)]:
        answers = [unite_range(each.state, TOTAL, (first, last)) for each in (there, here)]
        there_registers, here_registers = (registers_of(serialize(answer.sketch)) for answer in answers)
        assert there_registers == here_registers
        exact = [users for start, users in minutes.items() if first <= start < last]
        assert [answer.events for answer in answers] == [sum(map(len, exact))] * 2
        wanted = len({user for users in exact for user in users})
        assert abs(answers[0].sketch.estimate() / wanted - 1) <= 3 * answers[0].sketch.relative_error


def start_writer(store: ObjectStore, table: str, name: str) -> subprocess.Popen[str]:
    """A driver that appends COMMITS rows, once it is told to."""
    # Not by spark-submit, which gives a Python driver no standard input.
    command = [sys.executable, str(ROOT / "tests" / "object_store" / "append_rows.py"), table, name, str(COMMITS)]
    flags = shlex.join(["--conf", "spark.ui.enabled=false", *submit_flags(store), "pyspark-shell"])
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT / "jobs"), "PYSPARK_SUBMIT_ARGS": flags}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def test_two_drivers_lose_no_commit_of_one_table(store: ObjectStore, prefix: str) -> None:
    table, options = f"s3a://{BUCKET}/{prefix}/shared", store.delta_options()
    write_deltalake(
        table, pa.table({"writer": ["first"], "number": pa.array([0], pa.int32())}), storage_options=options
    )
    with start_writer(store, table, "a") as a, start_writer(store, table, "b") as b:
        for writer in (a, b):
            assert writer.stdout is not None
            assert any(line == "ready\n" for line in writer.stdout)
        for writer in (a, b):
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [a.wait(), b.wait()] == [0, 0]
    found = DeltaTable(table, storage_options=options)
    rows = pa.table(QueryBuilder().register("t", found).execute("SELECT writer, number FROM t")).to_pylist()
    wanted = [("first", 0), *((name, number) for name in "ab" for number in range(COMMITS))]
    assert sorted((row["writer"], row["number"]) for row in rows) == sorted(wanted)
    refused = [request for request in store.requests() if request.status == 412 and f"{prefix}/shared" in request.key]
    assert refused, "the drivers never met, so this test has shown nothing"
