"""Types of command-line flags, and a parser that says what is wrong in one line."""

from __future__ import annotations

import argparse
import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import urlsplit

from uniques.core.fields import TIME_FORMATS, Field, parse_fields
from uniques.errors import EXIT_USAGE
from uniques.times import parse_duration, parse_iso_time

if TYPE_CHECKING:
    from collections.abc import Callable

# What a flag says in place of a duration.
OFF = "off"
AVAILABLE_NOW = "available-now"

TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s,:\[\]]+):\d{1,5}")


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that says what is wrong in one line, without the usage before it; exit status 2."""

    def error(self, message: str) -> NoReturn:
        """Ends with the message on stderr."""
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message} (see --help)\n")


def refuse(text: str, allowed: str) -> argparse.ArgumentTypeError:
    """The error for a value that is not allowed; argparse puts the flag's name before it."""
    return argparse.ArgumentTypeError(f"{text!r} is not allowed: give {allowed}")


def duration(minimum_seconds: int) -> Callable[[str], int]:
    """A type for durations such as `1 minute`, at least `minimum_seconds` long, in seconds."""

    def parse(text: str) -> int:
        milliseconds = parse_duration(text, "second|minute|hour|day")
        if milliseconds is None or milliseconds < minimum_seconds * 1_000:
            raise refuse(
                text,
                f"a whole number and seconds, minutes, hours or days, such as '5 seconds', {minimum_seconds} s or more",
            )
        return milliseconds // 1_000

    return parse


def duration_or_off(minimum_seconds: int) -> Callable[[str], int | str]:
    """A type for what `duration` takes, in seconds, and for OFF."""
    parse = duration(minimum_seconds)
    return lambda text: text if text == OFF else parse(text)


def trigger(text: str) -> int | str:
    """A type for AVAILABLE_NOW, or a duration, in milliseconds."""
    if text == AVAILABLE_NOW:
        return text
    milliseconds = parse_duration(text, "millisecond|second|minute|hour")
    if milliseconds is None:
        raise refuse(text, "available-now or a duration such as '1 second' or '500 milliseconds'")
    return milliseconds


def number(minimum: float, maximum: float) -> Callable[[str], float]:
    """A type for numbers in `[minimum, maximum]`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not minimum <= value <= maximum:
            raise refuse(text, f"a number from {minimum:g} to {maximum:g}")
        return value

    return parse


def whole_number(minimum: int, maximum: int) -> Callable[[str], int]:
    """A type for whole numbers in `[minimum, maximum]`."""

    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,18}", text) or not minimum <= int(text) <= maximum:
            raise refuse(text, f"a whole number from {minimum:,} to {maximum:,}")
        return int(text)

    return parse


def instant(text: str) -> int:
    """A type for a time such as `2016-07-11T13:39`, UTC unless it has an offset, in unix seconds."""
    time = parse_iso_time(text)
    if time is None or time.microsecond:
        raise refuse(text, "a time such as 2016-07-11T13:39, in UTC, or with its offset: 2016-07-11T13:39+02:00")
    return int(time.replace(tzinfo=time.tzinfo or timezone.utc).timestamp())


def minute(text: str) -> datetime:
    """A type for a full minute such as `2016-07-11T13:39`, with or without an offset."""
    time = parse_iso_time(text)
    if time is None or time.second or time.microsecond:
        raise refuse(text, "a full minute such as 2016-07-11T13:39, or with an offset: 2016-07-11T13:39Z")
    return time


def field(text: str) -> Field:
    """A type for the path of one field of an event's JSON object."""
    found = fields(text)
    if len(found) > 1 or not found[0].is_json:
        raise refuse(text, "the path of one field, such as ts or context.sent_at")
    return found[0]


def fields(text: str) -> tuple[Field, ...]:
    """A type for paths of fields, separated by commas."""
    try:
        return parse_fields(text.strip())
    except ValueError:
        raise refuse(
            text,
            "the path of a field, such as uid or user.id, or several with commas; names with dots or blanks in "
            "backticks; @topic, @key or @header.NAME of the record",
        ) from None


def group_value(text: str) -> tuple[Field, str | None]:
    """A type for `PATH=VALUE`, or `PATH` for an event without the field."""
    path, equals, value = text.partition("=")
    found = fields(path)
    if len(found) > 1:
        raise refuse(text, "one field and its value, such as country=CH")
    return found[0], value if equals else None


def time_format(text: str) -> str:
    """A type for TIME_FORMATS and patterns; Spark says later whether it knows the pattern."""
    if text not in TIME_FORMATS and not ("y" in text and re.search("[Hhk]", text)):
        raise refuse(text, f"{', '.join(TIME_FORMATS)}, or a pattern such as 'dd/MMM/yyyy:HH:mm:ss Z'")
    return text


def topic(text: str) -> str:
    """A type for a Kafka topic's name."""
    if not TOPIC_NAME.fullmatch(text) or text in {".", ".."}:
        raise refuse(text, "one topic name of letters, digits, '.', '_' and '-', 249 at most")
    return text


def topics(text: str) -> tuple[str, ...]:
    """A type for the names of Kafka topics, separated by commas, each once."""
    return tuple(dict.fromkeys(topic(name.strip()) for name in text.split(",")))


def topic_pattern(text: str) -> str:
    """A type for a regular expression that names of topics match; Java, which matches them too, is alike in these."""
    try:
        re.compile(text)
    except re.error as error:
        raise refuse(text, f"a regular expression ({error})") from None
    if not text.strip():
        raise refuse(text, "a regular expression, not empty")
    return text


def group(text: str) -> str:
    """A type for a Kafka consumer group's name."""
    if not text.strip():
        raise refuse(text, "the name of a consumer group, not empty")
    return text.strip()


def location(text: str) -> str:
    """A type for a folder or URL that is not empty."""
    if not text.strip():
        raise refuse(text, "a folder, or a URL of a file system that Spark knows")
    return text.strip()


def bootstrap_servers(text: str) -> str:
    """A type for `host:port`, several separated by commas."""
    servers = [server.strip() for server in text.split(",")]
    if not all(SERVER.fullmatch(server) for server in servers):
        raise refuse(text, "host:port, several separated by commas")
    return ",".join(servers)


def listen_address(text: str) -> tuple[str, int]:
    """A type for `port` (on 127.0.0.1 only) or `host:port`, to listen on."""
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"\d{1,5}", port) or not 1 <= int(port) <= 65535 or (":" in text and not host):
        raise refuse(text, "a port from 1 to 65535, or host:port; 0.0.0.0:port listens on every interface")
    return host.strip("[]") or "127.0.0.1", int(port)


def registry_url(text: str) -> str:
    """The address of a schema registry. A message never repeats it: it may hold a password."""
    parts = urlsplit(text.strip())
    if "@" in parts.netloc:
        raise argparse.ArgumentTypeError(
            "a user does not belong in the address: give schema.registry.basic.auth.user.info in --kafka-config"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("give an address such as https://registry:8081")
    return text.strip().rstrip("/")
