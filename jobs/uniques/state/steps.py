"""The step log: what the driver has decided to send, kept beside the checkpoint.

A step is what was done with a batch, or between two batches: which windows changed, and which records go out. It is
written before its records are sent, and never changed. So a start after a crash knows the last decision: it sends the
records again unless Kafka says that it has them, and decides nothing twice. Two instances on one checkpoint can't both
write the same step.

A step holds the windows that it changed; every FULL_EVERY-th, and the first of a run, holds all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from uniques.errors import JobError
from uniques.state.publishing import Key, Window
from uniques.state.sidecar import beside, create_file, delete_file, list_names, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyspark.sql import SparkSession

FOLDER = "steps"
FULL_EVERY = 16


@dataclass(frozen=True)
class Step:
    """What a step did.

    `batch` is the last batch that was taken over; `absorbed` the events that this batch brought, and `sent_events` by
    how many the events in the output grew since it began. `sent` are the keys of the windows whose records go out,
    `transactions` how many steps with records there were, this one included. `reached` is progress, unix seconds.
    """

    number: int = -1
    batch: int = -1
    transactions: int = 0
    reached: float = 0.0
    absorbed: int = 0
    sent_events: int = 0
    sent: list[Key] = field(default_factory=list)
    forgotten: list[Key] = field(default_factory=list)
    full: bool = False


class StepLog:
    """The steps of one checkpoint."""

    def __init__(self, spark: SparkSession, location: str) -> None:
        """Reads what there is: `last` step, and the `windows` as it left them."""
        self._spark = spark
        self._folder = beside(location, FOLDER)
        self.windows: dict[Key, Window] = {}
        self.last = self._read()
        self._next_is_full = True

    def add(self, step: Step, changed: Iterable[Window], windows: dict[Key, Window]) -> None:
        """Writes the next step, with the windows it changed, or with all; raises JobError when it is there already."""
        full = self._next_is_full or step.number % FULL_EVERY == 0
        header = json.dumps({**asdict(step), "full": full})
        sent = set(step.sent)
        rows = [describe_window(window, window.key in sent) for window in (windows.values() if full else changed)]
        try:
            create_file(self._spark, f"{self._folder}/{step.number}", "\n".join([header, *rows, "end"]) + "\n")
        except FileExistsError:
            raise JobError("another instance runs on the same --checkpoint-location: stop one of the two") from None
        self._next_is_full = False
        self.last = step
        if step.number >= 2 * FULL_EVERY:
            delete_file(self._spark, f"{self._folder}/{step.number - 2 * FULL_EVERY}")

    def _read(self) -> Step:
        found: list[tuple[Step, list[Window]]] = []
        numbers = [int(name) for name in list_names(self._spark, self._folder) if name.isdecimal()]
        for number in sorted(numbers, reverse=True):
            lines = (read_file(self._spark, f"{self._folder}/{number}") or "").splitlines()
            if not lines or lines[-1] != "end":
                # The machine went down while it was written, so nothing of it was sent.
                delete_file(self._spark, f"{self._folder}/{number}")
                continue
            step = read_step(lines[0])
            found.append((step, [read_window(line) for line in lines[1:-1]]))
            if step.full:
                break
        for step, windows in reversed(found):
            self.windows.update({window.key: window for window in windows})
            for key in step.forgotten:
                self.windows.pop(key, None)
        return found[0][0] if found else Step()


def read_step(line: str) -> Step:
    """A step without its windows."""
    step = Step(**json.loads(line))
    return replace(step, sent=[Key(*key) for key in step.sent], forgotten=[Key(*key) for key in step.forgotten])


def read_window(line: str) -> Window:
    """A window as `describe_window` wrote it."""
    key, *values = json.loads(line)
    return Window(Key(*key), *values)


def describe_window(window: Window, is_sent: bool) -> str:
    """A window as a line; its sketch only while a record with it is to be sent."""
    is_needed = is_sent or window.changed or not window.final
    return json.dumps(
        [
            window.key,
            window.unique_users,
            window.events,
            window.sketch if is_needed else None,
            window.revision,
            window.sent_events,
            window.sent_at,
            window.final,
        ]
    )
