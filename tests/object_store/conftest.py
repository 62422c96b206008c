"""What the tests of an object store share: a store, a broker, and what spark-submit needs to reach the store."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from faults import make_jobs
from kafka_broker import KafkaBroker
from object_store import ObjectStore
from store_flags import BUCKET, submit_flags

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from faults import Job, Stream


@pytest.fixture(scope="session")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as running:
        yield running


@pytest.fixture(scope="session")
def store() -> Iterator[ObjectStore]:
    """A store that no test stops; see `own_store`."""
    with ObjectStore() as running:
        running.create_bucket(BUCKET)
        yield running


@pytest.fixture
def own_store() -> Iterator[ObjectStore]:
    """A store for one test, which may pause and kill it."""
    with ObjectStore() as running:
        running.create_bucket(BUCKET)
        yield running


@pytest.fixture
def prefix() -> str:
    """A prefix of keys for one test."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def setting(broker: KafkaBroker, tmp_path: Path, prefix: str) -> Iterator[Callable[..., tuple[Stream, Job]]]:
    """Makes a stream into a new topic, and a job from there with its checkpoint in a store; killed at the end."""
    with make_jobs(broker, tmp_path, seed=1) as make:

        def make_there(store: ObjectStore, *flags: str) -> tuple[Stream, Job]:
            checkpoint = f"s3a://{BUCKET}/{prefix}/checkpoint"
            return make(prefix, "--checkpoint-location", checkpoint, *flags, submit=submit_flags(store))

        yield make_there
