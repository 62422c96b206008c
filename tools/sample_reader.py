"""Reads some records of a topic, spread over its partitions, or the first lines of a file."""

from __future__ import annotations

import gzip
import sys
import time
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, TopicPartition
from event_rules import Record

if TYPE_CHECKING:
    from confluent_kafka import Message

CONNECT_SECONDS = 10.0
# How long Kafka may send nothing.
SILENCE_SECONDS = 20.0
# A sample of large records ends earlier.
MAX_BYTES = 100_000_000


class SampleError(Exception):
    """There is nothing to read; the message is one line."""


class Sample(NamedTuple):
    """Records in order of arrival, as far as that is known, and where they are from, for a reader."""

    records: list[Record]
    origin: str


def read_file(path: str, number: int) -> Sample:
    """The first lines of a file, `.gz` too, or of standard input for `-`. Raises SampleError, one line."""
    records: list[Record] = []
    left = MAX_BYTES
    name = "standard input" if path == "-" else path
    try:
        with ExitStack() as stack:
            if path == "-":
                file = sys.stdin.buffer
            elif path.endswith(".gz"):
                file = stack.enter_context(gzip.open(path))
            else:
                file = stack.enter_context(Path(path).open("rb"))
            while len(records) < number and left > 0:
                line = file.readline()
                if not line:
                    break
                left -= len(line)
                records.append(Record(line.removesuffix(b"\n")))
    except (OSError, EOFError, zlib.error) as error:
        raise SampleError(f"{name} can't be read: {getattr(error, 'strerror', None) or error}") from error
    if not records:
        raise SampleError(f"{name} is empty")
    return Sample(records, f"the first lines of {name}" if len(records) == number or left <= 0 else f"all of {name}")


def read_topic(settings: dict[str, str], topic: str, number: int, earliest: bool) -> Sample:
    """Records of a topic, as many from each partition: the latest, or the earliest. Raises SampleError, one line.

    `settings` are the client's: where Kafka is, `bootstrap.servers`, and how to speak to it.
    """
    bootstrap_servers = settings["bootstrap.servers"]
    consumer = open_consumer(settings)
    try:
        found = consumer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
        if found.error is not None and found.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise SampleError(f"topic {topic!r} may not be read by this user, or does not exist")
        if found.error is not None or not found.partitions:
            raise SampleError(f"topic {topic!r} does not exist on {bootstrap_servers}")
        ends = {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=CONNECT_SECONDS)
            for partition in found.partitions
        }
        quotas = share_out(number, {partition: high - low for partition, (low, high) in ends.items()})
        starts = {
            partition: ends[partition][0] if earliest else ends[partition][1] - quota
            for partition, quota in quotas.items()
        }
        messages = read_messages(consumer, topic, starts, quotas)
    except KafkaException as error:
        raise SampleError(f"Kafka at {bootstrap_servers} does not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()
    if not messages:
        raise SampleError(f"topic {topic!r} is empty: no records to look at")
    records = sorted(map(make_record, messages), key=lambda record: record.arrived or 0)
    which = "earliest" if earliest else "latest"
    return Sample(records, f"the {which} of topic {topic}, {describe_partitions(len(quotas), len(found.partitions))}")


def open_consumer(settings: dict[str, str]) -> Consumer:
    """A client that commits nothing. Raises SampleError, one line, for settings that it does not take."""
    try:
        return Consumer(
            {
                **settings,
                "group.id": "inspect-topic",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "log_level": 0,
            }
        )
    except KafkaException as error:
        raise SampleError(f"Kafka's client does not take these settings: {error.args[0].str()}") from error


def share_out(number: int, available: dict[int, int]) -> dict[int, int]:
    """How many records to read of each partition that has any: as equal as may be, `number` in all."""
    quotas: dict[int, int] = {}
    left = number
    # The shortest first: what they lack the others give.
    filled = sorted((size, partition) for partition, size in available.items() if size > 0)
    for at, (size, partition) in enumerate(filled):
        quota = min(size, -(-left // (len(filled) - at)))
        if quota:
            quotas[partition] = quota
        left -= quota
    return quotas


def read_messages(consumer: Consumer, topic: str, starts: dict[int, int], quotas: dict[int, int]) -> list[Message]:
    """Up to so many records of each partition, from an offset on."""
    if not starts:
        return []
    consumer.assign([TopicPartition(topic, partition, offset) for partition, offset in starts.items()])
    wanted = dict(quotas)
    messages: list[Message] = []
    left = MAX_BYTES
    deadline = time.monotonic() + SILENCE_SECONDS
    while wanted and left > 0:
        message = consumer.poll(0.5)
        if message is None:
            if time.monotonic() > deadline:
                raise SampleError(f"Kafka sent nothing of topic {topic!r} for {SILENCE_SECONDS:.0f} s")
            continue
        deadline = time.monotonic() + SILENCE_SECONDS
        error, partition = message.error(), message.partition() or 0
        if error is not None and error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            continue  # nothing is asked of the group
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise SampleError(error.str())
        if error is not None:
            wanted.pop(partition, None)
        elif partition in wanted:
            messages.append(message)
            left -= len(message.value() or b"")
            wanted[partition] -= 1
            if not wanted[partition]:
                del wanted[partition]
                consumer.pause([TopicPartition(topic, partition)])
    return messages


def make_record(message: Message) -> Record:
    """A record of Kafka's as the job sees it."""
    kind, milliseconds = message.timestamp()
    arrived = None if kind == TIMESTAMP_NOT_AVAILABLE or milliseconds < 0 else milliseconds / 1_000
    key = message.key()
    return Record(message.value(), key.encode() if isinstance(key, str) else key, arrived)


def describe_partitions(read: int, partitions: int) -> str:
    """How many partitions were read."""
    if partitions == 1:
        return "1 partition"
    return f"{read} of {partitions} partitions" if read < partitions else f"{partitions} partitions"
