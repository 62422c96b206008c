"""The checkpoints that releases left, and the events that their jobs had read."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

from support import utc

CHECKPOINTS = Path(__file__).parent / "kafka" / "checkpoints"
# The checkpoints of every release that a later one goes on from: what it is -> flags beside FLAGS.
RELEASES = {
    "0.2.0": [],
    "0.2.0-groups": ["--counter", "exact", "--by", "page"],
}
FLAGS = ["--rsd", "0.02", "--trigger", "available-now", "--max-offsets-per-trigger", "300"]
START = 1_468_244_340  # 2016-07-11T13:39:00Z
READ_BEFORE = 900  # events the released job read: a minute and a half


def source_of(release: str) -> str:
    """The topic that a release's checkpoint has offsets of."""
    return f"in-{release}"


def make_event(index: int) -> tuple[int, str, str]:
    """Ten a second, in order, of 500 users on 3 pages; a formula, so that a release's offsets fit for ever."""
    return START + index // 10, f"user-{index * index * 7919 % 4_999 % 500}", f"page-{index % 7 % 3}"


def make_lines(number: int = 1_500) -> list[bytes]:
    events = map(make_event, range(number))
    return [json.dumps({"ts": ts, "uid": uid, "page": page}).encode() for ts, uid, page in events]


def count_groups(number: int = 1_500) -> dict[tuple[str, str | None], tuple[int, int]]:
    """Window start and page, None for all -> (unique users, events) of `make_lines`, by sets."""
    users: defaultdict[tuple[str, str | None], set[str]] = defaultdict(set)
    events: Counter[tuple[str, str | None]] = Counter()
    for ts, uid, page in map(make_event, range(number)):
        for group in (None, page):
            users[utc(ts - ts % 60), group].add(uid)
            events[utc(ts - ts % 60), group] += 1
    return {key: (len(users[key]), events[key]) for key in users}


def count_lines(number: int = 1_500) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events) of `make_lines`, by sets."""
    return {start: counted for (start, group), counted in count_groups(number).items() if group is None}
