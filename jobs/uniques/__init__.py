"""Unique users per window, as `DataFrame -> DataFrame` functions between a Kafka source and a Kafka sink.

Data flows one way: `events` (parse, accept), `counts` (window, count, record), with `kafka` at both edges.
"""

__version__ = "0.1.0"
