"""The short version of `make test-faults`: a kill of the broker, one of the driver, and the backlog after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, compare_with_exact

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker


@pytest.mark.timeout(500)
def test_kills_lose_nothing_repeat_nothing_and_leave_a_backlog_that_is_worked_off_in_bounded_batches(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in", 2), new_topic("out")
    stream = Stream(broker, source, seed=4)
    job = Job(
        broker, tmp_path, source, sink, "--exactly-once", "--counter", "exact", "--max-offsets-per-trigger", "1000"
    )
    stream.load(3_000)
    job.start()
    job.wait_for_batches(1)
    broker.kill()
    broker.start()
    seen = len(job.batches())
    stream.load(1_000)
    job.wait_for_batches(seen + 1)
    job.kill()
    stream.load(4_000)
    job.finish()
    read = [int(batch["events"]) for batch in job.batches()]
    assert max(read) == 1_000
    assert sum(read) >= 4_000
    assert compare_with_exact(broker, sink, stream.exact()) == {
        "windows": len(stream.exact()),
        "repeated": 0,
        "in_order": True,
    }
