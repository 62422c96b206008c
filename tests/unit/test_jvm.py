"""What the driver asks its JVM for: the names of classes, the items of lists, and the progress of a query."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest
from py4j.clientserver import ClientServerConnection
from pyspark.sql import functions as F
from pyspark.sql.streaming.listener import StreamingQueryProgress
from uniques.jvm import JavaNames, gateway_of, jvm_of, list_items, require_jvm
from uniques.runtime.progress_text import read_progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pyspark.sql import SparkSession
    from pyspark.sql.streaming.query import StreamingQuery


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The commands that Python sends to the JVM, as they come."""
    sent: list[str] = []
    send = ClientServerConnection.send_command

    def note(connection: ClientServerConnection, command: str) -> str:
        if not command.startswith("m\n"):  # py4j frees objects when Python collects its garbage
            sent.append(command)
        answer: str = send(connection, command)
        return answer

    monkeypatch.setattr(ClientServerConnection, "send_command", note)
    return sent


@pytest.fixture
def query(spark: SparkSession, tmp_path: Path) -> Iterator[StreamingQuery]:
    """A query that has read two files of numbers, with an observation."""
    source = tmp_path / "source"
    spark.range(3).write.parquet(str(source))
    read = spark.readStream.schema("id BIGINT").parquet(str(source)).withColumn("time", F.timestamp_seconds("id"))
    observed = read.withWatermark("time", "1 second").observe(
        "events", F.count(F.lit(1)).alias("read"), F.lit(None).cast("string").alias("none"), F.max("id").alias("last")
    )
    counted = observed.groupBy(F.window("time", "1 second")).count()
    writer = counted.writeStream.format("noop").option("checkpointLocation", str(tmp_path / "checkpoint"))
    query = writer.queryName("numbers").outputMode("update").start()
    query.processAllAvailable()
    yield query
    query.stop()


def test_a_class_is_asked_for_once(spark: SparkSession, questions: list[str]) -> None:
    names = JavaNames(gateway_of(spark).jvm)  # type: ignore[union-attr]
    assert names.java.util.concurrent.TimeUnit._fqn == "java.util.concurrent.TimeUnit"
    assert len(questions) == 1
    assert names.java.util.concurrent.TimeUnit is names.java.util.concurrent.TimeUnit
    assert len(questions) == 1


def test_a_class_that_is_not_there_can_not_be_called(spark: SparkSession) -> None:
    names = require_jvm(spark, "the test")
    is_one = names is jvm_of(spark)
    assert is_one
    with pytest.raises(TypeError):
        names.java.util.NoSuchThing()


def test_the_items_of_a_list_end_without_an_exception(spark: SparkSession, questions: list[str]) -> None:
    items = require_jvm(spark, "the test").java.util.ArrayList()
    for item in ("a", "b"):
        items.add(item)
    questions.clear()
    assert list_items(items) == ["a", "b"]
    assert not [command for command in questions if "TypeUtil" in command]


def test_progress_as_text_is_what_pyspark_reads_value_by_value(query: StreamingQuery) -> None:
    java: Any = query._jsq.recentProgress()[0]
    by_value, by_text = StreamingQueryProgress.fromJObject(java), read_progress(java.json())
    assert by_text.observedMetrics["events"].asDict() == {"read": 3, "none": None, "last": 2}
    for name in ("id", "runId", "name", "timestamp", "batchId", "durationMs", "eventTime", "observedMetrics"):
        assert getattr(by_text, name) == getattr(by_value, name), name
    assert [operator.numRowsTotal for operator in by_text.stateOperators] == [
        operator.numRowsTotal for operator in by_value.stateOperators
    ]
    assert [operator.memoryUsedBytes for operator in by_text.stateOperators] == [
        operator.memoryUsedBytes for operator in by_value.stateOperators
    ]
    assert len(by_text.sources) == len(by_value.sources) == 1
    for name in ("startOffset", "endOffset", "latestOffset"):
        one, other = (str(getattr(progress.sources[0], name)) for progress in (by_text, by_value))
        assert one == other or json.loads(one) == json.loads(other), name


def test_a_batch_without_rates_and_offsets_has_progress_too(query: StreamingQuery) -> None:
    found = json.loads(query._jsq.recentProgress()[0].json())
    for part in (found, *found["sources"]):
        part.pop("inputRowsPerSecond", None)
        part.pop("processedRowsPerSecond", None)
    found["sources"][0]["latestOffset"] = None
    found["sources"][0]["endOffset"] = {"in": {"0": 7}}
    progress = read_progress(json.dumps(found))
    assert math.isnan(progress.sources[0].inputRowsPerSecond)
    assert progress.sources[0].latestOffset == "None"  # as PySpark writes it
    assert json.loads(progress.sources[0].endOffset) == {"in": {"0": 7}}


def test_the_progress_of_a_batch_costs_few_questions(query: StreamingQuery, questions: list[str]) -> None:
    java = query._jsq.recentProgress()[0]
    questions.clear()
    read_progress(java.json())
    assert len(questions) <= 2
