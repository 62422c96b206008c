"""What the job does with Kafka's own client: the offsets of a consumer group, and exactly-once output."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from load_events import load_lines
from support import InProcess, count_exactly, make_events, read_messages, read_records
from uniques.errors import UsageError
from uniques.kafka.admin import JavaClient
from uniques.kafka.exactly_once import TransactionalWriter
from uniques.kafka.properties import KafkaCluster
from uniques.state.checkpoint import check_mark
from uniques.state.sidecar import keep_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession


def read_group(broker: KafkaBroker, group: str, topic: str, partitions: int) -> list[int]:
    """The offsets a group has committed, as Kafka's tools see them."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    found = consumer.committed([TopicPartition(topic, partition) for partition in range(partitions)], timeout=60)
    consumer.close()
    return [partition.offset for partition in found]


def test_what_was_read_is_committed_to_the_group_and_never_started_from(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = make_events(events=1_000, rate=10)  # a minute and two thirds
    source, sink = new_topic("in", 2), new_topic("out")
    group = f"group-{source}"
    flags = ["--input-topic", source, "--output-topic", sink, "--consumer-group", group]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    flags += ["--idle-timeout", "off"]
    load_lines((event.line for event in events[:500]), broker.bootstrap_servers, source)
    job.run(*flags)
    assert read_group(broker, group, source, 2) == [250, 250]

    # Somebody resets the group, and uses it: the job neither starts from there nor stops.
    other = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": group})
    other.commit(offsets=[TopicPartition(source, 0, 0), TopicPartition(source, 1, 0)], asynchronous=False)
    other.subscribe([source])
    while not other.assignment():
        other.poll(0.1)
    load_lines((event.line for event in events[500:]), broker.bootstrap_servers, source)
    caplog.set_level(logging.WARNING, "uniques")
    job.run(*flags)
    other.close()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    reason = f"consumers on Kafka at {broker.bootstrap_servers} use the consumer group: give the job a group of its own"
    assert warnings == [f"warning: offsets are not committed to --consumer-group {group}: {reason}"]
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    assert {key: value["events"] for key, value in read_records(broker, sink)} == dict(list(exact.items())[:-1])


def test_a_session_without_a_jvm_gets_one_line() -> None:
    connect = cast("SparkSession", SimpleNamespace())
    with pytest.raises(UsageError, match=r"^--consumer-group needs a classic Spark driver: Spark Connect [^\n]*$"):
        JavaClient(connect, "--consumer-group")


def test_a_driver_without_the_connector_gets_one_line() -> None:
    jvm: Any = SimpleNamespace(java=None)
    nothing = SimpleNamespace(clients=SimpleNamespace(admin=SimpleNamespace(Admin=None)))
    jvm.org = jvm.kafkashaded = SimpleNamespace(apache=SimpleNamespace(kafka=nothing))
    jvm.kafkashaded = SimpleNamespace(org=jvm.org)
    classic: Any = SimpleNamespace(_sc=SimpleNamespace(_gateway=SimpleNamespace(jvm=jvm)))
    with pytest.raises(UsageError, match=r"^--exactly-once needs Kafka's client on the driver"):
        JavaClient(classic, "--exactly-once")


def read_once(broker: KafkaBroker, topic: str) -> list[tuple[str, dict[str, Any]]]:
    """What a consumer with isolation.level=read_committed sees."""
    return read_records(broker, topic, isolation="read_committed")


def test_exactly_once_skips_what_is_written_and_fences_off_an_older_instance(
    job: InProcess, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=3_000, rate=20)  # two and a half minutes
    source, sink, rejects = new_topic("in", 2), new_topic("out"), new_topic("rejects")
    checkpoint = tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, "--exactly-once"]
    flags += ["--checkpoint-location", str(checkpoint), "--trigger", "available-now", "--idle-timeout", "off"]
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    job.run(*flags)
    assert [(key, value["events"]) for key, value in read_once(broker, sink)] == list(exact.items())[:-1]
    rejected = [message.value() or b"" for message in read_messages(broker, rejects)]
    assert sorted(rejected) == sorted(event.line for event in events if event.ts is None)

    # As if it had been killed after writing, before Spark knew: the batches are done again, and written once.
    for log in ("commits/1", "commits/.1.crc", "commits/0", "commits/.0.crc", "offsets/1", "offsets/.1.crc"):
        (checkpoint / "query" / log).unlink()
    name = keep_line(spark, str(checkpoint), "transactional-id", "another")
    older = TransactionalWriter(spark, KafkaCluster(broker.bootstrap_servers), sink, name, lambda _mark: None, False)
    job.run(*flags)
    assert [(key, value["events"]) for key, value in read_once(broker, sink)] == list(exact.items())[:-1]
    assert len(read_messages(broker, rejects)) == len(rejected)

    with pytest.raises(UsageError, match=r"^another instance took this checkpoint over \(.*\): this one ends$"):
        older._commit([(b"key", b"value")], 9)
    with pytest.raises(UsageError, match=r"^another instance took this checkpoint over "):
        older.keep_alive()
    older.close()
    assert len(read_once(broker, sink)) == len(exact) - 1


def test_exactly_once_refuses_a_checkpoint_that_does_not_fit_what_is_written(
    spark: SparkSession, tmp_path: Path
) -> None:
    offsets = tmp_path / "query" / "offsets"
    offsets.mkdir(parents=True)
    for batch in range(3):
        (offsets / str(batch)).write_text("v1\n")
    check_mark(spark, str(tmp_path), 3)
    check_mark(spark, str(tmp_path), 0)
    with pytest.raises(UsageError, match=r"ends with batch 2, and batch 4 is in the output: start once without"):
        check_mark(spark, str(tmp_path), 5)
    with pytest.raises(UsageError, match=r"Kafka has forgotten whether its last batch, 2, was written: start once"):
        check_mark(spark, str(tmp_path), None)
