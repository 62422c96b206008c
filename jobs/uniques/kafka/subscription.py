"""Which topics are read: some by name, or all whose names match a pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable

# A partition of a topic.
Partition: TypeAlias = tuple[str, int]


@dataclass(frozen=True)
class Subscription:
    """The topics with these `names`, or, when `pattern` is not None, those whose whole name it matches.

    New topics that match are found while a query runs. `flag` is the one that said so.
    """

    names: tuple[str, ...] = ("in",)
    pattern: str | None = None

    @property
    def flag(self) -> str:
        """The flag that says which topics are read."""
        return "--input-topic" if self.pattern is None else "--input-pattern"

    @property
    def text(self) -> str:
        """What that flag was given."""
        return ",".join(self.names) if self.pattern is None else self.pattern

    @property
    def option(self) -> tuple[str, str]:
        """The option of Spark's source, and its value."""
        return ("subscribe" if self.pattern is None else "subscribePattern"), self.text

    def select(self, topics: Iterable[str]) -> tuple[str, ...]:
        """Those of all topics that are read, in order of name; the names themselves where there is no pattern."""
        if self.pattern is None:
            return self.names
        # Kafka's own topics, such as __consumer_offsets, are meant by nobody.
        return tuple(sorted(name for name in topics if re.fullmatch(self.pattern, name) and not name.startswith("__")))
