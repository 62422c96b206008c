"""SIGINT and SIGTERM, wherever they arrive."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from uniques.jvm import gateway_of, jvm_of
from uniques.runtime.session import is_on_databricks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class StopSignal:
    """SIGINT and SIGTERM as a flag, wherever they arrive.

    Under spark-submit an operator or Kubernetes signals the JVM, and Python is its child. By default the JVM ends Spark
    at once, with status 143; so its handlers are replaced too. Under Spark Connect there is no JVM, and the signal
    reaches Python.
    """

    class Java:
        """The Java interface that `handle` implements, for py4j."""

        implements = ("sun.misc.SignalHandler",)

    def __init__(self) -> None:
        """Nothing is installed yet."""
        self._requested = threading.Event()

    def install(self, spark: SparkSession) -> None:
        """Takes over both signals; call it from the main thread once the session exists."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._requested.set())
        jvm = jvm_of(spark)
        if jvm is None or is_on_databricks():
            return
        from pyspark.java_gateway import ensure_callback_server_started

        ensure_callback_server_started(gateway_of(spark))  # type: ignore[no-untyped-call]
        for name in ("INT", "TERM"):
            jvm.sun.misc.Signal.handle(jvm.sun.misc.Signal(name), self)

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
