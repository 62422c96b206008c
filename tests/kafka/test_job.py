"""The job on a real Kafka: what it writes, against an exact count by other code."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from load_events import load_lines
from support import (
    DEADLINE_SECONDS,
    LOG_IN_JSON,
    InProcess,
    assert_close,
    count_exactly,
    make_events,
    plain_environment,
    read_log,
    read_records,
    submit,
    submit_command,
)
from uniques import __version__
from uniques.core.counts import Counter, count_unique_users, make_records, set_watermark
from uniques.core.events import accept_events, parse_events
from uniques.core.observation import observe_events
from uniques.errors import JobError, UsageError
from uniques.kafka.admin import TopicDescription, check_topics
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.records import add_topic
from uniques.kafka.subscription import Subscription
from uniques.kafka.topics import check_topic, read_topic, write_topic
from uniques.state.checkpoint import query_location
from uniques.state.manifest import read_parameters
from uniques.state.punctuation import read_punctuation, write_punctuation

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from pyspark.sql import SparkSession


@pytest.mark.parametrize("partitions", [1, 3])
def test_append_writes_every_closed_minute_once(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, partitions: int
) -> None:
    events = make_events(events=12_000, rate=50)  # four minutes
    source, sink = new_topic("in", partitions), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    job.run(
        *("--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")),
        *("--trigger", "available-now", "--max-offsets-per-trigger", "2500", "--idle-timeout", "off"),
    )
    exact = count_exactly(events)
    assert len(exact) == 4
    records = read_records(broker, sink)
    # The last minute is open: nothing came after it.
    assert sorted(key for key, _ in records) == list(exact)[:-1]
    for key, value in records:
        assert_close(value, exact[key])
        assert value["final"] is True


def test_update_writes_running_counts_that_end_at_the_exact_ones(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=6_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    job.run(
        *("--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")),
        *("--trigger", "available-now", "--max-offsets-per-trigger", "1000", "--output-mode", "update"),
    )
    exact = count_exactly(events)
    last: dict[str, dict[str, Any]] = {}
    for key, value in read_records(broker, sink):
        before = last.get(key, {"events": 0, "revision": -1, "final": False})
        assert value["revision"] == before["revision"] + 1
        # The last one may say no more than that it is the last.
        assert value["events"] > before["events"] or (value["final"] and not before["final"])
        last[key] = value
    assert sorted(last) == list(exact)
    assert all(value["final"] for value in last.values())
    assert max(value["revision"] for value in last.values()) > 1
    for key, value in last.items():
        assert_close(value, exact[key])


def test_a_checkpoint_made_with_other_parameters_is_refused_in_one_line(
    job: InProcess, spark: SparkSession, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    location = str(tmp_path / "checkpoint")
    flags = ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", location]
    flags += ["--trigger", "available-now"]
    job.run(*flags)
    made_with = read_parameters(spark, location)
    with pytest.raises(UsageError) as refused:
        job.run(*flags, "--rsd", "0.1", "--window", "2 minutes", "--state-partitions", "3", "--rejects-topic", sink)
    assert str(refused.value) == (
        f"--checkpoint-location {location} was made by version {__version__} with --window 1 minute (now 2 minutes), "
        "--rsd 0.05 (now 0.1), --state-partitions 2 (now 3), --rejects-topic off (now on): give the same, or another "
        "--checkpoint-location, which starts at --starting-offsets (docs/operate/changes.md says how to switch without "
        "a gap)"
    )
    assert read_parameters(spark, location) == made_with
    # The watermark may change.
    job.run(*flags, "--watermark", "10 seconds")


def test_a_missing_topic_is_named_in_one_line_and_not_created(
    spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str]
) -> None:
    cluster, there = KafkaCluster(broker.bootstrap_servers), new_topic("there")
    check_topic(spark, cluster, there)
    for check in (
        lambda: check_topics(spark, cluster, [(there, "READ"), ("not-there", "WRITE")]),
        lambda: check_topic(spark, cluster, "not-there"),  # as under Spark Connect
    ) * 2:
        with pytest.raises(JobError, match=r"^topic 'not-there' does not exist on Kafka at [^\n]*$"):
            check()


def test_what_kafka_says_of_a_topic(spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str]) -> None:
    cluster, source, sink = KafkaCluster(broker.bootstrap_servers), new_topic("in", 3), f"{new_topic('out')}-stamped"
    broker.create_topic(sink, 1, {"message.timestamp.type": "LogAppendTime"})
    spark.sparkContext.setJobGroup("topics", "none")
    found = check_topics(spark, cluster, [(source, "READ"), (sink, "WRITE"), (sink, "READ")])
    assert not spark.sparkContext.statusTracker().getJobIdsForGroup("topics")
    ids = {topic: found[topic].topic_id for topic in (source, sink)}
    assert None not in ids.values()
    assert ids[source] != ids[sink]
    assert found == {
        source: TopicDescription(3, ids[source], "CreateTime"),
        sink: TopicDescription(1, ids[sink], "LogAppendTime"),
    }


@pytest.mark.slow
def test_a_broker_that_is_away_gets_one_line_and_a_status() -> None:
    command = [*submit_command(*LOG_IN_JSON), "--bootstrap-servers", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=plain_environment())
    assert done.returncode == 1
    said = "did not answer in 10 s: is it running, and do --bootstrap-servers and the security settings match?"
    assert read_log(done.stderr) == [("ERROR", f"Kafka at 127.0.0.1:1 {said}")]


@pytest.mark.slow
def test_a_restart_in_the_middle_goes_on_from_the_checkpoint(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    events = make_events(events=12_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now"]
    flags += ["--idle-timeout", "off", "--checkpoint-location", str(tmp_path / "checkpoint")]
    # The cut is in the middle of a minute.
    load_lines((event.line for event in events[:7_000]), broker.bootstrap_servers, source)
    with submit(broker, tmp_path, *flags, zone="Europe/Zurich") as process:
        _, said = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    load_lines((event.line for event in events[7_000:]), broker.bootstrap_servers, source)
    job.run(*flags, "--rsd", "0.05")  # the default; the checkpoint refuses another one
    exact = count_exactly(events)
    records = read_records(broker, sink)
    assert sorted(key for key, _ in records) == list(exact)[:-1]
    for key, value in records:
        assert_close(value, exact[key])
        assert value["relative_error"] == 0.0489


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM to spark-submit", "Ctrl-C"])
def test_a_signal_stops_the_job_cleanly_and_a_restart_continues(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, how: str
) -> None:
    events = make_events(events=6_000, rate=50)
    source, sink = new_topic("in", 2), new_topic("out")
    flags = ["--input-topic", source, "--output-topic", sink, "--rsd", "0.05"]
    flags += ["--checkpoint-location", str(tmp_path / "checkpoint")]
    load_lines((event.line for event in events[:4_000]), broker.bootstrap_servers, source)
    with submit(broker, tmp_path, *flags, zone="Asia/Kathmandu") as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "batch=" in line:
                break
        asked = time.monotonic()
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # a terminal signals all of the foreground group
        else:
            process.terminate()
        said += process.stderr.read().splitlines(keepends=True)
        assert process.wait(DEADLINE_SECONDS) == 0, "".join(said)
    # The running batch has 10 s, and 10 s to let go; the JVM ends after that, slowly on a busy machine.
    assert time.monotonic() - asked < 60
    assert "Traceback" not in "".join(said)

    load_lines((event.line for event in events[4_000:]), broker.bootstrap_servers, source)
    job.run(*flags, "--trigger", "available-now", "--idle-timeout", "off")
    exact = count_exactly(events)
    # At least once: a batch cut short may have written its record already, and writes an equal one again.
    records = dict(read_records(broker, sink))
    assert sorted(records) == list(exact)[:-1]
    for key, value in records.items():
        assert_close(value, exact[key])


def test_the_running_query_parses_json_once(
    spark: SparkSession, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    load_lines([b'{"ts":1,"uid":"a"}'], broker.bootstrap_servers, source)
    cluster = KafkaCluster(broker.bootstrap_servers)
    write_punctuation(spark, str(tmp_path), [])
    parsed = parse_events(read_topic(spark, cluster, Subscription((source,)), "earliest", 10), 5)
    events = accept_events(observe_events(parsed, topics=[source]))
    events = set_watermark(events, read_punctuation(spark, str(tmp_path)))
    counter = Counter(rsd=0.3)
    records = make_records(count_unique_users(events, counter=counter), counter, final=True, revision=0)
    writer = write_topic(add_topic(records, sink), cluster).option("checkpointLocation", query_location(str(tmp_path)))
    query = writer.outputMode("update").trigger(availableNow=True).start()
    query.awaitTermination()
    plan = query._jsq.explainInternal(False)
    assert plan.count("from_json(StructField(ts,") == 1
    # Below the watermark this filter would remove punctuation before it can close a window.
    assert plan.index("isnotnull(uid") < plan.index("EventTimeWatermark")
