"""The short version of `make test-faults`: a kill of the broker, one of the driver, and the backlog after them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from faults import FINISH, Job, Stream, compare_with_exact, read_batches
from support import InProcess

if TYPE_CHECKING:
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession

LIMIT = 1_000
PARTITIONS = 2


@pytest.mark.slow
def test_kills_lose_nothing_repeat_nothing_and_leave_a_backlog_that_is_drained_in_bounded_batches(
    spark: SparkSession, own_broker: KafkaBroker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own_broker.create_topic("in", PARTITIONS)
    own_broker.create_topic("out")
    stream = Stream(own_broker, "in", seed=4)
    flags = ("--counter", "exact", "--max-offsets-per-trigger", str(LIMIT))
    job = Job(own_broker, tmp_path, "in", "out", *flags)
    stream.load(3_000)
    job.start()
    job.wait_for_batches(1)
    own_broker.kill()
    own_broker.start()
    seen = len(job.batches())
    stream.load(1_000)
    job.wait_for_batches(seen + 1)
    job.kill()
    stream.load(4_000)
    with caplog.at_level(logging.INFO, "uniques"):
        InProcess(spark, own_broker).run(*job.flags, *FINISH)
    read = [int(batch["events"]) for batch in read_batches(caplog.messages)]
    assert sum(read) >= 4_000
    assert max(read) <= LIMIT
    # No smaller than that either: Spark gives each partition its share of the limit, rounded down.
    assert sum(number >= LIMIT - PARTITIONS for number in read) >= 3
    assert compare_with_exact(own_broker, "out", stream.exact())["repeated"] == 0
