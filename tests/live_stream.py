"""A live stream for the fault tests: events that happen now, sent as they happen, and counted exactly."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from support import DEADLINE_SECONDS, read_messages, utc

if TYPE_CHECKING:
    from types import TracebackType

    from kafka_broker import KafkaBroker

EVENTS_PER_SECOND = 100
WINDOW_SECONDS = 60
USERS = 3_000
# One in a hundred is late, so that windows are corrected; the others are late by less than the default watermark.
LATE_SHARE = 0.01
LATE_SECONDS = 600
MAX_DELAY_SECONDS = 4


class ExactCount:
    """Counts what producers sent, in Python sets."""

    def __init__(self) -> None:
        """Nothing was sent yet."""
        self._users: dict[int, set[str]] = defaultdict(set)
        self._events: Counter[int] = Counter()

    def add(self, ts: int, uid: str) -> None:
        """Adds an event."""
        start = ts - ts % WINDOW_SECONDS
        self._users[start].add(uid)
        self._events[start] += 1

    def windows(self) -> dict[str, tuple[int, int]]:
        """Window start -> (unique users, events)."""
        return {utc(start): (len(self._users[start]), self._events[start]) for start in sorted(self._users)}

    def last_end(self) -> int:
        """The end of the latest window, unix seconds."""
        return max(self._users) + WINDOW_SECONDS


class LiveStream:
    """Events of now in a topic, sent by a thread; a context manager.

    Their times and users are drawn from a seed. `hold` keeps the producer from sending; what happens meanwhile is sent
    by `go_on`, with the times at which it happened.
    """

    def __init__(
        self, broker: KafkaBroker, topic: str, partitions: int, seed: int, late_share: float = LATE_SHARE
    ) -> None:
        """Sends nothing yet."""
        self._topic = topic
        self._partitions = partitions
        self._random = random.Random(seed)
        self._late_share = late_share
        self._producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # for ever: the broker will be back
                "linger.ms": 5,
                "retry.backoff.max.ms": 200,
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._flows = threading.Event()
        self._flows.set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.exact = ExactCount()
        self.sent = 0

    def __enter__(self) -> LiveStream:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def hold(self) -> None:
        """Sends nothing until `go_on`; returns once the broker has all before."""
        self._flows.clear()
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def go_on(self) -> None:
        """Sends what has happened meanwhile, then goes on."""
        self._flows.set()

    def stop(self) -> None:
        """Ends the stream once the broker has all of it."""
        self._stop.set()
        self._flows.set()
        self._thread.join()
        assert self._producer.flush(DEADLINE_SECONDS) == 0

    def _run(self) -> None:
        began = time.time()
        while not self._stop.is_set():
            happens = began + self.sent / EVENTS_PER_SECOND
            self._stop.wait(max(0.0, happens - time.time()))
            self._flows.wait()
            self._send(happens, began)

    def _send(self, happens: float, began: float) -> None:
        late = self._random.random() < self._late_share
        delay = self._random.uniform(0, LATE_SECONDS if late else MAX_DELAY_SECONDS)
        # None is of a window before the first: those would have late events alone, and be published behind later ones.
        ts, uid = int(max(began, happens - delay)), f"u{self._random.randrange(USERS)}"
        self._producer.produce(
            self._topic, json.dumps({"ts": ts, "uid": uid}).encode(), partition=self.sent % self._partitions
        )
        self._producer.poll(0)
        self.exact.add(ts, uid)
        self.sent += 1


def when_written(broker: KafkaBroker, topic: str) -> dict[str, list[float]]:
    """Window start -> when each of its records was written, by the clock, in order."""
    times: dict[str, list[float]] = defaultdict(list)
    for message in read_messages(broker, topic, "read_committed"):
        times[(message.key() or b"").decode()].append(message.timestamp()[1] / 1000)
    return times


def wait_for_second(second: int) -> int:
    """Waits until a minute is so old; returns its start, unix seconds."""
    time.sleep((second - time.time()) % WINDOW_SECONDS)
    now = int(time.time())
    return now - now % WINDOW_SECONDS
