"""Log lines: where they go, and how they look."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from datetime import datetime, timezone
from typing import IO, TYPE_CHECKING, Any

from py4j.protocol import Py4JError

from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from uniques.errors import JobError

log = logging.getLogger("uniques")


def open_parent_stderr() -> IO[bytes] | None:
    """The stderr of the process that started Python, unbuffered; None where the system does not show it."""
    try:
        return os.fdopen(os.open(f"/proc/{os.getppid()}/fd/2", os.O_WRONLY | os.O_APPEND), "wb", buffering=0)
    except OSError:
        return None


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
        self._last_resort: IO[bytes] | None = None

    def attach(self, spark: SparkSession) -> None:
        """Switches to the stderr of spark-submit when that is what started Python, and to JSON when Spark logs it."""
        if spark.conf.get("spark.log.structuredLogging.enabled", "false") == "true":
            self.setFormatter(JsonFormatter())
        jvm = jvm_of(spark)
        if jvm is not None and "PYSPARK_GATEWAY_PORT" in os.environ:
            self._stderr = jvm.java.lang.System.err
            self._last_resort = open_parent_stderr()

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
            return
        try:
            self._stderr.println(line)
        except (Py4JError, ConnectionError):
            # The JVM has ended, and Python's own stderr with it.
            if self._last_resort is None:
                raise
            self._last_resort.write(line.encode() + b"\n")

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a log record."""
        self.say(self.format(record))
