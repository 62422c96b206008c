"""Unique users per window of event time, Kafka to Kafka, on Spark Structured Streaming.

Each package imports only from those below it: `apps` (the two jobs), `runtime` (session, signals, listeners), `state`
(what is kept beside a checkpoint), `kafka`, `tables`, `local_io` and `decoder` (the edges), `core` (counting, as
`DataFrame -> DataFrame` functions), `errors` and `times`.
"""

__version__ = "0.2.0"
