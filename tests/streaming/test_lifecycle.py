"""How a query ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uniques.errors import JobError
from uniques.runtime.run import run_until_stopped
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from pathlib import Path

    from pyspark.sql import DataFrame, SparkSession


@pytest.mark.parametrize("stopped", [True, False])
def test_a_batch_that_fails_is_an_error_unless_a_stop_was_asked_for(
    spark: SparkSession, tmp_path: Path, stopped: bool
) -> None:
    stop = StopSignal()

    def fail(_batch: DataFrame, _number: int) -> None:
        if stopped:
            stop.handle(None)
        # What Hadoop says when Ctrl-C ends the chmod it just started.
        raise OSError("ExitCodeException exitCode=130")

    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "events").write_text("x")
    stream = spark.readStream.text(str(tmp_path / "in")).writeStream.foreachBatch(fail).start()
    if stopped:
        run_until_stopped(stream, stop, lambda: None)
    else:
        with pytest.raises(JobError, match="the query failed"):
            run_until_stopped(stream, stop, lambda: None)


def test_an_error_beside_the_query_stops_it_and_is_one_line(spark: SparkSession, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    stream = spark.readStream.text(str(tmp_path / "in")).writeStream.foreachBatch(lambda *_: None).start()

    def fail() -> None:
        spark.read.text(str(tmp_path / "gone"))  # as when punctuation can't be written

    with pytest.raises(JobError, match=r"^the query failed: .*PATH_NOT_FOUND") as failed:
        run_until_stopped(stream, StopSignal(), fail)
    assert "\n" not in str(failed.value)
    assert not stream.isActive
