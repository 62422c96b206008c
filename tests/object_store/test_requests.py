"""How many requests a batch costs, and an idle minute; the figures go to build/object-store.txt."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from support import ROOT
from uniques.runtime.local_files import MANAGER_SETTING

if TYPE_CHECKING:
    from collections.abc import Callable

    from faults import Job, Stream
    from object_store import ObjectStore, Request

pytestmark = pytest.mark.timeout(1200)

# Those of Job are for faults.
DEFAULTS = ("--window", "1 minute", "--watermark", "5 seconds")
SPARKS_OWN = "org.apache.spark.sql.execution.streaming.checkpointing.FileContextBasedCheckpointFileManager"
BATCHES = 20
IDLE_SECONDS = 20
REPORT = ROOT / "build" / "object-store.txt"


def describe(requests: list[Request], times: float) -> str:
    """How many requests of each kind there are, in one of so many times."""
    kinds = Counter(request.kind for request in requests)
    parts = [f"{kind} {kinds[kind] / times:.1f}" for kind in ("PUT", "LIST", "HEAD", "GET", "DELETE") if kinds[kind]]
    return f"{len(requests) / times:.1f} requests: {', '.join(parts)}"


@pytest.mark.parametrize(("manager", "most"), [("the job's", 25), ("Spark's", 130)], ids=["own", "spark"])
def test_requests_of_a_batch(
    setting: Callable[..., tuple[Stream, Job]], own_store: ObjectStore, manager: str, most: int
) -> None:
    stream, job = setting(own_store, *DEFAULTS)
    if manager == "Spark's":
        job.submit += ["--conf", f"{MANAGER_SETTING}={SPARKS_OWN}"]
    with stream:
        job.start()
        job.wait_for_batches(5)
        before, first = len(own_store.requests()), len(job.batches())
        job.wait_for_batches(first + BATCHES)
        after, last = len(own_store.requests()), len(job.batches())
    requests = own_store.requests()[before:after]
    lines = [f"{manager} manager of checkpoints, a batch: {describe(requests, last - first)}"]
    # The last window is still open; until it has ended by the clock nothing happens.
    time.sleep(5)
    before = len(own_store.requests())
    time.sleep(IDLE_SECONDS)
    idle = own_store.requests()[before:]
    lines.append(f"{manager} manager of checkpoints, an idle second: {describe(idle, IDLE_SECONDS)}")
    job.kill()
    REPORT.parent.mkdir(exist_ok=True)
    with REPORT.open("a") as report:
        report.write("".join(f"{line}\n" for line in lines))
    print("\n".join(lines))
    assert len(requests) <= most * (last - first)
    if manager == "the job's":
        assert not [request for request in requests if request.key.endswith(".tmp")]
