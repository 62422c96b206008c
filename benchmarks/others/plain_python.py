"""Unique users a minute in one plain Python process: confluent-kafka, msgspec and sets, no guarantees.

    python plain_python.py localhost:9092 in out

Reads what the topic holds now, with a watermark of its own: 5 s behind the partition that is behind.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict

import msgspec
from confluent_kafka import Consumer, Producer, TopicPartition

WINDOW_SECONDS = 60
DISORDER_SECONDS = 5
MAX_FUTURE_SECONDS = 5


class Event(msgspec.Struct):
    """The two fields that count; msgspec skips all others without making objects of them."""

    ts: int | str
    uid: str


def read_time(event: Event, arrival_ms: int) -> int | None:
    """The event's time in unix seconds; None when it is none, or ahead of the arrival."""
    try:
        ts = int(event.ts)
    except ValueError:
        return None
    return ts if event.uid and 0 <= ts <= arrival_ms / 1_000 + MAX_FUTURE_SECONDS else None


def count_users(servers: str, input_topic: str, output_topic: str) -> None:
    """Counts from the start of the topic to what is its end now."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "plain-python",
            "enable.auto.commit": False,
            "fetch.message.max.bytes": 16_777_216,
            "check.crcs": False,
        }
    )
    producer = Producer({"bootstrap.servers": servers})
    partitions = consumer.list_topics(input_topic, timeout=10).topics[input_topic].partitions
    ends = {part: consumer.get_watermark_offsets(TopicPartition(input_topic, part))[1] for part in partitions}
    consumer.assign([TopicPartition(input_topic, part, 0) for part in partitions])
    decode = msgspec.json.Decoder(Event).decode
    users: defaultdict[int, set[str]] = defaultdict(set)
    events: defaultdict[int, int] = defaultdict(int)
    latest = dict.fromkeys(partitions, 0)
    watermark = 0

    def write_closed(until: float) -> None:
        for start in sorted(start for start in users if start + WINDOW_SECONDS <= until):
            name = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(start))
            result = {"window_start": name, "unique_users": len(users.pop(start)), "events": events.pop(start)}
            producer.produce(output_topic, json.dumps(result), name)

    unread = {part for part, end in ends.items() if end}
    while unread:
        for message in consumer.consume(10_000, 1.0):
            part, offset = message.partition(), message.offset()
            if part is None or offset is None:
                continue
            if offset + 1 >= ends[part]:
                unread.discard(part)
            try:
                event = decode(message.value() or b"")
            except msgspec.MsgspecError:
                continue
            ts = read_time(event, message.timestamp()[1])
            if ts is None:
                continue
            latest[part] = max(latest[part], ts)
            start = ts - ts % WINDOW_SECONDS
            if start + WINDOW_SECONDS > watermark:
                users[start].add(event.uid)
                events[start] += 1
        watermark = min(latest.values()) - DISORDER_SECONDS
        write_closed(watermark)
    write_closed(float("inf"))
    producer.flush()
    consumer.close()


if __name__ == "__main__":
    count_users(*sys.argv[1:4])
