"""What --exactly-once costs in delay: `make bench-exactly-once`.

Runs the job's pipeline on a live stream of small events, a window a second, one after the other with Spark's Kafka
sink and with the transactional writer, in one warm session. The delay of a result is from the moment its window could
close (its end and the watermark have passed, by the clock) to the moment a consumer has it, which reads only what is
committed. Both wait for the next trigger, on average half of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition
from generate_events import Settings, generate_events
from kafka_broker import KafkaBroker
from load_events import load_lines
from machine import describe_machine
from pyspark.sql import SparkSession
from pyspark.sql import functions as F
from uniques.counts import Counter, count_unique_users, make_records
from uniques.events import accept_events, parse_events
from uniques.kafka import KafkaCluster, address_records, read_topic, write_topic
from uniques.transactions import TransactionalWriter

WATERMARK_SECONDS = 1
WARM_UP_SECONDS = 10
COUNTER = Counter()


def receive(servers: str, topic: str, stop: threading.Event, delays: list[float]) -> None:
    """Notes the delay of every result as it arrives."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "bench", "isolation.level": "read_committed"})
    consumer.assign([TopicPartition(topic, 0, 0)])
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            end = json.loads(message.value() or b"")["window_end"]
            closed = datetime.fromisoformat(end.replace("Z", "+00:00")).timestamp() + WATERMARK_SECONDS
            delays.append(time.time() - closed)
    consumer.close()


def measure_delays(
    spark: SparkSession,
    servers: str,
    folder: Path,
    name: str,
    exactly_once: bool,
    seconds: int,
    rate: int,
    trigger: str,
) -> list[float]:
    """Delays of results in seconds, of a run of that many seconds after a warm-up."""
    cluster = KafkaCluster(servers)
    source = read_topic(spark, cluster, f"in-{name}", "earliest", 250_000)
    # The observation keeps Spark from parsing twice, as in the job.
    events = accept_events(parse_events(source).observe("events", F.count(F.lit(1)).alias("read")))
    counts = count_unique_users(events, "1 second", f"{WATERMARK_SECONDS} seconds", COUNTER)
    records = address_records(make_records(counts, COUNTER, final=True), f"out-{name}")
    location = str(folder / name)
    transactions = TransactionalWriter(spark, cluster, f"out-{name}", location, False) if exactly_once else None
    writer = (
        records.writeStream.foreachBatch(transactions.write_batch) if transactions else write_topic(records, cluster)
    )
    delays: list[float] = []
    stop = threading.Event()
    receiver = threading.Thread(target=receive, args=(servers, f"out-{name}", stop, delays))
    with transactions or nullcontext():
        query = writer.option("checkpointLocation", f"{location}/query").trigger(processingTime=trigger).start()
        receiver.start()
        start = int(time.time())
        # Events of now, none late.
        settings = Settings(events=rate * (seconds + WARM_UP_SECONDS), start=start, rate=rate, size=200, delayed=0)
        load_lines((event.line for event in generate_events(settings)), servers, f"in-{name}", rate)
        time.sleep(3)
        query.stop()
    stop.set()
    receiver.join()
    return delays[WARM_UP_SECONDS:]


def main() -> None:
    """Runs the rounds and prints a table."""
    parser = argparse.ArgumentParser(description="What --exactly-once costs in delay.")
    parser.add_argument("--rounds", type=int, default=3, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=60, help="of a run (default: %(default)s)")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second (default: %(default)s)")
    parser.add_argument("--trigger", default="500 milliseconds", help="(default: %(default)s)")
    args = parser.parse_args()
    print(f"machine: {describe_machine()}")
    print(f"load: {args.rate:,} events/s of 200 bytes, a window a second, trigger {args.trigger}", flush=True)
    ways = {"at least once": False, "--exactly-once": True}
    found: dict[str, list[float]] = defaultdict(list)
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="bench-") as folder:
        spark = SparkSession.builder.master("local[2]").appName("exactly-once").getOrCreate()
        spark.conf.set("spark.sql.session.timeZone", "UTC")
        spark.conf.set("spark.sql.shuffle.partitions", 2)
        for round_ in range(args.rounds + 1):
            for way, exactly_once in ways.items():
                name = f"{round_}-{int(exactly_once)}"
                broker.create_topic(f"in-{name}", 2)
                broker.create_topic(f"out-{name}")
                seconds = args.seconds if round_ else WARM_UP_SECONDS
                delays = measure_delays(
                    spark, broker.bootstrap_servers, Path(folder), name, exactly_once, seconds, args.rate, args.trigger
                )
                median = statistics.median(delays) if delays else 0.0
                print(f"round {round_ or 'warm-up'}: {way}: median {median:.2f} s", file=sys.stderr, flush=True)
                found[way] += delays if round_ else []
        spark.stop()
    print(f"{'seconds to the result':<24} {'median':>8} {'95 %':>8} {'largest':>8} {'results':>8}")
    for way, delays in found.items():
        ordered = sorted(delays)
        print(
            f"{way:<24} {statistics.median(ordered):>8.2f} {ordered[len(ordered) * 95 // 100]:>8.2f} "
            f"{ordered[-1]:>8.2f} {len(ordered):>8,}"
        )


if __name__ == "__main__":
    main()
