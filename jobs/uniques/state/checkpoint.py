"""The checkpoint of a query: where it is, which batch it is at, and what is damaged in it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.errors import JobError, UsageError
from uniques.state.sidecar import beside, list_names, read_bytes, read_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

    from uniques.kafka.subscription import Partition

# A store says so when it refuses or does not answer; the file itself may be whole.
REFUSALS = (
    "AccessControlException",
    "AccessDenied",
    "Permission denied",
    "Forbidden",
    "SlowDown",
    "Too Many Requests",
    "Service Unavailable",
    "timed out",
    "Connection refused",
    "Connection reset",
)


def query_location(location: str) -> str:
    """The folder for the query's own checkpoint."""
    return beside(location, "query")


def last_batch(spark: SparkSession, log: str) -> int:
    """The last batch in one of the logs of a query's checkpoint, -1 for none; raises JobError as `list_names` does."""
    return max((int(name) for name in list_names(spark, log) if name.isdecimal()), default=-1)


class Plan(NamedTuple):
    """A batch as Spark planned it: `watermark` in unix seconds, and where it ends, partition -> next offset."""

    watermark: float
    offsets: dict[Partition, int]

    def list_unread(self, ends: Mapping[Partition, int]) -> list[Partition]:
        """The partitions that reach further than the batch read them, by where each ends."""
        return [partition for partition, end in ends.items() if end > self.offsets.get(partition, 0)]


def read_plan(spark: SparkSession, location: str, batch: int) -> Plan:
    """The plan of a batch of a query that reads Kafka topics; raises JobError when it can't be read."""
    path = f"{location}/offsets/{batch}"
    try:
        _version, metadata, *sources = (read_file(spark, path) or "").splitlines()
        watermark = json.loads(metadata)["batchWatermarkMs"] / 1000
        offsets: dict[Partition, int] = {}
        for source in sources:
            read = json.loads(source) if source.startswith("{") else {}
            for topic, partitions in read.items():
                if isinstance(partitions, dict):  # the source of punctuation has a number there
                    offsets.update({(topic, int(partition)): offset for partition, offset in partitions.items()})
    except (ValueError, KeyError) as error:
        raise JobError(f"{path} is no plan of a batch: {error}") from error
    return Plan(watermark, offsets)


@contextmanager
def report_damage(spark: SparkSession, location: str) -> Iterator[None]:
    """Raises UsageError, one line, when what is done inside fails and a file of the checkpoint is damaged.

    Otherwise the failure stays what it is, also when the checkpoint can't be looked at.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        try:
            damage = find_damage(spark, query_location(location), f"{error} {error.__cause__}")
        except (JobError, PySparkException, Py4JError):
            damage = None
        if damage:
            raise UsageError(f"--checkpoint-location {location}: {damage}") from error
        raise


def find_damage(spark: SparkSession, location: str, message: str) -> str | None:
    """What is damaged in a query's checkpoint, as after a power cut, and the way out; None when nothing is.

    Looks at the last file of each log. Damaged state shows in the `message` of the failure. Raises what Java or
    Spark raises, or JobError, when a file can't be read: that is no damage.
    """
    planned, finished = (last_batch(spark, f"{location}/{log}") for log in ("offsets", "commits"))
    if planned >= 0 and not is_whole(spark, f"{location}/offsets/{planned}"):
        damaged, files = f"offsets/{planned}", [f"offsets/{planned}"]
        # The batch is planned again, so it can't be finished.
        files += [f"commits/{planned}"] if finished == planned else []
    elif finished >= 0 and not is_whole(spark, f"{location}/commits/{finished}"):
        damaged, files = f"commits/{finished}", [f"commits/{finished}"]
    elif "CANNOT_LOAD_STATE_STORE" in message and not any(refusal in message for refusal in REFUSALS):
        # The next start repeats the last batch from the state before it; Spark repeats the last one that is planned.
        damaged, files = f"the state of batch {finished}", [f"commits/{finished}"]
        files += [f"offsets/{planned}"] if planned > finished else []
    else:
        return None
    return (
        f"{damaged} is damaged: delete {' and '.join(files)} in {location}, with the .crc file of each; the next start "
        "does the batch again"
    )


def is_whole(spark: SparkSession, path: str) -> bool:
    """Whether a file of a query's logs ends where it should: a version, then lines of JSON.

    Raises what Java or Spark raises when the file can't be read, unless its checksum says that it is damaged.
    """
    try:
        content = read_bytes(spark, path)
    except (PySparkException, Py4JError) as error:
        if "ChecksumException" in str(error):
            return False
        raise
    try:
        version, *lines = content.decode().splitlines() or [""]
        for line in lines:
            if line != "-":  # a source without an offset
                json.loads(line)
    except ValueError:
        return False
    return bool(lines) and version.startswith("v")
