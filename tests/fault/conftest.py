"""The fault run: its seed, its broker, and its report in build/faults.json and build/faults.txt."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from faults import Job, Stream, make_jobs, write_json
from kafka_broker import KafkaBroker
from kafka_cluster import KafkaCluster
from machine import describe_machine
from support import ROOT
from toxiproxy import Toxiproxy, ToxiproxyError, install_toxiproxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROPERTY = "fault"
LONGEST = "kills_of_driver_and_broker"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of the events and of the moments (default: 1)")
    parser.addoption("--kills", type=int, default=100, help="of driver and broker, at least (default: 100)")
    parser.addoption("--live-seconds", type=int, default=300, help="of a stream read by a schedule (default: 300)")
    parser.addoption(
        "--minutes", type=float, default=1.0, help="of schedules drawn at random, one at least (default: 1)"
    )
    parser.addoption("--schedule", help="a file with a schedule, to be run in place of those drawn at random")


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    value: int = pytestconfig.getoption("--seed")
    return value


@pytest.fixture(scope="session")
def live_seconds(pytestconfig: pytest.Config) -> int:
    """How long the stream flows that runs by a schedule read."""
    value: int = pytestconfig.getoption("--live-seconds")
    return value


@pytest.fixture(scope="session")
def broker() -> Iterator[KafkaBroker]:
    with KafkaBroker() as running:
        yield running


@pytest.fixture(scope="session")
def cluster() -> Iterator[KafkaCluster]:
    """Three brokers; a test leaves all of them running."""
    with KafkaCluster() as running:
        yield running


@pytest.fixture
def whole_cluster(cluster: KafkaCluster) -> KafkaCluster:
    """The same, whatever the test before left of it."""
    for node in cluster.nodes.values():
        if node.is_running:
            node.resume()
    cluster.start()
    return cluster


@pytest.fixture(scope="session")
def network(cluster: KafkaCluster, seed: int) -> Iterator[dict[int, Toxiproxy]]:
    """A proxy before each broker of the cluster, by number; clients of `proxied_bootstrap_servers` pass them."""
    try:
        install_toxiproxy()
    except ToxiproxyError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        yield {
            number: stack.enter_context(Toxiproxy(node.advertised_port, node.proxied_port, seed))
            for number, node in cluster.nodes.items()
        }


@pytest.fixture
def good_network(network: dict[int, Toxiproxy]) -> Iterator[dict[int, Toxiproxy]]:
    """The same without faults, before and after."""
    for proxy in network.values():
        proxy.heal()
        proxy.clear()
    yield network
    for proxy in network.values():
        proxy.heal()
        proxy.clear()
        proxy.cut()


@pytest.fixture
def setting(broker: KafkaBroker, tmp_path: Path, seed: int) -> Iterator[Callable[..., tuple[Stream, Job]]]:
    """See `make_jobs`."""
    with make_jobs(broker, tmp_path, seed) as make:
        yield make


@pytest.fixture
def cluster_setting(
    whole_cluster: KafkaCluster, tmp_path: Path, seed: int
) -> Iterator[Callable[..., tuple[Stream, Job]]]:
    """The same on the cluster."""
    with make_jobs(whole_cluster, tmp_path, seed) as make:
        yield make


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Says what a fault did: `report("what happened", figure=1)`."""
    started = time.monotonic()

    def add(fault: str, outcome: str, **figures: Any) -> None:
        row = {"fault": fault, "outcome": outcome, **figures, "seconds": round(time.monotonic() - started)}
        # These travel from the processes that run tests to the one that reports.
        request.node.user_properties.append((PROPERTY, row))

    return add


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest test first: another process works off the others meanwhile."""
    items.sort(key=lambda item: LONGEST not in item.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    reports = terminalreporter.stats.get("passed", [])
    rows = [row for found in reports for name, row in found.user_properties if name == PROPERTY]
    if not rows:
        return
    seed = config.getoption("--seed")
    write_json(ROOT / "build" / "faults.json", {"machine": describe_machine(), "seed": seed, "faults": rows})
    lines = [f"machine: {describe_machine()}", f"seed: {seed}"]
    for row in rows:
        figures = {name: value for name, value in row.items() if name not in ("fault", "outcome", "seconds")}
        lines += [f"{row['fault']} ({row['seconds']} s)", f"    {row['outcome']}"]
        lines += [f"    {name.replace('_', ' ')}: {value}" for name, value in figures.items()]
    (ROOT / "build" / "faults.txt").write_text("\n".join(lines) + "\n")
    terminalreporter.section("faults: build/faults.txt, build/faults.json")
    for line in lines:
        terminalreporter.write_line(line)
