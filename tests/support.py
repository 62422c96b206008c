"""What the tests on a real Kafka share: the job, in process and as its users start it, and exact counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import defaultdict
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyspark
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from datasketches import hll_sketch
from generate_events import Event, Settings, generate_events
from prometheus_client.parser import text_string_to_metric_families
from pyspark.sql import functions as F
from uniques.apps import count
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from confluent_kafka import Message
    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[1]
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"

# For JVMs that live for seconds: compiling for the long run takes nearly half of their time.
QUICK_START = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"

# What `--timestamp-guard neighbours` is made of.
needs_arrow_udf = pytest.mark.skipif(not hasattr(F, "arrow_udf"), reason="Arrow functions need Spark 4.1")

needs_state_reader = pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3.5 can't read its state")


def read_messages(broker: KafkaBroker, topic: str, isolation: str = "read_uncommitted") -> list[Message]:
    """All records of a topic with one partition, in order, as a consumer with that isolation level sees them."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "tests",
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages: list[Message] = []
    while True:
        message = consumer.poll(10)
        assert message is not None
        error = message.error()
        if error is not None:
            assert error.code() == KafkaError._PARTITION_EOF
            consumer.close()
            return messages
        messages.append(message)


def read_metrics(port: int) -> dict[str, dict[str, float]]:
    """Sample name -> value of its label `reason`, or empty -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    samples: dict[str, dict[str, float]] = {}
    for family in families:
        for sample in family.samples:
            samples.setdefault(sample.name, {})[sample.labels.get("reason", "")] = sample.value
    return samples


# For the first metrics of a job: Spark starts, and other tests run beside it.
DEADLINE_SECONDS = 120.0


def wait_for_metric(port: int, name: str, value: float) -> dict[str, dict[str, float]]:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        try:
            samples = read_metrics(port)
        except OSError:
            samples = {}  # the job has not started yet
        if samples.get(name, {}).get("") == value:
            return samples
        time.sleep(0.1)
    pytest.fail(f"{name} is not {value}: {samples}")


def read_records(
    broker: KafkaBroker, topic: str, isolation: str = "read_uncommitted"
) -> list[tuple[str, dict[str, Any]]]:
    """All results in a topic with one partition, `(key, value)`, in order."""
    messages = read_messages(broker, topic, isolation)
    return [((message.key() or b"").decode(), json.loads(message.value() or b"")) for message in messages]


def read_headers(message: Message) -> dict[str, str]:
    """A record's headers as text, in order."""
    pairs: Any = message.headers() or []
    return {name: (value or b"").decode() for name, value in pairs}


def utc(ts: int) -> str:
    return datetime.fromtimestamp(ts, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def count_exactly(events: list[Event]) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events), by sets."""
    users = defaultdict(set)
    number: dict[str, int] = defaultdict(int)
    for event in events:
        if event.ts is not None and event.uid is not None:
            start = utc(event.ts - event.ts % 60)
            users[start].add(event.uid)
            number[start] += 1
    return {start: (len(users[start]), number[start]) for start in sorted(users)}


def assert_close(value: dict[str, Any], exact: tuple[int, int]) -> None:
    users, events = exact
    assert value["events"] == events
    assert abs(value["unique_users"] / users - 1) <= 3 * value["relative_error"]
    start = datetime.fromisoformat(value["window_start"].replace("Z", "+00:00"))
    end = datetime.fromisoformat(value["window_end"].replace("Z", "+00:00"))
    assert (end - start).total_seconds() == 60


def registers_of(sketch: bytes) -> list[int]:
    """The registers, or while there are few users the sorted entries, of a sketch: what its estimate follows from."""
    data = bytes(hll_sketch.deserialize(sketch).serialize_compact())
    preamble = 4 * data[0]
    if preamble == 40:
        return list(data[preamble:])
    return sorted(int.from_bytes(data[at : at + 4], "little") for at in range(preamble, len(data), 4))


def make_events(**settings: Any) -> list[Event]:
    return list(generate_events(Settings(**{"size": 300, "malformed": 0.01, "users": 4_000, "seed": 3, **settings})))


class InProcess:
    """Runs the job's pipeline inside the tests' own session."""

    def __init__(self, spark: SparkSession, broker: KafkaBroker) -> None:
        self._spark = spark
        self._broker = broker

    def run(self, *flags: str, stop: StopSignal | None = None) -> None:
        """Returns when the job has ended by itself, or was stopped."""
        servers = self._broker.bootstrap_servers
        settings = count.parse_settings(["--bootstrap-servers", servers, "--rsd", "0.05", *flags])
        zone = self._spark.conf.get("spark.sql.session.timeZone")
        self._spark.conf.set("spark.sql.session.timeZone", "UTC")
        self._spark.conf.set("spark.sql.shuffle.partitions", settings.running.state_partitions)
        try:
            count.run(self._spark, settings, stop or StopSignal())
        finally:
            self._spark.conf.set("spark.sql.session.timeZone", zone or "")

    @contextmanager
    def running(self, *flags: str) -> Iterator[None]:
        """Runs the job in the background and stops it at the end, as a signal would."""
        stop = StopSignal()
        thread = threading.Thread(target=self.run, args=flags, kwargs={"stop": stop})
        thread.start()
        try:
            yield
        finally:
            stop.handle(None)
            thread.join()


def plain_environment() -> dict[str, str]:
    """The environment without what the tests' own session set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK"))}
    return {**kept, "SPARK_SUBMIT_OPTS": QUICK_START}


@contextmanager
def submit(broker: KafkaBroker, folder: Path, *flags: str, zone: str = "UTC") -> Iterator[subprocess.Popen[str]]:
    """The job as its users start it, from another folder, without the virtual environment on PATH."""
    command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", str(ROOT / "jobs" / "unique_users.py")]
    process = subprocess.Popen(
        [*command, "--bootstrap-servers", broker.bootstrap_servers, *flags],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=folder,
        env={**plain_environment(), "TZ": zone},
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def wait_until(happened: Callable[[], bool], runs: Callable[[], bool]) -> None:
    """Waits for something that `runs` meanwhile; fails when that ended, or after two minutes."""
    deadline = time.monotonic() + 120
    while not happened():
        assert runs(), "the job ended"
        assert time.monotonic() < deadline, "it did not happen in two minutes"
        time.sleep(0.5)


def find_group(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getpgid(int(folder.name)) == group:
                found.append(int(folder.name))
    return found
