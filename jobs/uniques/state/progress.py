"""Progress: how far event time is read, which decides when windows are published and when Spark may forget them.

Two rules keep a part of the events from speaking for all of them:

- **Unread records hold progress back.** While a partition has records that are not read, progress is at most the
  position of that partition. A partition that is read to its end holds nothing back.
- **A time counts once enough events reach it.** A flipped bit, or a producer whose clock is ahead, makes a few events
  far ahead of the others. They are counted in the windows they name, and move nothing. Nor does any event move progress
  beyond the clock of the driver, which is asked for nothing else.

Times are unix seconds. Progress never goes back.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from uniques.kafka.subscription import Partition

# A window counts with at least this share of the events of the fullest one: producers whose clocks are ahead are fewer.
WINDOW_SHARE = 0.2
# And with this share of all events in it or beyond, no less than so many: flipped bits are far fewer.
BEYOND_SHARE = 0.01
BEYOND_EVENTS = 3
# So many events are looked at, of several batches where batches are small: a share of fewer says little.
SAMPLE_EVENTS = 20


class Seen(NamedTuple):
    """What a batch added to a window: `events`, and `newest`, the latest event time in the window so far."""

    events: int
    newest: float


class Progress:
    """Follows batches; `reached` is progress, 0 before there is any."""

    def __init__(self, reached: float = 0.0) -> None:
        """Goes on from an earlier run's `reached`."""
        self.reached = reached
        self.held_by: Partition | None = None
        self._recent: deque[Mapping[int, Seen]] = deque()
        self._positions: dict[Partition, float] = {}
        self._samples: dict[Partition, Counter[float]] = {}

    def add_batch(self, seen: Mapping[int, Seen], unread: Collection[Partition], now: float) -> None:
        """Adds what a batch read: window start -> what came to it.

        `unread` are the partitions that had more records than the batch took. `held_by` is then the one that holds
        progress back, and None when none does.
        """
        if seen:  # batches without an event would pile up
            self._recent.append(seen)
        sizes = [count_events(batch) for batch in self._recent]
        while sum(sizes[1:]) >= SAMPLE_EVENTS:
            self._recent.popleft()
            sizes.pop(0)
        reached = min(find_newest(self._recent), now)
        self.held_by = None
        if unread:
            slowest = min(unread, key=self.position_of)
            if self.position_of(slowest) < reached:
                reached, self.held_by = self.position_of(slowest), slowest
        self.reached = max(self.reached, reached)

    def add_positions(self, counts: Mapping[tuple[Partition, float], int]) -> None:
        """Adds how many events of a batch each partition had at which time: `(partition, time) -> events`."""
        for (partition, time), events in counts.items():
            self._samples.setdefault(partition, Counter())[time] += events
        for partition, sample in list(self._samples.items()):
            if sample.total() >= SAMPLE_EVENTS:
                self._positions[partition] = max(self.position_of(partition), find_position(sample))
                del self._samples[partition]

    def position_of(self, partition: Partition) -> float:
        """How far a partition is read; 0 when too few of its events were."""
        return self._positions.get(partition, 0.0)


def count_events(seen: Mapping[int, Seen]) -> int:
    """The events of a batch."""
    return sum(part.events for part in seen.values())


def find_newest(batches: Iterable[Mapping[int, Seen]]) -> float:
    """The newest time in the latest window that enough of the batches' events are in; 0 when there is none."""
    events: Counter[int] = Counter()
    newest: dict[int, float] = {}
    for batch in batches:
        for start, part in batch.items():
            events[start] += part.events
            newest[start] = max(part.newest, newest.get(start, 0.0))
    enough = WINDOW_SHARE * max(events.values(), default=0)
    beyond = max(BEYOND_EVENTS, BEYOND_SHARE * events.total())
    reached = 0
    for start in sorted(events, reverse=True):
        reached += events[start]
        if reached >= beyond and events[start] >= enough:
            return newest[start]
    return 0.0


def find_position(events: Mapping[float, int]) -> float:
    """The latest of the times that half of the events reach; 0 when there are none."""
    half, reached = sum(events.values()) / 2, 0
    for time in sorted(events, reverse=True):
        reached += events[time]
        if reached >= half:
            return time
    return 0.0
