"""What all tests share: one Spark session, one real Kafka, and the job as its users start it."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka_broker import KafkaBroker
from pyspark.sql import SparkSession
from support import QUICK_START, InProcess
from uniques.apps.rollup import DELTA_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent

os.environ.update(SPARK_SUBMIT_OPTS=QUICK_START, KAFKA_OPTS=QUICK_START)


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local session set up as the job sets up its own, but in a time zone that UTC must not depend on."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_CONF_DIR"] = str(ROOT / "conf")
    session = (
        SparkSession.builder.master("local[2]")
        .appName("tests")
        .config("spark.sql.session.timeZone", "Asia/Kathmandu")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config(map={**DELTA_SETTINGS})
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture(scope="session")
def broker() -> Iterator[KafkaBroker]:
    """A real Kafka broker."""
    with KafkaBroker() as running:
        yield running


@pytest.fixture
def new_topic(broker: KafkaBroker) -> Callable[..., str]:
    """Creates a topic with a name of its own: `new_topic("in", partitions=2)`."""

    def create(prefix: str, partitions: int = 1) -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        broker.create_topic(name, partitions)
        return name

    return create


@pytest.fixture
def job(spark: SparkSession, broker: KafkaBroker) -> InProcess:
    """The job's pipeline, run inside the tests' own session."""
    return InProcess(spark, broker)
