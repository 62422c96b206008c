"""The main job with its checkpoint in an object store: stopped, killed, and with the store away."""

from __future__ import annotations

import random
import signal
import time
from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, compare_with_exact, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker
    from object_store import ObjectStore

    Setting = Callable[..., tuple[Stream, Job]]

pytestmark = pytest.mark.timeout(1200)

EXACT = ("--counter", "exact", "--correction-interval", "1 second")
AWAY_SECONDS = 20


def check(broker: KafkaBroker, stream: Stream, job: Job) -> None:
    """Drains the rest, and compares with the exact count; no record may be there twice."""
    job.finish()
    assert compare_with_exact(broker, job.sink, stream.exact())["repeated"] == 0


def test_it_is_stopped_and_goes_on_where_it_was(setting: Setting, store: ObjectStore, broker: KafkaBroker) -> None:
    stream, job = setting(store, *EXACT)
    with stream:
        for _ in range(2):
            job.start()
            job.wait_for_batches(3)
            job.signal(signal.SIGTERM)
            assert job.wait() == 0
    check(broker, stream, job)


def test_kills_of_the_driver_lose_nothing_and_repeat_nothing(
    setting: Setting, store: ObjectStore, broker: KafkaBroker
) -> None:
    stream, job = setting(store, *EXACT)
    random_ = random.Random(1)
    with stream:
        for _ in range(5):
            job.start()
            job.wait_for_batches(random_.randrange(1, 5))
            time.sleep(random_.uniform(0, 1))
            job.kill()
    check(broker, stream, job)


@pytest.mark.parametrize("how", ["paused", "killed"])
def test_a_store_that_is_away_and_back(setting: Setting, own_store: ObjectStore, broker: KafkaBroker, how: str) -> None:
    stream, job = setting(own_store, *EXACT)
    with stream:
        job.start()
        job.wait_for_batches(3)
        if how == "paused":
            own_store.pause()
        else:
            own_store.kill()
        time.sleep(AWAY_SECONDS)
        if how == "paused":
            own_store.resume()
        else:
            own_store.start()
        seen = len(job.batches())
        wait_until(lambda: len(job.batches()) > seen + 3 or job.status() is not None, 300)
        assert job.status() is None, job.error()
        job.kill()
    check(broker, stream, job)
