"""What a right engine finds in a topic of generated events, awkward ones among them, and how right one was."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from generate_events import Event

WINDOW_SECONDS = 60
FLIPPED_SHARE = 1 / 500


@dataclass(frozen=True)
class Bounds:
    """What a right result of a window may say: some events may be counted or left out."""

    events: tuple[int, int]
    users: tuple[int, int]


@dataclass
class Truth:
    """The exact answer of a topic.

    Certain events have to be counted. Doubtful ones may be: late ones, malformed ones that somebody could read, and
    those whose time is damaged, in the window it then says.
    """

    certain: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    doubtful: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, ts: int, uid: str, certain: bool) -> None:
        """Counts one event."""
        (self.certain if certain else self.doubtful)[ts - ts % WINDOW_SECONDS].append(uid)

    def bounds(self) -> dict[str, Bounds]:
        """For every window with certain events, by its start as engines write it."""
        found = {}
        for start, users in sorted(self.certain.items()):
            others = self.doubtful.get(start, [])
            certain = set(users)
            found[name_window(start)] = Bounds(
                (len(users), len(users) + len(others)), (len(certain), len(certain.union(others)))
            )
        return found


@dataclass(frozen=True)
class Verdict:
    """How many windows are right, of how many; results written again; results for minutes without certain events."""

    right: int
    windows: int
    duplicates: int
    others: int


def name_window(ts: int) -> str:
    """The start of the window that a time lies in, as engines write it."""
    return datetime.fromtimestamp(ts - ts % WINDOW_SECONDS, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def compare_results(
    results: Iterable[dict[str, Any]], truth: dict[str, Bounds], tolerance: float, ignored: str = ""
) -> Verdict:
    """Checks results by the bounds; of several for one window the last counts, as in a compacted topic.

    `tolerance`: relative, of the users; `ignored`: the window that has not ended.
    """
    last: dict[str, dict[str, Any]] = {}
    written = 0
    for result in results:
        if result["window_start"] != ignored:
            last[result["window_start"]] = result
            written += 1
    right = 0
    for window, bounds in truth.items():
        result = last.get(window, {})
        low, high = bounds.users[0] * (1 - tolerance), bounds.users[1] * (1 + tolerance)
        counted = bounds.events[0] <= result.get("events", -1) <= bounds.events[1]
        right += counted and low <= result.get("unique_users", -1) <= high
    return Verdict(right, len(truth), written - len(last), len(last.keys() - truth.keys()))


def read_leniently(line: bytes) -> tuple[int, str] | None:
    """What somebody could take a malformed line for: a time and a user, or None."""
    with suppress(ValueError, TypeError, KeyError, OverflowError):
        event = json.loads(line)
        ts = int(float(event["ts"]))
        return ts, str(event["uid"])
    return None


def flip_times(events: Iterable[Event], seed: int) -> Iterator[tuple[Event, int | None]]:
    """Flips one of 32 bits of `ts` in one event of 500; yields each event, and the time it says if it was flipped."""
    random_ = random.Random(seed)
    for event in events:
        if event.ts is None or random_.random() >= FLIPPED_SHARE:
            yield event, None
            continue
        flipped = event.ts ^ (1 << random_.randrange(32))
        yield replace(event, line=event.line.replace(b"%d" % event.ts, b"%d" % flipped)), flipped
