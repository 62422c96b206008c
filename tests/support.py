"""What the tests on a real Kafka share: the job, in process and as its users start it, and exact counts."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import patch

import pyspark
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from generate_events import Event, Settings, generate_events
from prometheus_client.parser import text_string_to_metric_families
from uniques.apps import count
from uniques.runtime.session import list_settings
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

# For whatever a test waits for. It only has to end a wait that is in vain: a busy machine takes long, and what must be
# fast, the benchmarks measure.
DEADLINE_SECONDS = 300.0

needs_state_reader = pytest.mark.skipif(pyspark.__version__ < "4", reason="Spark 3.5 can't read its state")


class Servers(Protocol):
    """A broker, a cluster, or what stands before them."""

    @property
    def bootstrap_servers(self) -> str: ...


def read_messages(broker: Servers, topic: str, isolation: str = "read_uncommitted") -> list[Message]:
    """All records of a topic with one partition, in order, as a consumer with that isolation level sees them."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": "tests",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": isolation,
        }
    )
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    messages: list[Message] = []
    while True:
        message = consumer.poll(DEADLINE_SECONDS)
        assert message is not None, f"Kafka sent nothing of {topic} in {DEADLINE_SECONDS:.0f} s"
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


def wait_for_metric(
    port: int, name: str, value: float, runs: Callable[[], bool] = lambda: True
) -> dict[str, dict[str, float]]:
    """All metrics of a job that `runs` meanwhile, as soon as that one has that value."""
    samples: dict[str, dict[str, float]] = {}

    def has_value() -> bool:
        with suppress(OSError):  # the job has not started yet
            samples.update(read_metrics(port))
        return samples.get(name, {}).get("") == value

    try:
        wait_until(has_value, runs)
    except AssertionError as error:
        pytest.fail(f"{name} is not {value}: {error}: {samples}")
    return samples


def read_records(broker: Servers, topic: str, isolation: str = "read_uncommitted") -> list[tuple[str, dict[str, Any]]]:
    """All results in a topic with one partition, `(key, value)`, in order."""
    messages = read_messages(broker, topic, isolation)
    return [((message.key() or b"").decode(), json.loads(message.value() or b"")) for message in messages]


def read_event_table() -> dict[str, tuple[bytes | None, str]]:
    """The table of records in event-format.md: what it is -> (value, what it is counted as)."""
    page = (ROOT / "docs" / "guides" / "event-format.md").read_text()
    rows = re.findall(r"^\| ([^|`]+) \| `(b'.+?|None)` \| (?:counted|`(\w+)`)([^|]*)\|$", page, re.MULTILINE)
    # The values are Python expressions, because some are as long as a book.
    return {what: (eval(value, {"__builtins__": {}}), reason or "counted") for what, value, reason, _ in rows}


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


def make_events(**settings: Any) -> list[Event]:
    return list(generate_events(Settings(**{"size": 300, "malformed": 0.01, "users": 4_000, "seed": 3, **settings})))


@contextmanager
def settings_of_job(spark: SparkSession) -> Iterator[None]:
    """Lets a job change the session's settings, and takes them back: no test may depend on those that ran before."""
    before = {name: spark.conf.get(name) for name in list_settings(1)}
    try:
        yield
    finally:
        for name, value in before.items():
            spark.conf.set(name, value or "")


class InProcess:
    """Runs the job's pipeline inside the tests' own session."""

    def __init__(self, spark: SparkSession, broker: KafkaBroker) -> None:
        self._spark = spark
        self._broker = broker

    def run(self, *flags: str, stop: StopSignal | None = None) -> None:
        """Returns when the job has ended by itself, or was stopped."""
        servers = self._broker.bootstrap_servers
        settings = count.parse_settings(["--bootstrap-servers", servers, "--rsd", "0.05", *flags])
        # No program of that name: a job that started a Python worker on an executor would fail.
        no_python = patch.object(self._spark.sparkContext, "pythonExec", "no-python-on-executors")
        with settings_of_job(self._spark), no_python:
            for name, value in list_settings(settings.running.state_partitions).items():
                self._spark.conf.set(name, value)
            count.run(self._spark, settings, stop or StopSignal())

    @contextmanager
    def running(self, *flags: str) -> Iterator[Callable[[], bool]]:
        """Runs the job in the background and stops it at the end, as a signal would; raises what the job raises.

        Gives a function that says whether it runs.
        """
        stop = StopSignal()
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(self.run, *flags, stop=stop)
            try:
                yield ended.running
            finally:
                stop.handle(None)
                ended.result()


def plain_environment() -> dict[str, str]:
    """The environment without what the tests' own session set."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SPARK", "PYSPARK"))}
    return {**kept, "SPARK_SUBMIT_OPTS": QUICK_START}


LAYOUTS = f"{ROOT}/conf/log4j2.properties,{ROOT}/conf/log4j2-json.properties"
# spark-submit's flags for JSON as the layout of all log lines, and one that Spark warns of. Spark 3.5 logs no JSON.
LOG_IN_JSON = []
if pyspark.__version__ >= "4":
    LOG_IN_JSON += ["--conf", "spark.log.structuredLogging.enabled=true", "--conf", "spark.kryoserializer.buffer.mb=1"]
    LOG_IN_JSON += ["--conf", f"spark.driver.extraJavaOptions=-Dlog4j2.configurationFile={LAYOUTS}"]


def submit_command(*flags: str, script: str = "unique_users.py") -> list[str]:
    """A job as its users start it, with flags of spark-submit; its own may follow."""
    return [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", *flags, str(ROOT / "jobs" / script)]


def read_log(stderr: str) -> list[tuple[str, str]]:
    """The job's log lines under LOG_IN_JSON, `(level, message)`; fails when there are others than Spark's warning."""
    lines = [line for line in stderr.splitlines() if "incubator" not in line]
    if not LOG_IN_JSON:
        messages = [line.partition("unique_users: ")[2] for line in lines]
        return [("ERROR" if said.startswith("error: ") else "INFO", said.removeprefix("error: ")) for said in messages]
    records = [json.loads(line) for line in lines]
    others = [record for record in records if record["logger"] != "uniques"]
    assert {record["level"] for record in others} == {"WARN"}, others
    assert "kryoserializer" in others[0]["msg"]
    return [(record["level"], record["msg"]) for record in records if record["logger"] == "uniques"]


@contextmanager
def submit(broker: KafkaBroker, folder: Path, *flags: str, zone: str = "UTC") -> Iterator[subprocess.Popen[str]]:
    """The job as its users start it, from another folder, without the virtual environment on PATH."""
    process = subprocess.Popen(
        [*submit_command(), "--bootstrap-servers", broker.bootstrap_servers, *flags],
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
    """Waits for something that `runs` meanwhile; fails when that ended, or after DEADLINE_SECONDS."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not happened():
        assert runs(), "the job ended"
        assert time.monotonic() < deadline, f"it did not happen in {DEADLINE_SECONDS:.0f} s"
        time.sleep(0.2)


def find_group(group: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if os.getpgid(int(folder.name)) == group:
                found.append(int(folder.name))
    return found
