"""The progress of a query as one text from the JVM.

PySpark asks the JVM for a progress value by value, for each listener, and each list ends with a Java exception, which
costs as much again (see `jvm.list_items`). Spark can write the same as JSON.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from pyspark.sql.streaming.listener import JStreamingQueryListener, QueryProgressEvent, StreamingQueryProgress

from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.listener import StreamingQueryListener

RATES = ("inputRowsPerSecond", "processedRowsPerSecond")  # Spark leaves those out that are no number
OFFSETS = ("startOffset", "endOffset", "latestOffset")


def take_progress_as_text(spark: SparkSession, listener: StreamingQueryListener) -> None:
    """Has the JVM call this listener with progress as JSON; call it before the listener is added.

    Does nothing under Spark Connect, where progress comes as JSON anyway.
    """
    jvm = jvm_of(spark)
    if jvm is not None:
        wrapper = jvm.org.apache.spark.sql.streaming.PythonStreamingQueryListenerWrapper
        # Where PySpark keeps the Java object of a listener, and looks for it first.
        listener._jlistenerobj = wrapper(TextListener(listener))


class TextListener(JStreamingQueryListener):
    """What the JVM calls in place of PySpark's own proxy."""

    def onQueryProgress(self, jevent: Any) -> None:  # noqa: N802
        """Hands the progress on."""
        self.pylistener.onQueryProgress(QueryProgressEvent(read_progress(jevent.progress().json())))


def read_progress(text: str) -> StreamingQueryProgress:
    """The progress that Spark wrote as JSON, as PySpark itself would hand it over: offsets are JSON texts."""
    found = json.loads(text)
    for part in (found, *found["sources"]):
        part.update((rate, part.get(rate, math.nan)) for rate in RATES)
    for source in found["sources"]:
        # Spark writes offsets that are JSON as such.
        source.update((name, write_offset(source.get(name))) for name in OFFSETS)
    return StreamingQueryProgress.fromJson(found)


def write_offset(offset: Any) -> str:
    """An offset as the text that PySpark gives for it."""
    return offset if isinstance(offset, str) else "None" if offset is None else json.dumps(offset)
