"""Kafka client properties, and the cluster they belong to."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class KafkaCluster:
    """Where Kafka is and how to speak to it: `bootstrap_servers` and Kafka client `properties` (TLS, SASL, tuning)."""

    bootstrap_servers: str
    properties: dict[str, str] = field(default_factory=dict, repr=False)

    def options(self, defaults: dict[str, str]) -> dict[str, str]:
        """Options for Spark's Kafka source and sink; `properties` win over `defaults`."""
        merged = {**defaults, **self.properties, "bootstrap.servers": self.bootstrap_servers}
        return {f"kafka.{name}": value for name, value in merged.items()}


def parse_client_properties(text: str) -> dict[str, str]:
    """Reads Kafka client properties in Java's format: `name=value`, `#` comments, `\\` at a line's end continues it.

    Raises ValueError, one line, for a line that is no property and for properties that Spark keeps to itself.
    """
    properties = {}
    for line in re.sub(r"\\\r?\n[ \t]*", "", text).splitlines():
        stripped = line.strip()
        if not stripped or stripped[0] in "#!":
            continue
        name, separator, value = (part.strip() for part in stripped.partition("="))
        if not separator or not name:
            # Not the line itself: it may hold a password.
            raise ValueError("every line must be name=value, a # comment or empty")
        if name in RESERVED_PROPERTIES:
            raise ValueError(f"{name} is set by Spark and can't be changed")
        properties[name] = value
    return properties


def read_client_properties(path: Path) -> dict[str, str]:
    """`parse_client_properties` of a file; raises ValueError, one line, also when it can't be read."""
    try:
        return parse_client_properties(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"can't be read ({getattr(error, 'strerror', None) or error})") from error
