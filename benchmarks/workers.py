"""Spark in a process of its own, so that sessions with other masters can live side by side and be measured in turns."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from pyspark.sql import SparkSession
from session import start_session
from throughput import Bench
from uniques.core.counts import DEFAULT_COUNTER
from uniques.kafka.properties import KafkaCluster
from uniques.kafka.subscription import Subscription
from uniques.kafka.topics import read_topic

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from pyspark.sql import DataFrame

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class SparkWorker:
    """A process with a session; a context manager. What it runs and returns must be picklable."""

    def __init__(self, cores: int, memory: str = "2g") -> None:
        """Starts with the first call."""
        # Not forked: py4j's sockets and Kafka's threads would come along.
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(1, context, start_session, (f"bench-{cores}", memory, cores))

    def __enter__(self) -> SparkWorker:
        """Ready to be called."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the session and the process."""
        if error is None:
            self._pool.submit(stop_session).result()
        self._pool.shutdown(cancel_futures=True)

    def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **named: Parameters.kwargs
    ) -> Result:
        """What the function returns or raises over there."""
        return self._pool.submit(function, *args, **named).result()


def stop_session() -> None:
    """Ends this process's session."""
    SparkSession.builder.getOrCreate().stop()


class TopicBench(Bench):
    """The ways of `throughput.Bench` on any topic, and with any Kafka client properties."""

    def __init__(
        self,
        servers: str,
        folder: Path,
        topic: str,
        batch: int,
        state_partitions: int = 2,
        properties: dict[str, str] | None = None,
    ) -> None:
        """In this process's session."""
        super().__init__(SparkSession.builder.getOrCreate(), servers, folder, batch, state_partitions)
        self._cluster = KafkaCluster(servers, properties or {})
        self._topic = topic

    def _source(self) -> DataFrame:
        return read_topic(self._spark, self._cluster, Subscription((self._topic,)), "earliest", self._batch)


def run_job(servers: str, folder: str, topic: str, batch: int) -> float:
    """Events a second of the job's pipeline on a topic, in this process's session."""
    return TopicBench(servers, Path(folder), topic, batch).job(DEFAULT_COUNTER)
