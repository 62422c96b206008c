"""Why a query failed, in one line that says what to do."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.errors import JobError
from uniques.kafka.errors import find_kafka_error

if TYPE_CHECKING:
    from collections.abc import Iterator

JVM_ENDED = (
    "Spark's JVM ended: out of memory (then spark-submit ends with status 52), or killed; give it more memory "
    "(spark-submit --driver-memory 2g), or lower --max-offsets-per-trigger"
)
# What is left of an error of Java's when the JVM ended before Python could ask for its message.
NO_MESSAGE = re.compile(r"An error occurred while calling \S+")
OUT_OF_MEMORY = (
    "out of memory: lower --max-offsets-per-trigger, or give more (spark-submit --driver-memory 2g, on a cluster "
    "--executor-memory)"
)

# A sign in the message or trace of a failed query, and the line for it; KAFKA_ERRORS has those of Kafka.
KNOWN_FAILURES = {
    "No space left on device": "no space left on the disk of --checkpoint-location or of Spark's local folders: "
    "make room, then start the job again; it continues where it was",
    "Disk quota exceeded": "the disk quota of --checkpoint-location or of Spark's local folders is used up: make room, "
    "then start the job again; it continues where it was",
    "OutOfMemoryError": OUT_OF_MEMORY,
    # How an executor that ran out of memory ends.
    "exited with code 52": OUT_OF_MEMORY,
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
    """The error for a failed query, one line: a known cause and what to do, or else Spark's first line."""
    kafka = find_kafka_error(message)
    if kafka:
        return type(kafka)(f"the query failed: {kafka}")
    for sign, explanation in KNOWN_FAILURES.items():
        if sign in message:
            return JobError(f"the query failed: {explanation}")
    if NO_MESSAGE.fullmatch(message.strip()):
        return JobError(JVM_ENDED)
    # Spark says of a failure in foreachBatch only that it failed; the cause follows Python's trace.
    inner = re.search(r"^: (.+)", message, re.MULTILINE) if "FOREACH_BATCH_USER_FUNCTION_ERROR" in message else None
    lines = [inner[1]] if inner else [line.strip() for line in message.splitlines() if line.strip()]
    return JobError(f"the query failed: {lines[0]}" if lines else "the query failed")
