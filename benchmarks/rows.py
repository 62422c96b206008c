"""What a benchmark found: a row of JSON lines, and ways measured in turns.

A row says what was measured, with which parameters, on which machine and versions, and every repetition's value:

    {"question": "clients", "what": "confluent-kafka", "metric": "rate", "unit": "events/s",
     "values": [471200.0, 468100.0], "parameters": {"events": 1000000}, "machine": "…", "versions": {…}, …}
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

RESULTS = Path(__file__).resolve().parent / "results.jsonl"
Parameter = str | int | float | bool | None


@dataclass(frozen=True)
class Row:
    """One thing measured, with a value for each repetition."""

    question: str
    what: str
    metric: str
    unit: str
    values: list[float]
    parameters: dict[str, Parameter] = field(default_factory=dict)
    machine: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    measured: str = ""  # ISO 8601, UTC
    quick: bool = False

    @property
    def median(self) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest repetition."""
        return min(self.values), max(self.values)


class Recorder:
    """Collects the rows of one question, and writes them once all are there."""

    def __init__(self, question: str, quick: bool, packages: Iterable[str] = ()) -> None:
        """`packages`: Python packages whose versions belong into the rows."""
        self.question = question
        self.quick = quick
        self.rows: list[Row] = []
        self._versions = find_versions(["pyspark", *packages])

    def add(self, what: str, metric: str, unit: str, values: Iterable[float], /, **parameters: Parameter) -> None:
        """Adds a row; `values`: one a repetition. Tells it on standard error too."""
        found = list(values)
        row = Row(
            self.question,
            what,
            metric,
            unit,
            found,
            parameters,
            describe_machine(),
            self._versions,
            datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            self.quick,
        )
        self.rows.append(row)
        say(f"{self.question}: {what}: {metric} {row.median:,.4g} {unit} of {len(found)} {parameters or ''}")

    def save(self, path: Path = RESULTS) -> None:
        """Puts the rows in place of those of an earlier run of the same question."""
        kept = [row for row in read_rows(path) if row.question != self.question] if path.exists() else []
        lines = [json.dumps(asdict(row), sort_keys=True) + "\n" for row in [*kept, *self.rows]]
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_text("".join(lines))
        unfinished.replace(path)


def read_rows(path: Path = RESULTS) -> list[Row]:
    """All rows of a file."""
    return [Row(**json.loads(line)) for line in path.read_text().splitlines()]


def find_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def alternate(ways: Mapping[str, Callable[[], float]], rounds: int, warm_up: bool = True) -> dict[str, list[float]]:
    """Runs every way in turn, `rounds` times, after a round that is not counted; shows progress and time left.

    Returns, for each way, its value in each round, so that ratios can be taken within a round.
    """
    values: dict[str, list[float]] = {name: [] for name in ways}
    began = time.monotonic()
    total = (rounds + warm_up) * len(ways)
    done = 0
    for round_ in range(0 if warm_up else 1, rounds + 1):
        for name, way in ways.items():
            value = way()
            done += 1
            left = (time.monotonic() - began) / done * (total - done)
            say(f"  round {round_ or 'warm-up'}: {name}: {value:,.4g}   ({done} of {total}, {left / 60:.1f} min left)")
            if round_:
                values[name].append(value)
    return values


def ratios(values: list[float], base: list[float]) -> list[float]:
    """Value over base, round by round."""
    return [value / other for value, other in zip(values, base, strict=True)]


def say(message: str) -> None:
    """Progress, on standard error."""
    print(message, file=sys.stderr, flush=True)
