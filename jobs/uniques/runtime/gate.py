"""A gate before the batches of a query, so that it is stopped between two of them.

Under a steady stream one batch follows the other, and `query.stop()` would interrupt the one that runs. Once the gate
is closed, the next batch waits in front of it, with nothing done, until the query is stopped.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyspark.sql.streaming.query import StreamingQuery

HOLD_SECONDS = 30.0
POLL_SECONDS = 0.01


class InterruptedBatchError(Exception):
    """A batch that is given up because the query is stopped.

    Spark ends quietly for an error of py4j that says so. It looks for that with a regular expression, which a long
    message makes run out of stack; this one is short.
    """

    def __init__(self) -> None:
        """Says what Spark looks for: `StreamExecution.PROXY_ERROR`."""
        super().__init__(
            "py4j.protocol.Py4JJavaError: An error occurred while calling foreachBatch.\n"
            ": java.lang.InterruptedException: the query is stopped"
        )


class BatchGate:
    """The gate of one query."""

    def __init__(self) -> None:
        """The gate is open."""
        self.query: StreamingQuery | None = None
        self._closed = threading.Event()
        self._held = threading.Event()

    def close(self) -> None:
        """Lets no further batch begin."""
        self._closed.set()

    @property
    def is_closed(self) -> bool:
        """Whether no further batch begins."""
        return self._closed.is_set()

    @property
    def is_holding(self) -> bool:
        """Whether a batch waits until the query is stopped."""
        return self._held.is_set()

    def enter(self) -> None:
        """Call it where a batch begins; raises InterruptedBatchError once the query is stopped, if it is closed."""
        if not self.is_closed:
            return
        self._held.set()
        deadline = time.monotonic() + HOLD_SECONDS
        while not self.is_stopped() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        raise InterruptedBatchError

    def is_stopped(self) -> bool:
        """Whether the query is being stopped, so that an error in a batch is of no interest."""
        return self.query is not None and not self.query.isActive
