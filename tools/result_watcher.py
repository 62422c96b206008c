"""Watches a topic of results: when each result was written, and when a consumer received it."""

from __future__ import annotations

import json
import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, TopicPartition

if TYPE_CHECKING:
    from types import TracebackType


class Result(NamedTuple):
    """The times of a result that was received, all in unix seconds."""

    window_end: float
    written: float
    arrived: float


class ResultWatcher:
    """A context manager that records the results of a topic with one partition, as a read_committed consumer."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        """Reads nothing yet. `seen` will hold the results in order."""
        self.seen: list[Result] = []
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": f"watch-{topic}",
                "isolation.level": "read_committed",
                "reconnect.backoff.max.ms": 200,
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, 0, 0)])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ResultWatcher:
        """Begins to read."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def first_after(self, moment: float) -> Result | None:
        """The first result that was written after a moment; None when there is none yet."""
        return next((result for result in list(self.seen) if result.written > moment), None)

    def delays(self, since: float, until: float) -> list[float]:
        """Seconds from a window's end to the arrival of its result, of the windows that ended in `[since, until)`."""
        return [result.arrived - result.window_end for result in list(self.seen) if since <= result.window_end < until]

    def _watch(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                arrived = time.time()
                end = json.loads(message.value() or b"")["window_end"]
                ended = datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp()
                self.seen.append(Result(ended, message.timestamp()[1] / 1000, arrived))
