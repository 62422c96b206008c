"""Where in an event its time, its user and its other fields are. Needs no Spark: flags are parsed with it.

A field is named by a path: `ts`, `context.ip`, with names in backticks or double quotes where they hold dots, blanks or
commas. Beside the fields of the JSON object there are those of the record: `@topic`, `@key`, `@header.NAME`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_FIELDS = ("@topic", "@key", "@header")
# One name of a path: quoted, a quote inside it doubled, or without what would end it.
NAME = re.compile(r'`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|([^\s.,`"]+)')
TIME_FORMATS = ("auto", "unix", "iso", "kafka")
# The letters of a pattern that stand for a zone or an offset.
ZONE_LETTERS = frozenset("VzOXxZ")


class Field(NamedTuple):
    """A field by the names that lead to it; the first one is one of RECORD_FIELDS where the record has it."""

    names: tuple[str, ...]

    @property
    def is_json(self) -> bool:
        """Whether it is a field of the JSON object."""
        return self.names[0] not in RECORD_FIELDS

    @property
    def text(self) -> str:
        """The path, as a flag takes it."""
        return ".".join(
            name if re.fullmatch(r'[^\s.,`"]+', name) else f"`{name.replace('`', '``')}`" for name in self.names
        )


def parse_fields(text: str) -> tuple[Field, ...]:
    """The fields of a text such as `user.id,anonymous_id`; raises ValueError when it is none."""
    fields, at = [], 0
    while True:
        names = []
        while True:
            match = NAME.match(text, at)
            if match is None:
                raise ValueError(text)
            backticks, quotes, bare = match.groups()
            names.append(backticks.replace("``", "`") if backticks else quotes.replace('""', '"') if quotes else bare)
            at = match.end()
            if text[at : at + 1] != ".":
                break
            at += 1
        fields.append(make_field(names))
        rest = re.compile(r"\s*,\s*").match(text, at)
        if at == len(text):
            return tuple(fields)
        if rest is None:
            raise ValueError(text)
        at = rest.end()


def make_field(names: Sequence[str]) -> Field:
    """The field that these names lead to; raises ValueError for a field of the record that none has.

    Other names may begin with @ too, such as `@timestamp`.
    """
    first, *others = names
    if first in RECORD_FIELDS and bool(others) != (first == "@header"):
        raise ValueError(".".join(names))
    # A header's name may have dots.
    return Field((first, ".".join(others))) if first == "@header" else Field(tuple(names))


@dataclass(frozen=True)
class TimeFormat:
    """How an event says its time.

    `name`: one of TIME_FORMATS, or a pattern of Spark's for dates and times. `unit`, of `choices.TS_UNITS`: what
    `unix` counts in. `zone`: of times that say none.
    """

    name: str = "auto"
    unit: str = "s"
    zone: str = "UTC"

    @property
    def pattern(self) -> str | None:
        """The pattern, if it is one."""
        return None if self.name in TIME_FORMATS else self.name

    @property
    def says_zone(self) -> bool:
        """Whether a pattern has a zone or an offset; letters in quotes stand for themselves."""
        return bool(ZONE_LETTERS & set(re.sub(r"'[^']*'", "", self.name)))


class Filter(NamedTuple):
    """A condition: SQL text in `pieces`, between which the values of `fields` stand."""

    pieces: tuple[str, ...]
    fields: tuple[Field, ...]

    def sql(self, columns: Sequence[str]) -> str:
        """The condition with a column, as SQL names it, for each field."""
        texts = [self.pieces[0]]
        for column, piece in zip(columns, self.pieces[1:], strict=True):
            texts += [column, piece]
        return "".join(texts)


TS, UID = Field(("ts",)), Field(("uid",))


@dataclass(frozen=True)
class EventShape:
    """Where an event has what: the first of `users` that is there and not empty is its user.

    `breakdowns` are the fields that events are grouped by, each apart from the others.
    """

    time: Field = TS
    time_format: TimeFormat = field(default_factory=TimeFormat)
    users: tuple[Field, ...] = (UID,)
    where: Filter | None = None
    breakdowns: tuple[tuple[Field, ...], ...] = ()

    @property
    def dimensions(self) -> tuple[Field, ...]:
        """The fields that events are grouped by, each once."""
        return tuple(dict.fromkeys(found for breakdown in self.breakdowns for found in breakdown))

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields that are read as text, each once: users, those of the condition, dimensions."""
        return tuple(dict.fromkeys([*self.users, *(self.where.fields if self.where else ()), *self.dimensions]))

    @property
    def record_fields(self) -> tuple[Field, ...]:
        """Those of them that the record has beside its value."""
        return tuple(found for found in self.fields if not found.is_json)

    @property
    def has_time_field(self) -> bool:
        """Whether the event says its time; else its arrival time is taken for it."""
        return self.time_format.name != "kafka"

    @property
    def json_fields(self) -> tuple[Field, ...]:
        """Those of them that are in the JSON object."""
        return tuple(found for found in self.fields if found.is_json)


DEFAULT_SHAPE = EventShape()
