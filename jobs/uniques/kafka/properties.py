"""Kafka client properties, and the cluster they belong to.

The file is read here, not by Java: the flags are checked before a JVM runs, and the job brings no Python package with
it. A property test compares this reader with `java.util.Properties`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Spark sets these itself and refuses to start when they are given.
RESERVED_PROPERTIES = {
    "auto.offset.reset",
    "enable.auto.commit",
    "interceptor.classes",
    "key.deserializer",
    "key.serializer",
    "value.deserializer",
    "value.serializer",
}
BLANKS = " \t\f"
ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
# The name ends at the first blank, `=` or `:` that no backslash escapes; blanks may surround one `=` or `:`.
# Matches every line exactly once.
NAME_AND_VALUE = re.compile(r"\A((?:[^\\=: \t\f]|\\.)*)[ \t\f]*([=:]?)[ \t\f]*(.*)", re.DOTALL)
ESCAPE = re.compile(r"\\(u[0-9A-Fa-f]{4}|.)", re.DOTALL)


# Properties of a schema registry's client, in the file with those of Kafka's.
REGISTRY_PREFIX = "schema.registry."


@dataclass(frozen=True)
class RegistryAddress:
    """Where a schema registry is and how to speak to it: `properties` are names and values, without their prefix."""

    url: str
    properties: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class KafkaCluster:
    """Where Kafka is and how to speak to it: `bootstrap_servers` and Kafka client `properties` (TLS, SASL, tuning).

    `registry_properties` are those of a schema registry, without REGISTRY_PREFIX.
    """

    bootstrap_servers: str
    properties: dict[str, str] = field(default_factory=dict, repr=False)
    registry_properties: dict[str, str] = field(default_factory=dict, repr=False)

    def options(self, defaults: dict[str, str]) -> dict[str, str]:
        """Options for Spark's Kafka source and sink; `properties` win over `defaults`."""
        merged = {**defaults, **self.properties, "bootstrap.servers": self.bootstrap_servers}
        return {f"kafka.{name}": value for name, value in merged.items()}


class Property(NamedTuple):
    """One property of a file: the number of its first line, and whether anything separates `name` from `value`."""

    line: int
    name: str
    value: str
    separated: bool


def parse_properties(text: str) -> Iterator[Property]:
    """The properties of a text in the format of `java.util.Properties`, in order.

    Java takes a line without a separator as a name with an empty value; here it is not `separated`. Raises ValueError,
    one line, for a malformed `\\u` escape. No message quotes the text, which may hold a password.
    """
    for number, line in join_lines(text):
        ((name, separator, value),) = NAME_AND_VALUE.findall(line)
        try:
            yield Property(number, unescape(name), unescape(value), bool(separator or value))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None


def join_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that hold a property, each with its number: without comments, and joined where one continues.

    A line continues when an odd number of backslashes ends it; leading blanks of the next line do not count. A comment
    never continues.
    """
    joined, first, continued = "", 0, False
    lines = re.split(r"\r\n|\r|\n", text)
    if text.endswith(("\r", "\n")) and not text.endswith("\r\n"):
        lines.pop()  # so that a backslash alone on the last line is a property without a name, as for Java
    for number, natural in enumerate(lines, 1):
        line = natural.lstrip(BLANKS)
        if not joined:
            first = number
            # Also after a line that holds only a backslash.
            if line.startswith(("#", "!")):
                continued = False
                continue
        backslashes = len(line) - len(line.rstrip("\\"))
        continued = backslashes % 2 == 1
        joined += line[:-1] if continued else line
        if not continued and joined:
            yield first, joined
            joined = ""
    if continued:
        yield first, joined


def unescape(text: str) -> str:
    """Resolves backslash escapes; raises ValueError for a malformed one."""

    def resolve(escape: re.Match[str]) -> str:
        character = escape[1]
        if len(character) > 1:
            return chr(int(character[1:], 16))
        if character == "u":
            raise ValueError("\\u needs four hexadecimal digits")
        return ESCAPES.get(character, character)

    # Java's characters are UTF-16: two escapes may make one character.
    return ESCAPE.sub(resolve, text).encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def parse_client_properties(text: str) -> dict[str, str]:
    """Reads Kafka client properties in Java's format, as Kafka's own tools do; the last one of a name counts.

    Raises ValueError, one line, for a line that has only a name or only a value, and for properties that Spark sets.
    """
    properties = {}
    for line, name, value, separated in parse_properties(text):
        if not separated or not name:
            raise ValueError(f"line {line} must be name=value, a # comment or empty")
        if name in RESERVED_PROPERTIES:
            raise ValueError(f"{name} is set by Spark and can't be changed")
        if re.search("[\ud800-\udfff]", name + value):
            raise ValueError(f"line {line}: a \\u escape is half of a character")
        properties[name] = value
    return properties


def split_registry_properties(properties: dict[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The properties of Kafka's client, and those of a schema registry's without their prefix."""
    kafka = {name: value for name, value in properties.items() if not name.startswith(REGISTRY_PREFIX)}
    registry = {
        name.removeprefix(REGISTRY_PREFIX): value
        for name, value in properties.items()
        if name.startswith(REGISTRY_PREFIX)
    }
    return kafka, registry


def read_client_properties(path: Path) -> dict[str, str]:
    """`parse_client_properties` of a file in ISO-8859-1; raises ValueError, one line, also when it can't be read.

    Kafka's own tools read ISO-8859-1 too: any other character is written as `\\uXXXX`.
    """
    try:
        text = path.read_bytes().decode("iso-8859-1")
    except OSError as error:
        raise ValueError(f"can't be read ({error.strerror or error})") from error
    return parse_client_properties(text)
