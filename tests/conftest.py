"""What all tests share: one Spark session, one real Kafka, the job as its users start it, and their order."""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from kafka_broker import KafkaBroker
from pyspark.sql import SparkSession
from support import QUICK_START, InProcess, settings_of_job
from uniques.apps.rollup import DELTA_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
SHARED_BROKER = pytest.StashKey[KafkaBroker]()

os.environ.update(SPARK_SUBMIT_OPTS=QUICK_START, KAFKA_OPTS=QUICK_START)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Gives each process of pytest-xdist that runs tests the port of one broker, which all of them share."""
    config = node.config
    if SHARED_BROKER not in config.stash:
        stack = ExitStack()
        config.stash[SHARED_BROKER] = stack.enter_context(KafkaBroker())
        config.add_cleanup(stack.close)  # called when these processes have ended
    node.workerinput["broker_port"] = config.stash[SHARED_BROKER].port


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts long tests first, so that no process ends up with a long one while the others have nothing left.

    Each process starts with one of as many equal parts of the list: deals the tests out, so that each begins with long
    ones.
    """
    items.sort(key=lambda item: -weigh(item))  # keeps the order of those that weigh the same
    parts = getattr(config, "workerinput", {}).get("workercount", 1)
    items[:] = [item for part in range(parts) for item in items[part::parts]]


def weigh(item: pytest.Item) -> int:
    """How long a test may take, roughly: those with the mark `slow` longest, those without Kafka and Spark least."""
    fixtures = getattr(item, "fixturenames", ())
    marked = item.get_closest_marker("slow") is not None
    return 3 if marked else 2 if "broker" in fixtures else 1 if "spark" in fixtures else 0


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A local session set up as the job sets up its own, but in a time zone that UTC must not depend on."""
    os.environ["PYSPARK_PYTHON"] = sys.executable
    os.environ["SPARK_CONF_DIR"] = str(ROOT / "conf")
    # Delta's rules slow every query down: only where a test of the rollup job was collected.
    needs_delta = any("rollups" in item.path.parent.parts for item in request.session.items)
    session = (
        SparkSession.builder.master("local[2]")
        .appName("tests")
        .config("spark.sql.session.timeZone", "Asia/Kathmandu")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config(map={**DELTA_SETTINGS} if needs_delta else {})
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("warehouse")))
        .getOrCreate()
    )
    yield session
    session.stop()


@pytest.fixture
def in_utc(spark: SparkSession) -> Iterator[None]:
    """The session in UTC, as the jobs have it."""
    zone = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    yield
    spark.conf.set("spark.sql.session.timeZone", zone or "")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A real Kafka broker, the same for all processes that run tests: no test may stop it; see `own_broker`."""
    port = getattr(request.config, "workerinput", {}).get("broker_port")
    if port is not None:
        yield KafkaBroker(port, data=tmp_path_factory.mktemp("broker"))
        return
    with KafkaBroker() as running:
        yield running


@pytest.fixture
def own_broker() -> Iterator[KafkaBroker]:
    """A real Kafka broker for one test, which may stop and kill it."""
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


@pytest.fixture
def main_in_session(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets `main()` of a job run in the tests' own session, as on Databricks, and leaves that as it was."""
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "17.3")
    log = logging.getLogger("uniques")
    monkeypatch.setattr(log, "handlers", list(log.handlers))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with settings_of_job(spark):
        yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    log.propagate = True
