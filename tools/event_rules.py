"""What the job makes of a record, in plain Python: counted, filtered, or rejected for a reason. Needs no Spark.

It follows docs/guides/event-format.md, not the job's code, and tests hold both to the same records. `fields.EventShape`
says where an event has its time and its users.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, NamedTuple, NoReturn

if TYPE_CHECKING:
    from uniques.core.fields import EventShape, Field

COUNTED, FILTERED = "counted", "filtered"
# What the job's --max-future is by default: how many seconds an event may be ahead of its arrival in Kafka.
MAX_FUTURE_SECONDS = 5.0

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# The year 10000.
END_SECONDS = 253_402_300_800
BLANKS = "".join(chr(code) for code in range(1, 33))
JSON_BLANKS = " \t\r\n"
# What may follow a JSON text that is no object or array.
AFTER_SCALAR = JSON_BLANKS + ",]}"
MAX_LEVELS = MAX_DIGITS = 1_000
NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?")
ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)? ?"
    r"(Z|z|[+-](?:(?:0\d|1[0-7])(?::?[0-5]\d)?|18(?::?00)?))?",
    re.ASCII,
)
# All digits of a DECIMAL(38,9), and of its product with a unit.
EXACT = Context(prec=60)
# How many there are in a second -> name of the unit.
UNITS = {1: "unix seconds", 10**3: "unix milliseconds", 10**6: "unix microseconds", 10**9: "unix nanoseconds"}

# What SQL takes for a value, or for a function that is called without brackets.
SQL_VALUES = re.compile(r"true|false|null|current_\w+", re.IGNORECASE)

# Spark's patterns that the tools know -> the same for Python, and what it must look like: Python takes more.
PATTERNS = {
    "dd/MMM/yyyy:HH:mm:ss Z": ("%d/%b/%Y:%H:%M:%S %z", r"\d\d/[A-Za-z]{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}"),
    "yyyyMMddHHmmss": ("%Y%m%d%H%M%S", r"\d{14}"),
    "yyyyMMdd'T'HHmmssX": ("%Y%m%dT%H%M%S%z", r"\d{8}T\d{6}Z"),
    "yyyy/MM/dd HH:mm:ss": ("%Y/%m/%d %H:%M:%S", r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d"),
    "dd.MM.yyyy HH:mm:ss": ("%d.%m.%Y %H:%M:%S", r"\d\d\.\d\d\.\d{4} \d\d:\d\d:\d\d"),
    "dd/MM/yyyy HH:mm:ss": ("%d/%m/%Y %H:%M:%S", r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"),
    "MM/dd/yyyy HH:mm:ss": ("%m/%d/%Y %H:%M:%S", r"\d\d/\d\d/\d{4} \d\d:\d\d:\d\d"),
}


class Record(NamedTuple):
    """A record of a topic, or a line; `arrived` is its arrival time in unix seconds, None where there is none."""

    value: bytes | None
    key: bytes | None = None
    arrived: float | None = None


class BotFlag(NamedTuple):
    """A field that says whether a bot made an event: as text it is `yes` or `no`."""

    field: Field
    yes: str
    no: str

    @property
    def sql(self) -> str:
        """The condition of `--where` that leaves bots out; an event without the field counts."""
        return f"coalesce({sql_name(self.field)}, '{self.no}') <> '{self.yes}'"


class Outcome(NamedTuple):
    """What a record is: its name is COUNTED, FILTERED, or a reject reason. Time in microseconds, user as text."""

    name: str
    time: int | None = None
    user: str | None = None


def sql_name(field: Field) -> str:
    """How SQL names a field."""

    def is_plain(name: str) -> bool:
        return bool(re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)) and not SQL_VALUES.fullmatch(name)

    return ".".join(name if is_plain(name) else f"`{name.replace('`', '``')}`" for name in field.names)


def read_json(value: bytes) -> tuple[object, str | None]:
    """The JSON object in a value and None, or None and the reject reason of a value that has none."""
    text = value.decode("utf-8", "replace")
    start = len(text) - len(text.lstrip(JSON_BLANKS))
    try:
        found, end = DECODER.raw_decode(text, start)
        if text.count("[") + text.count("{") > MAX_LEVELS and count_levels(found) > MAX_LEVELS:
            raise ValueError("nested too deep")
    except (ValueError, RecursionError):
        return None, "not_json" if is_utf8(value) else "invalid_utf8"
    if isinstance(found, dict):
        return found, None
    if not is_utf8(value):
        return None, "invalid_utf8"
    ends_well = isinstance(found, list) or end == len(text) or text[end] in AFTER_SCALAR
    return None, "not_an_object" if ends_well else "not_json"


def is_utf8(value: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        value.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def refuse_constant(text: str) -> NoReturn:
    """Refuses NaN and Infinity, which Python takes for JSON."""
    raise ValueError(text)


def read_integer(text: str) -> int:
    """A whole number, if it is not too long."""
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return int(text)


def read_float(text: str) -> float:
    """A number with a fraction, if it is not too long."""
    if len(text) > MAX_DIGITS:
        raise ValueError("too many digits")
    return float(text)


DECODER = json.JSONDecoder(parse_constant=refuse_constant, parse_int=read_integer, parse_float=read_float)


def count_levels(document: object) -> int:
    """How deep arrays and objects are nested."""
    deepest, left = 0, [(document, 1)]
    while left:
        node, level = left.pop()
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else None
        if inner is not None:
            deepest = max(deepest, level)
            left += [(item, level + 1) for item in inner]
    return deepest


def find_value(document: object, names: tuple[str, ...]) -> object:
    """What the names lead to; None where there is nothing, or an array or a text on the way."""
    for name in names:
        if not isinstance(document, dict):
            return None
        document = document.get(name)
    return document


def as_text(value: object) -> str | None:
    """A value as the job makes a text of it: what is no text, as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def read_unix(text: str) -> tuple[int, str] | None:
    """Microseconds of a unix time, and the name of its unit, which its size says; None when it is none."""
    if not NUMBER.fullmatch(text):
        return None
    number = Decimal(text)
    if number < 0 or number >= 10**29:
        return None
    number = number.quantize(Decimal("1e-9"), ROUND_HALF_UP, EXACT)
    for size, unit in UNITS.items():
        if number < min(END_SECONDS * size, 2**63):
            scaled = EXACT.divide(EXACT.multiply(number, Decimal(10**6)), Decimal(size))
            return int(scaled.to_integral_value(ROUND_FLOOR)), unit
    return None


def read_iso(text: str) -> tuple[int, str] | None:
    """Microseconds of a time in ISO 8601, UTC where it has no offset, and how it is written; None when it is none."""
    match = ISO.fullmatch(text)
    if match is None:
        return None
    *numbers, second, fraction, offset = match.groups()
    year, month, day, hour, minute = map(int, numbers)
    try:
        time = datetime(year, month, day, hour, minute, int(second or 0), tzinfo=timezone.utc)
    except ValueError:
        return None
    micros = (time - EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(9, "0")[:6])
    if offset is None:
        return micros, "ISO 8601 without offset"
    if offset not in "Zz":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        ahead = 60_000_000 * (60 * int(digits[:2]) + int(digits[2:]))
        micros -= -ahead if offset[0] == "-" else ahead
    return micros, "ISO 8601"


def read_pattern(text: str, pattern: str) -> int | None:
    """Microseconds of a time in one of PATTERNS, UTC where it has no offset; None when it is none."""
    python, looks_like = PATTERNS[pattern]
    if not re.fullmatch(looks_like, text, re.ASCII):
        return None
    try:
        time = datetime.strptime(text, python)
    except ValueError:
        return None
    return ((time if time.tzinfo else time.replace(tzinfo=timezone.utc)) - EPOCH) // timedelta(microseconds=1)


def read_time(value: object, time_format: str) -> tuple[int, str] | None:
    """Microseconds of a time in `auto` or one of PATTERNS, and how it is written; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = (as_text(value) or "").strip(BLANKS)
    if time_format == "auto":
        found = read_unix(text) or read_iso(text)
    else:
        micros = read_pattern(text, time_format)
        found = None if micros is None else (micros, time_format)
    return found if found is not None and 0 <= found[0] < END_SECONDS * 10**6 else None


def read_text(record: Record, document: object, field: Field) -> str | None:
    """The text of a field of the JSON object, or of `@key`; null where it is not there."""
    if field.is_json:
        return as_text(find_value(document, field.names))
    return record.key.decode() if record.key is not None and is_utf8(record.key) else None


def classify(record: Record, shape: EventShape, bots: BotFlag | None = None) -> Outcome:
    """What the job makes of a record with that shape, `--where` that leaves out bots, and otherwise its defaults."""
    if record.value is None:
        return Outcome("tombstone")
    document, reason = read_json(record.value)
    if reason is not None:
        return Outcome(reason)

    def is_damaged(text: str) -> bool:
        return "\ufffd" in text and not is_utf8(record.value or b"")

    if bots is not None:
        flag = read_text(record, document, bots.field)
        if flag is not None and is_damaged(flag):
            return Outcome("invalid_utf8")
        if flag == bots.yes:
            return Outcome(FILTERED)
    if shape.has_time_field:
        value = find_value(document, shape.time.names)
        if value is None:
            return Outcome("missing_ts")
        read = read_time(value, shape.time_format.name)
        if read is None:
            return Outcome("bad_ts")
        time = read[0]
    elif record.arrived is None:
        return Outcome("missing_ts")
    else:
        time = round(record.arrived * 10**6)
    user = next(filter(None, (read_text(record, document, field) for field in shape.users)), None)
    if user is None:
        return Outcome("missing_uid")
    if is_damaged(user):
        return Outcome("invalid_utf8")
    if record.arrived is not None and time > (record.arrived + MAX_FUTURE_SECONDS) * 10**6:
        return Outcome("ts_in_future")
    return Outcome(COUNTED, time, user)
