"""How many events of 2 kB a second each client reads from a topic of the embedded broker: `make bench ARGS=clients`.

All read the same two partitions, from their start, one after the other: the Python clients with the fetch sizes of the
job, Spark's source with its defaults and with those of the job. A rate leaves the first batch out, and with it the time
to connect. Beside them stand two limits: the broker's log files read from disk, and sent over a loopback socket.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
import uuid
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as AioPartition
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from generate_events import Settings, generate_events
from kafka.consumer import KafkaConsumer
from kafka.structs import TopicPartition as PythonPartition
from kafka_broker import KafkaBroker
from load_events import load_lines
from report import make_table, save_bars, show_spread
from rows import alternate, ratios
from session import choose_memory, start_session
from throughput import measure_rate
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.topics import FETCH_PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyspark.sql import SparkSession
    from rows import Recorder, Row

PACKAGES = ("aiokafka", "confluent-kafka", "kafka-python")
TOPIC = "in"
PARTITIONS = 2
BLOCK_BYTES = 1024 * 1024
# Events that a client is asked for at once.
BATCH = int(FETCH_PROPERTIES["max.poll.records"])
# The sizes of the job's fetches, as far as every client knows them.
FETCH_SIZES = {name: int(FETCH_PROPERTIES[name]) for name in ("max.partition.fetch.bytes", "fetch.max.bytes")}
# All events have more.
LEAST_BYTES = 1_000
# A client that has been given nothing for so long will not get anything any more.
PATIENCE_SECONDS = 20.0

DISK = "limit: log files from disk"
LOOPBACK = "limit: log files over loopback"
DEFAULT = ", default fetch"
TUNED = ", the job's fetch"
CONFLUENT = "confluent-kafka"
KAFKA_PYTHON = "kafka-python"
AIOKAFKA = "aiokafka"
SPARK = "Spark"


class Meter:
    """Counts what a client hands over, and the time since the first batch of it."""

    def __init__(self, events: int) -> None:
        """`events`: how many are wanted."""
        self._wanted = events
        self._began = self._last = time.perf_counter()
        self._first = self._events = self._bytes = 0

    @property
    def reading(self) -> bool:
        """Whether events are missing; raises TimeoutError when none have come for long."""
        if time.perf_counter() - self._last > PATIENCE_SECONDS:
            raise TimeoutError(f"{self._events:,} of {self._wanted:,} events, then none for {PATIENCE_SECONDS:.0f} s")
        return self._events < self._wanted

    def add(self, events: int, size: int) -> None:
        """Counts a batch of events whose values have `size` bytes."""
        if not events:
            return
        self._last = time.perf_counter()
        if not self._events:
            self._began, self._first = self._last, events
        self._events += events
        self._bytes += size

    def rate(self) -> float:
        """Events a second behind the first batch; raises ValueError when there is no other, or values were not read."""
        if self._events == self._first or self._bytes < self._events * LEAST_BYTES:
            raise ValueError(f"{self._events:,} events of {self._bytes:,} bytes are not what was loaded")
        return (self._events - self._first) / (self._last - self._began)


def read_with_confluent(servers: str, events: int, fetch: Mapping[str, int]) -> float:
    """Events a second with confluent-kafka: librdkafka fetches in threads of its own, Python takes lists."""
    meter = Meter(events)
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": uuid.uuid4().hex,
            "enable.auto.commit": False,
            "check.crcs": False,
            **fetch,
        }
    )
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    while meter.reading:
        messages = consumer.consume(BATCH, 1.0)
        meter.add(len(messages), sum(len(message.value() or b"") for message in messages))
    consumer.close()
    return meter.rate()


def name_settings(settings: Mapping[str, int]) -> dict[str, int]:
    """Kafka's settings under the names that clients in Python give them."""
    names = {"max.partition.fetch.bytes": "max_partition_fetch_bytes", "fetch.max.bytes": "fetch_max_bytes"}
    return {names[name]: value for name, value in settings.items()}


def read_with_kafka_python(servers: str, events: int, fetch: Mapping[str, int]) -> float:
    """Events a second with kafka-python, which is Python all through."""
    meter = Meter(events)
    consumer = KafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        check_crcs=False,
        **name_settings(fetch),
    )
    partitions = [PythonPartition(TOPIC, number) for number in range(PARTITIONS)]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    while meter.reading:
        for records in consumer.poll(1_000, max_records=BATCH).values():
            meter.add(len(records), sum(len(record.value) for record in records))
    consumer.close()
    return meter.rate()


def read_with_aiokafka(servers: str, events: int, fetch: Mapping[str, int]) -> float:
    """Events a second with aiokafka, whose parsing of batches is compiled."""
    return asyncio.run(await_aiokafka(servers, events, fetch))


async def await_aiokafka(servers: str, events: int, fetch: Mapping[str, int]) -> float:
    """`read_with_aiokafka`, inside an event loop."""
    meter = Meter(events)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=servers,
        enable_auto_commit=False,
        check_crcs=False,
        **name_settings(fetch),
    )
    await consumer.start()
    try:
        partitions = [AioPartition(TOPIC, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while meter.reading:
            for records in (await consumer.getmany(timeout_ms=1_000, max_records=BATCH)).values():
                meter.add(len(records), sum(len(record.value) for record in records))
    finally:
        await consumer.stop()
    return meter.rate()


def read_with_spark(spark: SparkSession, servers: str, fetch: Mapping[str, str], batch: int) -> float:
    """Events a second with Spark's source and these fetch settings; values are thrown away."""
    source = (
        spark.readStream.format("kafka")
        .options(**KafkaCluster(servers).options(dict(fetch)))
        .option("subscribe", TOPIC)
        .option("startingOffsets", "earliest")
        .option("maxOffsetsPerTrigger", batch)
        .load()
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as checkpoint:
        writer = source.select("value").writeStream.format("noop").option("checkpointLocation", checkpoint)
        return measure_rate(writer.trigger(availableNow=True).start())


def read_files(files: Sequence[Path], events: int) -> float:
    """Events a second when the files that hold them are read in plain blocks."""
    block = bytearray(BLOCK_BYTES)
    began = time.perf_counter()
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass
    return events / (time.perf_counter() - began)


def send_files(files: Sequence[Path], sender: socket.socket) -> None:
    """Sends files and closes the socket; as the broker does, without taking them into the process."""
    with sender:
        for path in files:
            with path.open("rb") as file:
                sender.sendfile(file)


def read_loopback(files: Sequence[Path], events: int) -> float:
    """Events a second when the files that hold them come over a loopback socket."""
    block = bytearray(BLOCK_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as server:
        receiver = socket.create_connection(server.getsockname())
        sender, _ = server.accept()
    thread = Thread(target=send_files, args=(files, sender))
    received = 0
    began = time.perf_counter()
    thread.start()
    with receiver:
        while size := receiver.recv_into(block):
            received += size
    seconds = time.perf_counter() - began
    thread.join()
    missing = sum(path.stat().st_size for path in files) - received
    if missing:
        raise ValueError(f"{missing:,} bytes did not arrive")
    return events / seconds


def measure(recorder: Recorder, rounds: int) -> None:
    """Measures all clients on one topic, and the limits on its files."""
    events, part, batch = (100_000, 100_000, 25_000) if recorder.quick else (1_000_000, 300_000, 250_000)
    # The slower ones read a part of the topic.
    counts = {CONFLUENT: events, KAFKA_PYTHON: part, AIOKAFKA: part}
    readers = {CONFLUENT: read_with_confluent, KAFKA_PYTHON: read_with_kafka_python, AIOKAFKA: read_with_aiokafka}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, KafkaBroker(data=Path(folder) / "kafka") as broker:
        servers = broker.bootstrap_servers
        broker.create_topic(TOPIC, PARTITIONS)
        load_lines((event.line for event in generate_events(Settings(events=events))), servers, TOPIC, progress=True)
        files = sorted((Path(folder) / "kafka" / "log").glob(f"{TOPIC}-*/*.log"))
        spark = start_session("clients", choose_memory(recorder.quick))
        ways: dict[str, Callable[[], float]] = {
            DISK: partial(read_files, files, events),
            LOOPBACK: partial(read_loopback, files, events),
        }
        for client, read in readers.items():
            ways[client + DEFAULT] = partial(read, servers, counts[client], {})
            ways[client + TUNED] = partial(read, servers, counts[client], FETCH_SIZES)
        ways[SPARK + DEFAULT] = partial(read_with_spark, spark, servers, {}, batch)
        ways[SPARK + TUNED] = partial(read_with_spark, spark, servers, FETCH_PROPERTIES, batch)
        rates = alternate(ways, rounds)
        spark.stop()
    for name, values in rates.items():
        client = name.removesuffix(DEFAULT).removesuffix(TUNED)
        limit = client in (DISK, LOOPBACK)
        recorder.add(
            name, "rate", "events/s", values, events=counts.get(client, events), partitions=PARTITIONS, limit=limit
        )
        recorder.add(name, "ratio", "of the loopback limit", ratios(values, rates[LOOPBACK]))
        recorder.add(name, "ratio to the job", f"of {SPARK}{TUNED}", ratios(values, rates[SPARK + TUNED]))


def describe(rows: Sequence[Row], plots: Path) -> str:
    """The chapter of the report."""
    rates = [row for row in rows if row.metric == "rate"]
    shares = {row.what: row for row in rows if row.metric == "ratio"}
    to_job = {row.what: row for row in rows if row.metric == "ratio to the job"}
    clients = [row for row in rates if not row.parameters["limit"]]
    fastest = max(clients, key=lambda row: row.median)
    slowest = min(clients, key=lambda row: row.median)
    gain = 1 / to_job[SPARK + DEFAULT].median
    # Not the disk, beside which all others would look alike.
    shown = [row for row in rates if row.what != DISK]
    save_bars(shown, plots / "clients.svg", "Reading a topic", "events of 2 kB a second")
    return (
        "## Reading a topic\n\nEvents of 2 kB in two partitions, uncompressed, broker on the same cores; every client "
        "reads from the start, in turn, and hands over each value, once with its own fetch sizes and once with those "
        "of the job. A rate leaves the first batch out, and so the time to connect. The limits move the same bytes, "
        "the broker's own log files, without Kafka: read from disk (from the page cache, where they fit), and sent to "
        "a loopback socket.\n\n![Events a second](plots/clients.svg)\n\n"
        + make_table(
            ["", "events read", "events/s: median (range)", "of the loopback limit", "of Spark with the job's fetch"],
            [
                [
                    row.what,
                    f"{row.parameters['events']:,}",
                    show_spread(row),
                    show_spread(shares[row.what], 3),
                    show_spread(to_job[row.what], 2),
                ]
                for row in rates
            ],
        )
        + f"\nFastest here: {fastest.what}, {fastest.median / slowest.median:,.1f} times as fast as the slowest, "
        f"{slowest.what}, and at {shares[fastest.what].median:.0%} of what the loopback carries. With the job's fetch "
        f"settings Spark's source is {gain:,.2f} times as fast as with its defaults. A client's rate is an upper bound "
        "for what is built on it: whatever is done with an event comes on top.\n\n"
        "Not quite alike: Spark's source checks the CRC of every batch, as the Java client does by default, while the "
        "others are told not to, since kafka-python would do it in Python. kafka-python and aiokafka read in one "
        "thread, confluent-kafka fetches in threads of its own, Spark has a task for each partition. quixstreams is "
        "left out: it reads through confluent-kafka, and asks for an older one than this project pins.\n"
    )
