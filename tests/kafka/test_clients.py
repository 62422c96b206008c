"""What the job does with Kafka's own client: the offsets of a consumer group, and exactly-once output."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, TopicPartition
from load_events import load_lines
from support import InProcess, count_exactly, make_events, read_messages, read_records
from uniques.errors import UsageError
from uniques.kafka.admin import JavaClient
from uniques.kafka.delivery import TransactionalWriter
from uniques.kafka.properties import KafkaCluster
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
    class BareJvm:
        """Has none of the classes that it is asked for."""

        def __getattr__(self, name: str) -> None:
            """What py4j gives in place of a class is no JavaClass."""

    classic: Any = SimpleNamespace(_sc=SimpleNamespace(_gateway=SimpleNamespace(jvm=BareJvm())))
    with pytest.raises(UsageError, match=r"^--delivery exactly-once needs Kafka's client on the driver"):
        JavaClient(classic, "--delivery exactly-once")


def read_once(broker: KafkaBroker, topic: str) -> list[tuple[str, dict[str, Any]]]:
    """What a consumer with isolation.level=read_committed sees."""
    return read_records(broker, topic, isolation="read_committed")


def test_exactly_once_skips_what_is_written_and_fences_off_an_older_instance(
    job: InProcess, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=3_000, rate=20)  # two and a half minutes
    source, sink, rejects = new_topic("in", 2), new_topic("out"), new_topic("rejects")
    checkpoint = tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, "--delivery", "exactly-once"]
    flags += ["--checkpoint-location", str(checkpoint), "--trigger", "available-now", "--idle-timeout", "off"]
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    job.run(*flags)
    assert [(key, value["events"]) for key, value in read_once(broker, sink)] == list(exact.items())[:-1]
    rejected = [message.value() or b"" for message in read_messages(broker, rejects)]
    assert sorted(rejected) == sorted(event.line for event in events if event.ts is None)

    # As if it had been killed after writing, before Spark knew: the batch is done again, and written once.
    query = checkpoint / "query"
    last = max(int(path.name) for path in (query / "commits").iterdir() if path.name.isdecimal())
    for name in (f"{last}", f".{last}.crc"):
        (query / "commits" / name).unlink()
    name = keep_line(spark, str(checkpoint), "transactional-id", "another")
    older = TransactionalWriter(spark, KafkaCluster(broker.bootstrap_servers), sink, name)
    written = older.written
    assert written
    job.run(*flags)
    assert [(key, value["events"]) for key, value in read_once(broker, sink)] == list(exact.items())[:-1]
    assert len(read_messages(broker, rejects)) == len(rejected)

    with pytest.raises(UsageError, match=r"^another instance took this checkpoint over \(.*\): this one ends$"):
        older.write([(b"key", b"value")], written + 1)
    with pytest.raises(UsageError, match=r"^another instance took this checkpoint over "):
        older.keep_alive()
    older.close()
    assert len(read_once(broker, sink)) == len(exact) - 1


def test_records_that_were_decided_and_not_written_are_written_at_the_next_start(
    job: InProcess, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=3_000, rate=20)
    source, sink, checkpoint = new_topic("in", 2), new_topic("out"), tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(checkpoint)]
    flags += ["--trigger", "available-now", "--idle-timeout", "off"]
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    exact = {start: number for start, (_, number) in count_exactly(events).items()}
    job.run(*flags)
    written = [(key, value["events"]) for key, value in read_once(broker, sink)]
    assert written == list(exact.items())[:-1]
    # As if it had been killed between the step log and the transaction: Kafka's mark is that of the step before.
    steps = sorted(
        (path for path in (checkpoint / "steps").iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    last = json.loads(steps[-1].read_text().splitlines()[0])
    assert last["sent"] == []
    steps[-1].unlink()
    name = keep_line(spark, str(checkpoint), "transactional-id", "another")
    writer = TransactionalWriter(spark, KafkaCluster(broker.bootstrap_servers), sink, name)
    writer.write([], last["transactions"] - 1)
    writer.close()
    job.run(*flags)
    assert [(key, value["events"]) for key, value in read_once(broker, sink)] == [*written, *written]
    # Once more: all is known to be written.
    job.run(*flags)
    assert len(read_once(broker, sink)) == 2 * len(written)


def test_exactly_once_refuses_a_checkpoint_that_does_not_fit_what_is_written(
    job: InProcess, spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink, checkpoint = new_topic("in"), new_topic("out"), tmp_path / "checkpoint"
    flags = ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(checkpoint)]
    flags += ["--trigger", "available-now"]
    load_lines((event.line for event in make_events(events=300, rate=10)), broker.bootstrap_servers, source)
    job.run(*flags)
    name = keep_line(spark, str(checkpoint), "transactional-id", "another")
    writer = TransactionalWriter(spark, KafkaCluster(broker.bootstrap_servers), sink, name)
    assert writer.written
    writer.write([], writer.written + 1)
    writer.close()
    with pytest.raises(UsageError, match=r"is older than what was written: start once with --delivery at-least-once"):
        job.run(*flags)
    # Kafka has forgotten the group, and the last step has records: nobody knows whether they are written.
    (checkpoint / "transactional-id").write_text("a-new-name\n")
    steps = sorted(
        (path for path in (checkpoint / "steps").iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
    )
    steps[-1].unlink()
    with pytest.raises(UsageError, match=r"Kafka has forgotten whether its last records were written: start once with"):
        job.run(*flags)
    job.run(*flags, "--delivery", "at-least-once")
    job.run(*flags)
