"""When hours, days, weeks, months and years begin and end. Needs a session in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.errors import PySparkException
from pyspark.sql import Column
from pyspark.sql import functions as F

from uniques.core.choices import HOUR_SECONDS, WEEKDAYS
from uniques.errors import UsageError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check_zone(spark: SparkSession, flag: str, zone: str) -> None:
    """Raises UsageError, one line that names `flag`, for a zone that Spark does not know."""
    if zone == "UTC":
        return
    # Spark evaluates it on the driver, without a job.
    row = spark.sql("SELECT * FROM VALUES (TIMESTAMP '2000-01-01 00:00:00') AS row(time)")
    try:
        row.select(F.from_utc_timestamp("time", zone)).collect()
    except PySparkException as error:
        raise UsageError(f"{flag} {zone} is not known: give one such as UTC or Europe/Zurich") from error


@dataclass(frozen=True)
class Calendar:
    """When hours, days, weeks, months and years begin: in `timezone`, weeks on `week_start`, one of WEEKDAYS."""

    timezone: str = "UTC"
    week_start: str = "monday"

    def bounds(self, time: Column, period: str) -> Column:
        """The period that a TIMESTAMP lies in, STRUCT<start TIMESTAMP, end TIMESTAMP>: `[start, end)`."""
        if period == "hour":
            return self._bounds_of_hour(time)
        date = F.to_date(F.from_utc_timestamp(time, self.timezone))
        first = {
            "day": date,
            "week": F.date_sub(date, F.pmod(F.weekday(date) - WEEKDAYS.index(self.week_start), F.lit(7)).cast("int")),
            "month": F.trunc(date, "month").cast("date"),
            "year": F.trunc(date, "year").cast("date"),
        }[period]
        following = {
            "day": F.date_add(first, 1),
            "week": F.date_add(first, 7),
            "month": F.add_months(first, 1),
            "year": F.add_months(first, 12),
        }[period]
        return F.struct(self._midnight(first).alias("start"), self._midnight(following).alias("end"))

    def fits_window(self, start: Column, end: Column) -> Column:
        """Whether windows as long as the one between two TIMESTAMPs, laid end to end with it, fill its hour exactly.

        Only such windows can be united to hours; others lie in two hours, or leave an hour incomplete. Windows of 20
        minutes fit the hours of UTC, but not those of Asia/Kolkata, which begin at half past in UTC.
        """
        hour = self.bounds(start, "hour")
        length = F.unix_seconds(end) - F.unix_seconds(start)
        divisor = F.greatest(length, F.lit(1))
        before, whole = (F.unix_seconds(time) - F.unix_seconds(hour.start) for time in (start, hour.end))
        return (length > 0) & (F.pmod(before, divisor) == 0) & (F.pmod(whole, divisor) == 0)

    def name(self, start: Column, period: str) -> Column:
        """The usual name of the period that starts at a TIMESTAMP, STRING: 2016-07-11T13, 2016-07-11, 2016-W28, …

        A week that starts on another day than Monday is no ISO week, and is named after its first day.
        """
        local = F.from_utc_timestamp(start, self.timezone)
        if period == "week" and self.week_start == "monday":
            year = F.extract(F.lit("YEAROFWEEK"), local)
            return F.format_string("%04d-W%02d", year.cast("int"), F.weekofyear(local))
        patterns = {
            "hour": "yyyy-MM-dd'T'HH",
            "day": "yyyy-MM-dd",
            "week": "yyyy-MM-dd",
            "month": "yyyy-MM",
            "year": "yyyy",
        }
        return F.date_format(local, patterns[period])

    def _midnight(self, date: Column) -> Column:
        """The first instant of a DATE; where clocks skip midnight, the instant to which they skip."""
        return F.to_utc_timestamp(date.cast("timestamp"), self.timezone)

    def _bounds_of_hour(self, time: Column) -> Column:
        """The hour by local clocks. A clock change of half an hour splits an hour in two, or makes it half as long."""

        def full_hour(seconds: Column) -> Column:
            local = F.unix_seconds(F.from_utc_timestamp(F.timestamp_seconds(seconds), self.timezone))
            return seconds - F.pmod(local, F.lit(HOUR_SECONDS))

        start = full_hour(F.unix_seconds(time))
        end = start + HOUR_SECONDS
        at_start, at_end = full_hour(start), full_hour(end - 1)
        real_start = F.when(at_start == start, start).otherwise(at_start + HOUR_SECONDS)
        real_end = F.when(at_end == start, end).otherwise(at_end)
        return F.struct(F.timestamp_seconds(real_start).alias("start"), F.timestamp_seconds(real_end).alias("end"))
