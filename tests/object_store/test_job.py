"""The main job with its checkpoint in an object store: stopped, killed, with the store away, and started twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, compare_with_exact, take_over, wait_until
from store_flags import BUCKET, submit_flags
from support import ROOT, SPARK_SUBMIT, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

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


def test_a_second_instance_on_the_checkpoint(
    setting: Setting, store: ObjectStore, broker: KafkaBroker, tmp_path: Path, prefix: str
) -> None:
    stream, older = setting(store, *EXACT, "--idle-timeout", "off")
    (tmp_path / "newer").mkdir()
    newer = Job(broker, tmp_path / "newer", older.source, older.sink, *EXACT, submit=older.submit)
    newer.flags += ["--checkpoint-location", f"s3a://{BUCKET}/{prefix}/checkpoint", "--idle-timeout", "off"]
    take_over(stream, older, newer)
    check(broker, stream, newer)


def test_of_two_that_create_a_file_the_store_takes_the_first(store: ObjectStore, prefix: str) -> None:
    script = str(ROOT / "tests" / "object_store" / "create_files.py")
    command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", *submit_flags(store), script]
    environment = {**plain_environment(), "PYTHONPATH": str(ROOT / "jobs")}
    done = subprocess.run(
        [*command, f"s3a://{BUCKET}/{prefix}"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "step": {"first": "done", "another": "FileExistsError", "the same again": "done", "there": "a"},
        "batch": {
            "manager": "uniques.StoreFiles$Checkpoints",
            "first": "done",
            "another": "FileAlreadyExistsException",
            "there": "a",
        },
    }
