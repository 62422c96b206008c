"""What the fault tests share: a stream that never stops, the job as a process, and the comparison with exact counts.

Everything drawn is drawn from a seed. The stream keeps its own exact count, in Python sets, of every event that the
broker took. The job's results are compared with that count, and with those of an undisturbed run of the job.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import threading
import time
from collections import Counter, defaultdict
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from confluent_kafka import Producer
from generate_events import Settings, generate_events
from support import DEADLINE_SECONDS, plain_environment, read_records, submit_command, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from kafka_broker import KafkaBroker
    from kafka_cluster import KafkaCluster
    from result_watcher import ResultWatcher
    from support import Servers

WINDOW_SECONDS = 10
# Ten seconds of event time in one: a window is final every second.
EVENTS_PER_SECOND = 400
SPEED = 10
# Six seconds of partitions drifting apart while the broker comes back; no event is late then, whatever batch it is in.
WATERMARK = "1 minute"
# Drains what is left and closes all windows; "off" would leave them open.
FINISH = ("--trigger", "available-now", "--idle-timeout", "1 minute")


class Stream:
    """Seeded events, loaded at a steady pace into a topic by a thread; a context manager."""

    def __init__(self, broker: Servers, topic: str, seed: int) -> None:
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "acks": "all",
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # for ever: the broker will be back
                "linger.ms": 5,
                # Small and one after the other: what waited for the broker comes to both partitions in step. Else one
                # partition runs ahead of the other, and what is behind is late.
                "batch.num.messages": 20,
                "max.in.flight.requests.per.connection": 1,
                "retry.backoff.max.ms": 200,
                "reconnect.backoff.max.ms": 200,
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 0,
            }
        )
        rate = EVENTS_PER_SECOND / SPEED
        # One in a hundred comes 30 windows late, and makes a correction.
        settings = Settings(
            events=10**9,
            rate=rate,
            size=200,
            malformed=0.01,
            users=4_000,
            max_delay=4,
            late=0.01,
            late_by=300,
            seed=seed,
        )
        self._events = generate_events(settings)
        self._users: dict[str, set[str]] = defaultdict(set)
        self._number: Counter[str] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._load, daemon=True)
        self.loaded = 0
        self.partitions = 2

    def __enter__(self) -> Stream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the stream once the broker has all of it."""
        self._stop.set()
        self._thread.join()
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def load(self, number: int) -> None:
        """Loads the next events, as fast as it goes; only while the thread does not."""
        for _ in range(number):
            self._send()
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def exact(self) -> dict[str, tuple[int, int]]:
        """Window start -> (unique users, events), of all that was loaded."""
        return {key: found for key, found in self.exact_groups().items() if " " not in key}

    def exact_groups(self) -> dict[str, tuple[int, int]]:
        """The same with the groups of `--by type` too, in the order of keys."""
        return {key: (len(self._users[key]), self._number[key]) for key in sorted(self._users)}

    def users(self) -> dict[str, set[str]]:
        """Window start -> the users of all that was loaded."""
        return {key: names for key, names in self._users.items() if " " not in key}

    def forget(self) -> None:
        """Counts from here on: what was loaded is gone."""
        self._users.clear()
        self._number.clear()

    def _load(self) -> None:
        started, first = time.monotonic(), self.loaded
        while not self._stop.is_set():
            self._send()
            self._producer.poll(max(0.0, (self.loaded - first) / EVENTS_PER_SECOND - (time.monotonic() - started)))

    def _send(self) -> None:
        event = next(self._events)
        while True:
            try:
                self._producer.produce(self._topic, event.line, partition=self.loaded % self.partitions)
                break
            except BufferError:
                self._producer.poll(0.1)
        self.loaded += 1
        if event.ts is not None and event.uid is not None:
            start = utc(event.ts - event.ts % WINDOW_SECONDS)
            for key in (start, f'{start} {{"type":"{json.loads(event.line)["type"]}"}}'):
                self._users[key].add(event.uid)
                self._number[key] += 1


class Program:
    """A job as its users start it, as often as it takes, on one checkpoint; `ended` are the lines it ended with.

    `submit` are flags of spark-submit.
    """

    script = "unique_users.py"

    def __init__(self, folder: Path, flags: Iterable[str], submit: Sequence[str] = ()) -> None:
        self.flags = list(flags)
        self.submit = list(submit)
        self.ended: list[str] = []
        self._folder = folder
        self._starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] = {}

    def start(self, *flags: str) -> None:
        """Starts it, with more flags perhaps; what it says begins anew."""
        self._starts += 1
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*submit_command(*self.submit, script=self.script), *self.flags, *flags],
                stderr=log,
                stdout=log,  # where spark-submit writes what Python writes to stderr, a trace for example
                cwd=self._folder,
                env={**plain_environment(), **self.environment},
                start_new_session=True,
            )

    def restart_if_ended(self) -> None:
        """Starts it again, as a supervisor does, when it ended by itself with one clear line and status 1."""
        if self.status() is None:
            return
        self.ended.append(self.error())
        assert self.status() == 1, self.ended[-1]
        self.start()

    @property
    def _log(self) -> Path:
        return self._folder / f"{self.script.removesuffix('.py')}-{self._starts}.log"

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to all of it: the JVM and Python."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """Ends it as a crash of its machine would, if it runs."""
        if self._process is not None:
            self.signal(signal.SIGKILL)
            self._process.wait()

    def status(self) -> int | None:
        """Its exit status, or None while it runs."""
        assert self._process is not None
        return self._process.poll()

    def wait(self, seconds: float = DEADLINE_SECONDS) -> int:
        """Its exit status, once it has ended by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def said(self) -> list[str]:
        """What it has written to stderr since it was started, in lines."""
        return self._log.read_text(errors="replace").splitlines()

    def error(self) -> str:
        """The line it ended with, among what Spark logs; fails when there is none, or a trace of Python's."""
        lines = self.said()
        errors = [line for line in lines if line.startswith(f"{self.script.removesuffix('.py')}: error: ")]
        assert len(errors) == 1, f"status {self.status()}\n" + "\n".join(lines[-30:])
        assert not any(line.startswith("Traceback") for line in lines), "\n".join(lines)
        return errors[0]


class Job(Program):
    """The job that counts, with windows of WINDOW_SECONDS."""

    def __init__(
        self, broker: Servers, folder: Path, source: str, sink: str, *flags: str, submit: Sequence[str] = ()
    ) -> None:
        self.source, self.sink = source, sink
        self.checkpoint = folder / "checkpoint"
        topics = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", sink]
        where = ["--checkpoint-location", str(self.checkpoint)]
        windows = ["--window", f"{WINDOW_SECONDS} seconds", "--watermark", WATERMARK]
        super().__init__(folder, [*topics, *where, *windows, *flags], submit)

    def batches(self) -> list[dict[str, str]]:
        """The batches it has told of since it was started: `name=value` of their lines."""
        return read_batches(self.said())

    def wait_for_batches(self, number: int, seconds: float = DEADLINE_SECONDS) -> None:
        """Returns once it has told of that many batches since its start; fails when it ends before."""
        deadline = time.monotonic() + seconds
        while len(self.batches()) < number:
            if self.status() == 1 and not self.batches() and "did not answer" in self.error():
                self.start()  # as an orchestrator would
            assert self.status() is None, "\n".join(self.said()[-10:])
            assert time.monotonic() < deadline, "\n".join(self.said()[-10:])
            time.sleep(0.05)

    def log_file(self, log: str) -> Path:
        """The last file of one of Spark's logs in the checkpoint, `offsets` or `commits`."""
        return max((self.checkpoint / "query" / log).glob("[0-9]*"), key=lambda file: int(file.name))

    def forget_steps(self) -> None:
        """Takes the step log back to the last step that sent records, as if nothing had been noted since."""
        steps = sorted((file for file in (self.checkpoint / "steps").glob("[0-9]*")), key=lambda file: int(file.name))
        while not json.loads(steps[-1].read_text().splitlines()[0])["sent"]:
            steps.pop().unlink()

    def finish(self) -> None:
        """Drains what is left and closes all windows."""
        self.start(*FINISH)
        if self.wait() == 1 and "did not answer" in self.error():
            self.start(*FINISH)
        assert self.wait() == 0, f"status {self.status()}\n" + "\n".join(self.said()[-10:])


class RollupJob(Program):
    """The job that unites windows to hours and more, from one topic to tables and another topic."""

    script = "rollup_users.py"

    def __init__(self, broker: Servers, folder: Path, source: str, sink: str) -> None:
        self.sink = sink
        self.tables = folder / "tables"
        flags = ["--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--rollup-topic", sink]
        for name in ("minutes", "rollups"):
            flags += [f"--{name}-table", str(self.tables / name)]
        super().__init__(folder, [*flags, "--checkpoint-location", str(folder / "rollup-checkpoint")])


def wait_for_results(watcher: ResultWatcher, *programs: Program, number: int = 3, seconds: float = 420) -> None:
    """Returns once so many more results came; programs that end by themselves meanwhile are started again."""
    before, deadline = len(watcher.seen), time.monotonic() + seconds
    while len(watcher.seen) < before + number:
        for program in programs:
            program.restart_if_ended()
        assert time.monotonic() < deadline, "\n".join(line for program in programs for line in program.said()[-10:])
        time.sleep(0.05)


def longest_silence(watcher: ResultWatcher, since: float) -> float:
    """The longest time without a result since a moment, in seconds."""
    times = [since, *(result.arrived for result in list(watcher.seen) if result.arrived > since)]
    return max(after - before for before, after in itertools.pairwise(times))


@contextmanager
def make_jobs(
    kafka: KafkaBroker | KafkaCluster, folder: Path, seed: int
) -> Iterator[Callable[..., tuple[Stream, Job]]]:
    """A function that makes a stream into a new topic `NAME-in`, and a job from there to `NAME-out`.

    The jobs are killed at the end.
    """
    jobs = []

    def make(name: str, *flags: str, submit: Sequence[str] = ()) -> tuple[Stream, Job]:
        kafka.create_topic(f"{name}-in", 2)
        kafka.create_topic(f"{name}-out")
        jobs.append(Job(kafka, folder, f"{name}-in", f"{name}-out", *flags, submit=submit))
        return Stream(kafka, f"{name}-in", seed), jobs[-1]

    yield make
    for job in jobs:
        job.kill()


def take_over(stream: Stream, older: Job, newer: Job) -> str:
    """Starts a second instance while the first one runs; returns the line that the first one ends with."""
    try:
        with stream:
            older.start()
            older.wait_for_batches(3)
            newer.start()
            assert older.wait() in (1, 2)
            line = older.error()
            # Both may plan the same batch, and Spark lets one of them; the other is fenced off or told.
            assert "another instance" in line
            wait_until(lambda: len(newer.batches()) >= 3 or newer.status() is not None, 300)
            if newer.status() is not None:
                assert "another instance" in newer.error()
                newer.start()
                newer.wait_for_batches(3)
    finally:
        newer.kill()
    return line


def read_batches(lines: Iterable[str]) -> list[dict[str, str]]:
    """The batches that log lines tell of: `name=value` of each. A line that is being written does not count yet."""
    found = (re.search(r"\b(batch=.+) \| total ", line) for line in lines)
    return [dict(pair.split("=", 1) for pair in match[1].split()) for match in found if match]


def wait_until(condition: Any, seconds: float) -> None:
    """Returns once the condition holds; fails after that many seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"nothing happened in {seconds:.0f} s"
        time.sleep(0.05)


def compare_with_exact(broker: Servers, sink: str, exact: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Compares what a read_committed consumer sees with an exact count; fails if it differs.

    The last record of each window has to be right, and its records numbered 0, 1, 2, … in their order. Returns how many
    windows and groups there are, how many corrections, how many records came again, equal, and whether the first
    records of windows are in order of time.
    """
    records = read_records(broker, sink, isolation="read_committed")
    revisions: dict[str, list[dict[str, Any]]] = defaultdict(list)
    repeated = 0
    for key, value in records:
        known = revisions[key]
        if value["revision"] < len(known):
            assert value == known[value["revision"]], f"window {key} has two records of one revision"
            repeated += 1
        else:
            assert value["revision"] == len(known), f"window {key} lacks revision {len(known)}"
            known.append(value)
    last = {key: values[-1] for key, values in revisions.items()}
    found = {key: (value["unique_users"], value["events"]) for key, value in last.items()}
    keys = sorted(found.keys() | exact.keys())
    wrong = {key: (found.get(key), exact.get(key)) for key in keys if found.get(key) != exact.get(key)}
    some = dict(list(wrong.items())[:10])
    assert not wrong, f"{len(wrong)} of {len(exact)} are wrong, as (found, exact): {some}"
    corrections = sum(len(values) - 1 for values in revisions.values())
    return {
        "windows": len(last),
        "corrections": corrections,
        "repeated": repeated,
        "in_order": list(revisions) == sorted(revisions),
    }


def drain_and_compare(servers: Servers, stream: Stream, job: Job) -> str:
    """Lets a job without a network fault drain the rest, and compares; returns what happened, in words."""
    job.kill()
    job.finish()
    found = compare_with_exact(servers, job.sink, stream.exact())
    assert found["repeated"] == 0
    goes_on = "ends with one line and goes on when started again" if job.ended else "goes on by itself"
    return f"{goes_on}; last records of all {found['windows']} windows equal the exact count, each revision once"


def describe_seconds(values: list[float]) -> str:
    """Median and largest of durations."""
    if not values:
        return "never seen"
    ordered = sorted(values)
    return f"median {ordered[len(ordered) // 2]:.1f} s, largest {ordered[-1]:.1f} s of {len(ordered)}"


def write_json(path: Path, content: Any) -> None:
    """Writes a report."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
