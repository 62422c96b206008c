"""The fault run: its seed, its broker, and its report in build/faults.json and build/faults.txt."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest
from faults import Job, Stream, write_json
from kafka_broker import KafkaBroker
from machine import describe_machine
from support import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROPERTY = "fault"
LONGEST = "kills_of_driver_and_broker"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of the events and of the moments (default: 1)")
    parser.addoption("--kills", type=int, default=100, help="of driver and broker, at least (default: 100)")
    parser.addoption("--live-seconds", type=int, default=300, help="of a stream read by a schedule (default: 300)")


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


@pytest.fixture
def setting(broker: KafkaBroker, tmp_path: Path, seed: int) -> Iterator[Callable[..., tuple[Stream, Job]]]:
    """Makes a stream into a new topic `NAME-in`, and a job from there to `NAME-out`, which is killed at the end."""
    jobs = []

    def make(name: str, *flags: str) -> tuple[Stream, Job]:
        broker.create_topic(f"{name}-in", 2)
        broker.create_topic(f"{name}-out")
        jobs.append(Job(broker, tmp_path, f"{name}-in", f"{name}-out", *flags))
        return Stream(broker, f"{name}-in", seed), jobs[-1]

    yield make
    for job in jobs:
        job.kill()


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
