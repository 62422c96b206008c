"""How a job starts, is stopped and ends: session, signals, exit status."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException, StreamingQueryException
from pyspark.sql import SparkSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pyspark.sql.streaming.query import StreamingQuery

log = logging.getLogger("uniques")

EXIT_FAILED = 1  # starting again may help: a broker is away, a query died
EXIT_USAGE = 2  # starting again will not help: a flag, a checkpoint, a file is wrong

# What Kafka refuses a query that runs, when rights or credentials are changed under it: a sign in the trace, a line.
KAFKA_REFUSALS = {
    "TopicAuthorizationException": "Kafka does not let it use the topic {topics}: check its ACLs",
    "ClusterAuthorizationException": "Kafka does not let it write to any topic: check the ACLs",
    "SaslAuthenticationException": "Kafka refused the login: check the credentials in --kafka-config",
    "SslAuthenticationException": "the TLS handshake failed: check the trust and key store in --kafka-config",
}

BATCH_GRACE_SECONDS = 10.0
STOP_SECONDS = 10  # a batch that is abandoned has so long to let go
POLL_SECONDS = 0.2


class JobError(Exception):
    """The job can't start or go on; the message is one line for a person."""

    status = EXIT_FAILED


class UsageError(JobError):
    """A setting is wrong; starting again with the same settings will not help."""

    status = EXIT_USAGE


def gateway_of(spark: SparkSession) -> Any | None:
    """The py4j gateway to the JVM that Python drives, or None under Spark Connect, where there is none."""
    return getattr(getattr(spark, "_sc", None), "_gateway", None)


def is_on_databricks() -> bool:
    """Whether Databricks runs the session: then the JVM, its signals and its end are shared with other tasks."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


class JsonFormatter(logging.Formatter):
    """Log records as Spark's structured logging writes them: `ts`, `level`, `msg`, `logger`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        moment = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields = {"ts": moment.replace("+00:00", "Z"), "level": record.levelname, "msg": record.getMessage()}
        return json.dumps({**fields, "logger": record.name})


class ConsoleHandler(logging.Handler):
    """Log lines on the stderr of whoever started the job; stdout stays free for results.

    spark-submit joins Python's stderr to its own stdout, so under it the lines go out through the JVM.
    """

    def __init__(self, name: str) -> None:
        """Writes to Python's stderr until `attach` is called."""
        super().__init__()
        self._job = name
        formatter = logging.Formatter(f"%(asctime)s {name}: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        formatter.converter = time.gmtime
        self.setFormatter(formatter)
        self._stderr: Any = None

    def attach(self, spark: SparkSession) -> None:
        """Switches to the stderr of spark-submit when that is what started Python, and to JSON when Spark logs it."""
        if spark.conf.get("spark.log.structuredLogging.enabled", "false") == "true":
            self.setFormatter(JsonFormatter())
        gateway = gateway_of(spark)
        if gateway is not None and "PYSPARK_GATEWAY_PORT" in os.environ:
            self._stderr = gateway.jvm.java.lang.System.err

    def complain(self, error: JobError) -> None:
        """Says why the job ends: a line for a person, or a log record where those are JSON."""
        if isinstance(self.formatter, JsonFormatter):
            log.error("%s", error)
        else:
            self.say(f"{self._job}: error: {error}")

    def say(self, line: str) -> None:
        """Writes one line as it is."""
        if self._stderr is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._stderr.println(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a log record."""
        self.say(self.format(record))


def run_job(
    name: str,
    state_partitions: int,
    job: Callable[[SparkSession, StopSignal], None],
    settings: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Runs `job` in a session of its own; a JobError becomes one line on stderr and its exit status.

    Other exceptions escape, with their trace. `settings` are Spark's; see `create_session`.
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
    finally:
        if not is_on_databricks():
            spark.stop()


def create_session(app_name: str, state_partitions: int, settings: Mapping[str, str]) -> SparkSession:
    """A session with what a right result needs: UTC, and the number of state partitions.

    And with `settings`, but not on Databricks, which has its own of what an open Spark needs for Delta.
    """
    builder = (
        SparkSession.builder.appName(app_name)
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", state_partitions)
        # Spark's default is to wait for ever.
        .config("spark.sql.streaming.stopTimeout", f"{STOP_SECONDS}s")
    )
    if not is_on_databricks():
        for name, value in settings.items():
            builder = builder.config(name, value)
    return builder.getOrCreate()


class StopSignal:
    """SIGINT and SIGTERM as a flag, wherever they arrive.

    Under spark-submit the process that an operator or Kubernetes signals is the JVM, with Python as its child. Its
    default is to tear Spark down at once and end with status 143; so the JVM's handlers are replaced as well. That is
    the one use of `_jvm`, left out where there is none (Spark Connect): there the signal reaches Python.
    """

    class Java:
        """The Java interface that `handle` implements, for py4j."""

        implements = ("sun.misc.SignalHandler",)

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self._requested = threading.Event()

    def install(self, spark: SparkSession) -> None:
        """Takes over both signals; to be called from the main thread once the session exists."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._requested.set())
        gateway = gateway_of(spark)
        if gateway is None or is_on_databricks():
            return
        from pyspark.java_gateway import ensure_callback_server_started

        ensure_callback_server_started(gateway)  # type: ignore[no-untyped-call]
        misc = gateway.jvm.sun.misc
        for name in ("INT", "TERM"):
            misc.Signal.handle(misc.Signal(name), self)

    def handle(self, _signal: object) -> None:
        """Called from the JVM when a signal reached it."""
        self._requested.set()

    def wait(self, seconds: float) -> bool:
        """Whether somebody asked to stop, or does within that time."""
        return self._requested.wait(seconds)

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._requested.is_set()


def run_until_stopped(
    query: StreamingQuery, stop: StopSignal, on_poll: Callable[[StreamingQuery], None] = lambda _query: None
) -> None:
    """Waits until the query ends by itself or a stop is requested; lets a running batch finish first, for a while.

    Calls `on_poll` every POLL_SECONDS meanwhile. A batch that is not done after BATCH_GRACE_SECONDS is abandoned: the
    next start does it again from the checkpoint. Raises JobError with the cause in one line when the query failed.
    """
    try:
        while not query.awaitTermination(POLL_SECONDS):  # type: ignore[arg-type]
            if stop.requested:
                log.info("stopping: the running batch is finished first")
                wait_for_batch(query)
                stop_query(query)
                return
            on_poll(query)
    except StreamingQueryException as error:
        failure = explain_failure(str(error))
        # Ctrl-C reaches every process of the terminal, those too that Hadoop starts for a moment to set a file's mode.
        if not stop.wait(POLL_SECONDS):
            raise failure from error
        log.info("the running batch is abandoned, the next start does it again: %s", failure)
    except JobError:
        stop_query(query)
        raise


def stop_query(query: StreamingQuery) -> None:
    """Stops the query; one that does not let go in STOP_SECONDS is left to end with the process."""
    try:
        query.stop()
    except Py4JError as error:
        if "failed to stop within" not in str(error):
            raise
        log.info("the running batch is abandoned: the next start does it again")


def wait_for_batch(query: StreamingQuery) -> None:
    """Returns once the batch that runs now is done, or after BATCH_GRACE_SECONDS."""
    before = query.lastProgress
    deadline = time.monotonic() + BATCH_GRACE_SECONDS
    while query.isActive and query.status["isTriggerActive"] and time.monotonic() < deadline:
        now = query.lastProgress
        # With a backlog one batch follows the other, and the trigger is active all the time.
        if now is not None and (before is None or now["batchId"] != before["batchId"]):
            return
        time.sleep(POLL_SECONDS / 4)


@contextmanager
def explained_failures() -> Iterator[None]:
    """Raises JobError with the cause in one line when Spark fails at what is done inside."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise explain_failure(str(error)) from error


# What a failed query says somewhere in its message or trace, what it means, and the way out.
KNOWN_FAILURES = {
    "Some data may have been lost": "events of the input topic are gone before they were read: retention removed them, "
    "or the topic was deleted and made anew; take another --checkpoint-location, which starts with what there is",
    "UnknownTopicOrPartitionException": "a topic was deleted, it does not exist any more: create it and start again",
    "No space left on device": "no space left on the disk of --checkpoint-location, or of Spark's local folders: make "
    "room and start again, it goes on where it was",
    "Disk quota exceeded": "the disk quota of --checkpoint-location, or of Spark's local folders, is full: make room "
    "and start again, it goes on where it was",
    "CONCURRENT_STREAM_LOG_UPDATE": "another instance runs on the same --checkpoint-location: stop one of the two",
}


def explain_failure(message: str) -> JobError:
    """A failed query as an error of one line: a known cause with the way out, or else what Spark says first.

    A Python package that executors lack is named; Spark buries that in the trace of a worker.
    """
    for sign, explanation in KNOWN_FAILURES.items():
        if sign in message:
            # There a restart ends in the same way.
            kind = UsageError if sign == "Some data may have been lost" else JobError
            return kind(f"the query failed: {explanation}")
    missing = re.search(r"ModuleNotFoundError: No module named '([^'.]+)", message)
    if missing:
        return JobError(
            f"the query failed: executors lack the Python package {missing[1]}, which a flag needs: install it there"
        )
    refusal = next((text for sign, text in KAFKA_REFUSALS.items() if sign in message), None)
    if refusal:
        topics = re.search(r"Not authorized to access topics: \[(.+?)\]", message)
        return JobError(f"the query failed: {refusal.format(topics=topics[1] if topics else 'it uses')}")
    # Of what failed in foreachBatch Spark says only that; the cause stands behind the trace of Python.
    inner = re.search(r"^: (.+)", message, re.MULTILINE) if "FOREACH_BATCH_USER_FUNCTION_ERROR" in message else None
    lines = [inner[1]] if inner else [line.strip() for line in message.splitlines() if line.strip()]
    return JobError(f"the query failed: {lines[0]}" if lines else "the query failed")
