from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

from uniques.lifecycle import run_job

if TYPE_CHECKING:
    import pytest
    from pyspark.sql import SparkSession


def test_on_databricks_the_session_that_other_tasks_share_lives_on(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    log = logging.getLogger("uniques")
    monkeypatch.setattr(log, "handlers", list(log.handlers))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    settings = {name: spark.conf.get(name) for name in ("spark.sql.session.timeZone", "spark.sql.shuffle.partitions")}
    seen = []
    try:
        run_job("test", 3, lambda session, _stop: seen.append(session.conf.get("spark.sql.shuffle.partitions")))
        assert seen == ["3"]
        assert spark.range(2).count() == 2
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in settings.items():
            spark.conf.set(name, value or "")
        log.propagate = True
