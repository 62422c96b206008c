"""What a failed query says, in one line with the way out."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.errors import JobError, UsageError
from uniques.kafka.errors import KAFKA_REFUSALS

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raises JobError with the cause in one line when Spark fails at what is done inside."""
    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise explain_failure(str(error)) from error


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
