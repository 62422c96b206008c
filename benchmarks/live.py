"""A live stream for the real job: events of now at an exact pace, and the job as its users start it, again and again.

    python benchmarks/live.py --bootstrap-servers localhost:9092 --topic in --rate 10000 --seconds 60

A process of its own sends the events, each stamped with the second it is sent in. Their 2 kB are made beforehand, and a
tick sends what has become due since the last one, so that ten thousand a second cost little of a core. At its end it
says how far it fell behind its schedule.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from generate_events import FILLERS, make_fillers, positive, positive_rate
from soak import ROOT, SPARK_SUBMIT, read_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

EVENT_BYTES = 2_000
USERS = 100_000
TICK_SECONDS = 0.005
POLL_SECONDS = 0.02
START_SECONDS = 300.0


@dataclass(frozen=True)
class Pace:
    """How a stream was sent: how many events, and how long at most one was sent after it was due, in seconds."""

    sent: int
    behind: float
    behind_median: float


class PacedProducer:
    """Makes and sends events; `shift` is added to their time, in seconds."""

    def __init__(self, servers: str, topic: str, partitions: int, shift: int = 0) -> None:
        """Makes the long part of all events."""
        random_ = random.Random(1)
        self._fillers = make_fillers(random_, EVENT_BYTES)
        self._uids = [b"%020x" % random_.getrandbits(80) for _ in range(USERS)]
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "acks": "all",
                "enable.idempotence": True,
                "linger.ms": 5,
                "batch.size": 1_000_000,
                "queue.buffering.max.messages": 200_000,
                "log_level": 0,
            }
        )
        self._topic, self._partitions, self._shift = topic, partitions, shift
        self.sent = 0

    def send(self, now: float) -> None:
        """Sends one event of that time; waits while too many are on their way."""
        number = self.sent
        # Strides that meet every user and filler, for less than a random number costs.
        uid, filler = self._uids[number * 7_919 % USERS], self._fillers[number * 31 % FILLERS]
        line = b'{"ts":%d,%s,"uid":"%s"}' % (int(now) + self._shift, filler, uid)
        while True:
            try:
                self._producer.produce(self._topic, line, partition=number % self._partitions)
                break
            except BufferError:
                self._producer.poll(0.01)
        self.sent += 1

    def flush(self) -> None:
        """Returns when the broker has all events; raises RuntimeError when it does not take them."""
        if self._producer.flush(60):
            raise RuntimeError("the broker did not take all events in 60 s")

    def send_at_pace(self, rate: float, seconds: float, stopped: Callable[[], bool]) -> Pace:
        """Sends `rate` events a second until `seconds` have passed or `stopped()`."""
        started = time.monotonic()
        behind: list[float] = []
        while (elapsed := time.monotonic() - started) < seconds and not stopped():
            due = int(rate * elapsed)
            if due > self.sent:
                behind.append(elapsed - self.sent / rate)
            while self.sent < due:
                self.send(time.time())
            self._producer.poll(0)
            time.sleep(TICK_SECONDS)
        self.flush()
        ordered = sorted(behind) or [0.0]
        return Pace(self.sent, ordered[-1], ordered[len(ordered) // 2])


class Generator:
    """`live.py` as a process that sends at a pace; a context manager. `pace` is there once it has ended."""

    def __init__(self, servers: str, topic: str, rate: float, seconds: float, shift: int = 0) -> None:
        """Nothing is sent yet; it ends after `seconds` at the latest."""
        self._command = [sys.executable, str(Path(__file__).resolve()), "--bootstrap-servers", servers]
        self._command += ["--topic", topic, "--rate", str(rate), "--seconds", str(seconds), "--shift", str(shift)]
        self._process: subprocess.Popen[str] | None = None
        self.pace: Pace | None = None

    def __enter__(self) -> Generator:
        """Starts it."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, env=environment)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it in an orderly way."""
        self.stop()

    def stop(self) -> None:
        """Ends it once the broker has what was sent."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=90)
            with suppress(ValueError):  # ended before it could say anything
                self.pace = Pace(**json.loads(out))


class LiveJob:
    """`spark-submit jobs/unique_users.py`, as often as it takes, on one checkpoint; a context manager that ends it."""

    def __init__(self, servers: str, folder: Path, source: str, sink: str, *flags: str) -> None:
        """Nothing is started yet; what it writes goes into the folder."""
        self._folder = folder
        self._command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", str(ROOT / "jobs" / "unique_users.py")]
        self._command += ["--bootstrap-servers", servers, "--input-topic", source, "--output-topic", sink]
        self._command += ["--checkpoint-location", str(folder / "checkpoint"), *flags]
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    def __enter__(self) -> LiveJob:
        """Does not start it: `start` does."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kills it."""
        self.kill()

    @property
    def log(self) -> Path:
        """What the running one says."""
        return self._folder / f"job-{self._starts}.log"

    def start(self) -> float:
        """Starts it, in a process group of its own; returns when, in unix seconds."""
        self._starts += 1
        with self.log.open("wb") as log:
            began = time.time()
            self._process = subprocess.Popen(
                self._command, stderr=log, stdout=subprocess.DEVNULL, start_new_session=True
            )
        return began

    def kill(self) -> float:
        """`kill -9` of all its processes; returns when, in unix seconds."""
        moment = time.time()
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        return moment

    def batches(self) -> list[dict[str, str]]:
        """The batches the running one has told of."""
        return read_batches(self.log)

    def wait_for(self, found: Callable[[], object], what: str, seconds: float = START_SECONDS) -> float:
        """Returns the moment `found()` is true; raises RuntimeError when the job ends or the time is up."""
        deadline = time.monotonic() + seconds
        while not found():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                said = self.log.read_text(errors="replace").splitlines()[-3:]
                raise RuntimeError(f"{what}: {'the job ended' if ended else f'not in {seconds:.0f} s'}: {said}")
            time.sleep(POLL_SECONDS)
        return time.time()


@contextmanager
def stop_signal() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set."""
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    yield stopped


def main() -> None:
    """Sends at a pace, and says as JSON how that went."""
    parser = argparse.ArgumentParser(description="Events of now at an exact pace.")
    parser.add_argument("--bootstrap-servers", default="localhost:9092", help="(default: %(default)s)")
    parser.add_argument("--topic", default="in", help="(default: %(default)s)")
    parser.add_argument("--partitions", type=positive, default=2, help="of the topic (default: %(default)s)")
    parser.add_argument("--rate", type=positive_rate, default=1_000.0, help="events a second (default: %(default)s)")
    parser.add_argument("--seconds", type=positive_rate, default=60.0, help="(default: %(default)s)")
    parser.add_argument("--shift", type=int, default=0, help="seconds added to each ts (default: %(default)s)")
    args = parser.parse_args()
    with stop_signal() as stopped:
        producer = PacedProducer(args.bootstrap_servers, args.topic, args.partitions, args.shift)
        print(json.dumps(asdict(producer.send_at_pace(args.rate, args.seconds, stopped.is_set))))


if __name__ == "__main__":
    main()
