"""How a job starts, is stopped and ends: exit status, and the query in between."""

from __future__ import annotations

import logging
import os
import sys
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark.errors import PySparkException, StreamingQueryException

from uniques.errors import EXIT_FAILED, JobError
from uniques.runtime.failures import JVM_ENDED, explain_failure
from uniques.runtime.gate import BatchGate
from uniques.runtime.logs import ConsoleHandler
from uniques.runtime.session import create_session, is_on_databricks
from uniques.runtime.signals import StopSignal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

log = logging.getLogger("uniques")


BATCH_GRACE_SECONDS = 10.0
POLL_SECONDS = 0.2


def run_job(
    name: str,
    state_partitions: int,
    job: Callable[[SparkSession, StopSignal], None],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Runs `job` in a session of its own; a JobError becomes one line on stderr and its exit status.

    So does the end of the JVM, whatever ended it. Other exceptions escape, with their trace. `settings` are Spark's;
    see `create_session`.
    """
    console = ConsoleHandler(name)
    log.addHandler(console)
    log.setLevel(logging.INFO)
    log.propagate = False  # the root logger belongs to the libraries
    spark = create_session(name, state_partitions, settings)
    console.attach(spark)
    stop = StopSignal()
    stop.install(spark)
    try:
        job(spark, stop)
    except JobError as error:
        console.complain(error)
        sys.exit(error.status)
    except (Py4JNetworkError, ConnectionError):
        # Spark ends the JVM when it runs out of memory; nothing can be asked of it any more.
        console.complain(JobError(JVM_ENDED))
        os._exit(EXIT_FAILED)
    finally:
        if not is_on_databricks():
            spark.stop()


def run_until_stopped(
    query: StreamingQuery,
    stop: StopSignal,
    on_poll: Callable[[], None] = lambda: None,
    gate: BatchGate | None = None,
) -> None:
    """Waits until the query ends by itself or a stop is requested; lets a running batch finish first, for a while.

    Calls `on_poll` every POLL_SECONDS meanwhile; when that fails, the query is stopped. A batch that is not done after
    BATCH_GRACE_SECONDS is abandoned: the next start does it again from the checkpoint. A `gate` that is closed stops
    the query too; it is closed here when a stop is requested. Raises JobError with the cause in one line when the query
    failed.
    """
    gate = gate or BatchGate()
    gate.query = query
    try:
        while not query.awaitTermination(POLL_SECONDS):  # type: ignore[arg-type]
            if stop.requested:
                log.info("stopping: waiting for the running batch")
                gate.close()
            if gate.is_closed:
                wait_for_batch(query, gate)
                stop_query(query)
                return
            on_poll()
    except StreamingQueryException as error:
        failure = explain_failure(str(error))
        # Ctrl-C reaches every process of the terminal, also those that Hadoop starts to set a file's mode.
        if not stop.wait(POLL_SECONDS):
            raise failure from error
        log.info("the running batch is abandoned, the next start does it again: %s", failure)
    except JobError:
        stop_query(query)
        raise
    except Py4JNetworkError:
        raise
    except (PySparkException, Py4JError) as error:
        stop_query(query)
        raise explain_failure(str(error)) from error


def stop_query(query: StreamingQuery) -> None:
    """Stops the query; one that does not let go in STOP_SECONDS is left to end with the process."""
    try:
        query.stop()
    except Py4JError as error:
        if "failed to stop within" not in str(error):
            raise
        log.info("the running batch is abandoned: the next start does it again")


def wait_for_batch(query: StreamingQuery, gate: BatchGate) -> None:
    """Returns once the batch that runs now is done, or after BATCH_GRACE_SECONDS."""
    before = query.lastProgress
    deadline = time.monotonic() + BATCH_GRACE_SECONDS
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
        if gate.is_holding:
            return
        now = query.lastProgress
        # With a backlog one batch follows the other, and the trigger is active all the time.
        if now is not None and (before is None or now["batchId"] != before["batchId"]):
            return
        time.sleep(POLL_SECONDS / 4)
