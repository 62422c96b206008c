"""Unique users a minute in Flink SQL: exact, exactly once to Kafka, from the start of a topic to what is its end now.

python flink_sql.py localhost:9092 in out CONNECTOR_JAR CHECKPOINT_FOLDER
"""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from pyflink.table import EnvironmentSettings, TableEnvironment

SETTINGS = {
    "parallelism.default": "2",
    "table.local-time-zone": "UTC",
    "execution.checkpointing.interval": "10 s",
    "execution.checkpointing.mode": "EXACTLY_ONCE",
}

# A record without a time would end the job, and a time may be nonsense: both go to 1970, and are left out below. One
# computed column can't be made of another.
SECONDS = """IF(
    REGEXP(ts, '^[0-9]{1,10}$') AND TRY_CAST(ts AS BIGINT) <= UNIX_TIMESTAMP(CAST(arrival AS STRING)) + 5,
    TRY_CAST(ts AS BIGINT), 0)"""

SOURCE = """
CREATE TABLE events (
  ts STRING,
  uid STRING,
  arrival TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  seconds AS {seconds},
  event_time AS TO_TIMESTAMP_LTZ({seconds}, 0),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{servers}',
  'properties.max.partition.fetch.bytes' = '16777216',
  'properties.fetch.max.bytes' = '67108864',
  'properties.max.poll.records' = '5000',
  'properties.receive.buffer.bytes' = '1048576',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'json',
  'json.ignore-parse-errors' = 'true'
)
"""

SINK = """
CREATE TABLE results (
  window_start STRING,
  unique_users BIGINT,
  events BIGINT
) WITH (
  'connector' = 'kafka',
  'topic' = '{topic}',
  'properties.bootstrap.servers' = '{servers}',
  'properties.transaction.timeout.ms' = '600000',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '{prefix}',
  'format' = 'json'
)
"""

COUNT = """
INSERT INTO results
SELECT DATE_FORMAT(window_start, 'yyyy-MM-dd''T''HH:mm:ss''Z'''), COUNT(DISTINCT uid), COUNT(*)
FROM TABLE(TUMBLE(TABLE events, DESCRIPTOR(event_time), INTERVAL '1' MINUTE))
WHERE seconds > 0 AND uid <> ''
GROUP BY window_start, window_end
"""


def main(servers: str, input_topic: str, output_topic: str, connector: str, folder: str) -> None:
    """Runs the statement to its end."""
    tables = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    settings = {
        **SETTINGS,
        "pipeline.jars": Path(connector).as_uri(),
        "execution.checkpointing.dir": Path(folder).as_uri(),
    }
    for name, value in settings.items():
        tables.get_config().set(name, value)
    tables.execute_sql(SOURCE.format(topic=input_topic, servers=servers, seconds=SECONDS))
    tables.execute_sql(SINK.format(topic=output_topic, servers=servers, prefix=f"flink-{uuid.uuid4().hex}"))
    tables.execute_sql(COUNT).wait()


if __name__ == "__main__":
    main(*sys.argv[1:6])
