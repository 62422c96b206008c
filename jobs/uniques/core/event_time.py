"""Reads the time of an event from its text, as microseconds since 1970, UTC. `EventDecoder.java` does the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.core.choices import TS_UNITS
from uniques.core.sql import quote_text

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame

    from uniques.core.fields import TimeFormat

# The end of the year 9999 in seconds. Later times are not plausible, and Python can't show them.
MAX_TS_SECONDS = 253_402_300_799
MAX_MICROS = MAX_TS_SECONDS * 1_000_000 + 999_999
MAX_LONG = 2**63 - 1

BLANKS = "".join(chr(code) for code in range(1, 33))
NUMBER = "^[+-]?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]{1,3})?$"
# ISO 8601: the date, the time of day with or without seconds and a fraction of them, and an offset or none.
ISO = (
    "^([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]{1,9})?)?)"
    "( ?(?:[Zz]|[+-](?:(?:0[0-9]|1[0-7])(?::?[0-5][0-9])?|18(?::?00)?)))?$"
)


def add_time(frame: DataFrame, text: Column, time_format: TimeFormat) -> DataFrame:
    """Adds `time_read`, the time that a STRING says, BIGINT microseconds; null when it says none from 1970 to 9999.

    Finer times are cut to microseconds. Adds `time_text` and `time_number` too, so that each is computed once.
    """
    # Spark generates code of all this for every batch: few expressions, as it is needed for few events.
    frame = frame.withColumn("time_text", F.btrim(text, F.lit(BLANKS)))
    number = f"if(time_text RLIKE '{NUMBER}', try_cast(time_text AS DECIMAL(28,9)), NULL)"
    frame = frame.withColumn("time_number", F.expr(number))
    if time_format.pattern is not None:
        if time_format.says_zone:
            micros = f"unix_micros(try_to_timestamp(time_text, {quote_text(time_format.pattern)}))"
        else:
            # With an offset of 0 it does not depend on the session's zone.
            pattern = quote_text(f"{time_format.pattern} XXX")
            micros = to_utc(f"try_to_timestamp(time_text || ' +00:00', {pattern})", time_format.zone)
    elif time_format.name == "unix":
        micros = read_number("time_number", time_format.unit)
    elif time_format.name == "iso":
        micros = read_iso("time_text", time_format.zone)
    else:
        micros = f"coalesce({guess_number('time_number')}, {read_iso('time_text', time_format.zone)})"
    frame = frame.withColumn("time_read", F.expr(micros))
    return frame.withColumn("time_read", F.when(F.col("time_read").between(0, MAX_MICROS), F.col("time_read")))


def largest_ts(unit: str) -> int:
    """The largest whole number that is a time in a unit of TS_UNITS."""
    return min((MAX_TS_SECONDS + 1) * TS_UNITS[unit] - 1, MAX_LONG)


def read_number(number: str, unit: str) -> str:
    """SQL of the microseconds of a unix time, a DECIMAL(28,9), in a unit of TS_UNITS."""
    size = TS_UNITS[unit]
    whole = f"CAST(floor({number} * {max(1, TS_UNITS['us'] // size)}) AS BIGINT)"
    return f"if({number} < {largest_ts(unit)} + 1BD, {whole} DIV {max(1, size // TS_UNITS['us'])}, NULL)"


def guess_number(number: str) -> str:
    """SQL of the microseconds of a unix time, in the largest unit in which it is no later than the year 9999.

    Seconds reach from 1970 to 9999, milli-, micro- and nanoseconds from 1978: no later time is one in another unit.
    """
    cases = " ".join(
        f"WHEN {number} <= {largest_ts(unit)}.999999999BD THEN {number} * {TS_UNITS['us'] // TS_UNITS[unit]}"
        for unit in ("s", "ms", "us")
    )
    nanoseconds = f"{number} > {largest_ts('us')}.999999999BD"
    whole = f"CAST(floor(CASE {cases} WHEN {number} <= {MAX_LONG}.999999999BD THEN {number} END) AS BIGINT)"
    return f"{whole} DIV if({nanoseconds}, 1000, 1)"


def read_iso(text: str, zone: str) -> str:
    """SQL of the microseconds of a time in ISO 8601, in `zone` where it has no offset."""
    # As Spark casts it: a T, seconds, no blank, capitals. What follows the minutes says whether there is an offset.
    joined = f"replace(upper(regexp_replace({text}, '{ISO}', '$1T$2$3')), ' ', '')"
    plain = f"regexp_replace({joined}, '^(.{{16}})(?!:)', '$1:00')"
    offset = f"if(substr({text}, 17) RLIKE '[Zz+-]', '', {quote_text('Z' if zone == 'UTC' else zone)})"
    return f"if({text} RLIKE '{ISO}', unix_micros(try_cast({plain} || {offset} AS TIMESTAMP)), NULL)"


def to_utc(time: str, zone: str) -> str:
    """SQL of the microseconds of a TIMESTAMP that shows the wall clock of a zone."""
    return f"unix_micros({time})" if zone == "UTC" else f"unix_micros(to_utc_timestamp({time}, {quote_text(zone)}))"
