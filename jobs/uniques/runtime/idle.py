"""Closes the windows of a stream that fell silent, and of one that ended."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from uniques.state.punctuation import write_punctuation

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery

    from uniques.runtime.listener import ProgressListener
    from uniques.state.accounting import Accounting

# A trigger that finds nothing takes far less; after a longer gap the job was paused, or Kafka was away.
DEAF_SECONDS = 5.0


class IdleCloser:
    """Writes punctuation when nothing has arrived for `timeout_seconds`; never when that is None."""

    def __init__(
        self,
        spark: SparkSession,
        location: str,
        timeout_seconds: float | None,
        watermark_seconds: int,
        listener: ProgressListener,
    ) -> None:
        """`watermark_seconds` is the delay of the query's watermark."""
        self._spark = spark
        self._location = location
        self._timeout_seconds = timeout_seconds
        self._watermark_seconds = watermark_seconds
        self.listener = listener
        self._asked = self._listening_since = time.time()
        self._closed: int | None = None

    @property
    def accounting(self) -> Accounting:
        """Where the events went, with the windows that are open."""
        return self.listener.accounting

    def close_when_idle(self, query: StreamingQuery) -> None:
        """Closes all open windows when the stream has been idle long enough; call it at short intervals."""
        if self._timeout_seconds is None:
            return
        now, status = time.time(), query.status
        if now - self._asked > DEAF_SECONDS:
            # Producers may have held events back meanwhile, so the time does not count as silence.
            self._listening_since = now
        if status["isTriggerActive"]:
            return  # Kafka is being asked, or a batch runs whose events are not in the accounting yet
        self._asked = now
        if not self.accounting.open or max(self.accounting.open) == self._closed or status["isDataAvailable"]:
            return
        if now - max(self.listener.last_event, self._listening_since) >= self._timeout_seconds:
            self.close_windows()

    def close_windows(self) -> None:
        """Moves the watermark to the end of the last open window with the next batch."""
        self._closed = max(self.accounting.open)
        write_punctuation(self._spark, self._location, [math.ceil(self._closed + self._watermark_seconds)])
