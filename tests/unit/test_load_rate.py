"""The loader keeps to the rate that it is given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import load_events

if TYPE_CHECKING:
    import pytest


class EagerProducer:
    """A client whose waits end at once, as those of a real one do when a delivery is reported."""

    def __init__(self, _: dict[str, Any]) -> None:
        self.sent: list[float] = []

    def produce(self, *_: Any, **__: Any) -> None:
        self.sent.append(time.monotonic())

    def poll(self, seconds: float) -> None:
        time.sleep(min(seconds, 0.001))

    def flush(self, _: float) -> int:
        return 0


def test_no_more_than_the_rate_is_sent_however_soon_deliveries_come(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[EagerProducer] = []

    def make(settings: dict[str, Any]) -> EagerProducer:
        made.append(EagerProducer(settings))
        return made[-1]

    monkeypatch.setattr(load_events, "Producer", make)
    monkeypatch.setattr(load_events, "count_partitions", lambda *_: 1)
    began = time.monotonic()
    load_events.load_lines([b"x"] * 50, "nowhere:1", "in", rate=100.0)
    assert time.monotonic() - began >= 0.5
    assert len(made[0].sent) == 50
