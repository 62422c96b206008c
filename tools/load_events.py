"""Loads events into a Kafka topic, one for each line.

    python tools/load_events.py stream.jsonl.gz --topic in --create-topic 2
    zcat stream.jsonl.gz | python tools/load_events.py --topic in

Lines go to the topic's partitions in turn, so all partitions reach the same event time together.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer
from kafka_broker import BrokerError, create_topics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from confluent_kafka import KafkaError, Message

PROGRESS_SECONDS = 2.0
FLUSH_SECONDS = 60.0
CONNECT_SECONDS = 10.0


class LoadError(Exception):
    """Loading failed; the message is one line."""


def read_lines(paths: list[str]) -> Iterator[bytes]:
    """The lines of the files (`-`: standard input; `.gz` is unpacked), without their line feeds."""
    for path in paths:
        if path == "-":
            yield from (line.rstrip(b"\n") for line in sys.stdin.buffer)
        else:
            with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
                yield from (line.rstrip(b"\n") for line in file)


def count_partitions(producer: Producer, topic: str) -> int:
    """The topic's number of partitions. Raises LoadError when the topic does not exist or Kafka does not answer."""
    try:
        found = producer.list_topics(topic, timeout=CONNECT_SECONDS).topics[topic]
    except KafkaException as error:
        raise LoadError(f"Kafka does not answer: {error.args[0].str()}") from error
    if found.error is not None or not found.partitions:
        raise LoadError(f"topic {topic!r} does not exist: create it, or use --create-topic PARTITIONS")
    return len(found.partitions)


def load_lines(
    lines: Iterable[bytes],
    bootstrap_servers: str,
    topic: str,
    rate: float | None = None,
    progress: bool = False,
) -> int:
    """Sends every line as the value of a record, at most `rate` a second, and waits until Kafka has stored all.

    Returns their number. Raises LoadError, one line, when a record can't be delivered.
    """
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5 if rate else 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 200_000,
            "message.max.bytes": 16_000_000,
            "log_level": 0,
        }
    )
    failures: list[KafkaError] = []

    def delivered(error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            failures.append(error)

    partitions = count_partitions(producer, topic)
    started = shown = time.monotonic()
    count = 0
    for line in lines:
        while True:
            try:
                producer.produce(topic, line, partition=count % partitions, on_delivery=delivered)
                break
            except BufferError:
                producer.poll(0.1)
        count += 1
        # A delivery ends the wait early, so it goes on until it is time.
        while rate and (ahead := count / rate - (time.monotonic() - started)) > 0:
            producer.poll(ahead)
        if count % 1_000 == 0 or rate:
            producer.poll(0)
            now = time.monotonic()
            if progress and now - shown > PROGRESS_SECONDS:
                print(
                    f"load_events: {count:,} events, {count / (now - started):,.0f}/s",
                    file=sys.stderr,
                    flush=True,
                )
                shown = now
        if failures:
            break
    left = producer.flush(FLUSH_SECONDS)
    if failures or left:
        reason = failures[0].str() if failures else f"{left} records were not acknowledged within {FLUSH_SECONDS:.0f} s"
        raise LoadError(f"topic {topic!r}: {reason}")
    if progress:
        seconds = time.monotonic() - started
        print(
            f"load_events: {count:,} events in {seconds:.1f} s, {count / seconds:,.0f}/s",
            file=sys.stderr,
            flush=True,
        )
    return count


def main() -> None:
    """Loads files or standard input into a topic."""
    parser = argparse.ArgumentParser(description="Load events into a Kafka topic, one for each line.")
    parser.add_argument(
        "file", nargs="*", default=["-"], help=".jsonl or .jsonl.gz files; - is standard input (default)"
    )
    parser.add_argument("--bootstrap-servers", default="localhost:9092", help="(default: localhost:9092)")
    parser.add_argument("--topic", default="in", help="(default: in)")
    parser.add_argument("--create-topic", type=int, metavar="PARTITIONS", help="create the topic unless it exists")
    parser.add_argument("--rate", type=float, metavar="N", help="at most so many events a second (default: no limit)")
    args = parser.parse_args()
    if args.rate is not None and args.rate <= 0:
        parser.error("argument --rate: give a number above 0")
    if args.create_topic is not None and args.create_topic < 1:
        parser.error("argument --create-topic: give a number of partitions from 1")
    try:
        if args.create_topic:
            create_topics(args.bootstrap_servers, {args.topic: args.create_topic})
        load_lines(read_lines(args.file), args.bootstrap_servers, args.topic, args.rate, progress=True)
    except (LoadError, BrokerError, KafkaException, OSError, EOFError) as error:
        sys.exit(f"load_events: error: {error}")


if __name__ == "__main__":
    main()
