from __future__ import annotations

import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from pyspark.sql.streaming.listener import QueryTerminatedEvent
from uniques.apps.backfill import StagedBatches
from uniques.runtime.listener import ProgressListener
from uniques.runtime.run import run_job
from uniques.state.accounting import Accounting

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.mark.usefixtures("main_in_session")
def test_on_databricks_the_session_that_other_tasks_share_lives_on(spark: SparkSession) -> None:
    seen = []
    run_job("test", 3, lambda session, _stop: seen.append(session.conf.get("spark.sql.shuffle.partitions")))
    assert seen == ["3"]
    assert spark.range(2).count() == 2


def test_the_end_of_a_run_is_awaited_though_spark_tells_of_its_start_late(caplog: pytest.LogCaptureFixture) -> None:
    # As under Spark Connect: the first run has ended, and of the second one not even the start is known.
    listener = ProgressListener(StagedBatches(Accounting()))
    runs = [uuid.uuid4(), uuid.uuid4()]
    for run in runs:
        listener.start(SimpleNamespace(start=lambda run=run: SimpleNamespace(runId=run)))  # type: ignore[arg-type]
    listener.onQueryTerminated(QueryTerminatedEvent(runs[0], runs[0], None, None))
    with caplog.at_level("WARNING", "uniques"):
        listener.wait_until_ended(0.1)
    assert caplog.messages == ["Spark did not report the last batches in time: the summary lacks them"]
    caplog.clear()
    listener.onQueryTerminated(QueryTerminatedEvent(runs[1], runs[1], None, None))
    listener.wait_until_ended(0.1)
    assert caplog.messages == []
