"""What a flag may choose. Needs no Spark, whose Python takes long to import: a wrong flag gets its line at once."""

from __future__ import annotations

COUNTERS = ("approx_count_distinct", "hll_sketch", "exact")
FORMATS = ("json", "avro", "protobuf")
# How many there are in a second.
TS_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
# Below 8 the formula for the error of a sketch does not hold; one of more than 18 takes over 256 KiB.
MIN_LG_K, MAX_LG_K = 8, 18
PERIODS = ("hour", "day", "week", "month", "year")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
HOUR_SECONDS = 3600
