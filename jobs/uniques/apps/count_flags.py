"""The flags of unique_users.py."""

from __future__ import annotations

from pathlib import Path

from uniques.apps.event_flags import add_event_options
from uniques.apps.format_settings import add_format_options
from uniques.apps.shared_flags import add_kafka_options, add_metrics_option
from uniques.core.choices import COUNTERS, MAX_LG_K, MIN_LG_K
from uniques.flag_types import (
    OneLineParser,
    duration,
    duration_or_off,
    fields,
    group,
    instant,
    location,
    number,
    topic,
    topic_pattern,
    topics,
    trigger,
    whole_number,
)

QUERY_NAME = "unique_users"
DELIVERIES = ("exactly-once", "at-least-once")


def make_parser() -> OneLineParser:
    """The job's flags."""
    parser = OneLineParser(
        prog=QUERY_NAME,
        description="Counts unique users per window of event time: JSON events from a Kafka topic, counts to another.",
        allow_abbrev=False,
    )
    add_kafka_options(parser)
    source = parser.add_argument_group("input")
    source.add_argument(
        "--input-topic", type=topics, metavar="TOPIC,…", help="one topic, or several with commas (default: in)"
    )
    source.add_argument(
        "--input-pattern",
        type=topic_pattern,
        metavar="REGEX",
        help="instead of --input-topic: all topics whose whole name matches this regular expression, such as "
        "'events\\..*'; new ones are found while the job runs, and read from their beginning (default: none)",
    )
    source.add_argument(
        "--input",
        type=location,
        metavar="PATH",
        help="read a file or folder of JSON lines (.gz too), or - for standard input, instead of the topic, and end",
    )
    source.add_argument(
        "--starting-offsets",
        choices=("earliest", "latest"),
        default="earliest",
        help="where a new checkpoint starts in the input topic; an old one goes on where it was (default: %(default)s)",
    )
    source.add_argument(
        "--max-offsets-per-trigger",
        type=whole_number(1, 10**9),
        default=250_000,
        metavar="N",
        help="most events in one batch: bounds memory and time of a batch after an outage (default: %(default)s)",
    )
    source.add_argument(
        "--read-tasks",
        type=whole_number(1, 10_000),
        metavar="N",
        help="tasks that read a batch, however many partitions the topic has (default: one for each core; where "
        "executors come and go, one a partition)",
    )
    source.add_argument(
        "--backfill",
        action="store_true",
        help="count all that the topic, or --input, holds now, in batch and without a watermark, and end; killed, it "
        "goes on where it was (default: run as a stream)",
    )
    source.add_argument(
        "--keep-staged",
        action="store_true",
        help="keep the staged events of a complete --backfill (default: delete them)",
    )
    source.add_argument(
        "--json-parser",
        choices=("auto", "bytes", "spark"),
        default="auto",
        help="spark: from_json; bytes: the same events, read from their bytes by a Java function that the driver "
        "compiles; auto: bytes where Spark takes it, else spark (default: %(default)s)",
    )
    add_format_options(parser)
    add_event_options(parser)
    validation = parser.add_argument_group("which events count")
    validation.add_argument(
        "--start-time",
        type=instant,
        metavar="TIME",
        help="count only windows that start then or later: ISO 8601, UTC (default: any)",
    )
    validation.add_argument(
        "--end-time",
        type=instant,
        metavar="TIME",
        help="count only windows that end then or earlier; for --backfill and --input (default: any)",
    )
    validation.add_argument(
        "--max-future",
        type=duration_or_off(0),
        default="5 seconds",
        metavar="DURATION",
        help="how far the time of an event may be ahead of its arrival in Kafka, or off (default: %(default)s)",
    )
    validation.add_argument(
        "--max-age",
        type=duration(1),
        metavar="DURATION",
        help="how far the time of an event may be behind its arrival in Kafka (default: any)",
    )
    validation.add_argument(
        "--rejects-topic",
        type=topic,
        metavar="TOPIC",
        help="write every rejected event there, unchanged, with the reason and where it came from in headers; events "
        "are then read and parsed twice (default: they are only counted)",
    )
    counting = parser.add_argument_group("counting")
    counting.add_argument(
        "--window",
        type=duration(1),
        default="1 minute",
        metavar="DURATION",
        help="window size (default: %(default)s)",
    )
    counting.add_argument(
        "--slide",
        type=duration(1),
        metavar="DURATION",
        help="start a window this often, so that windows overlap, such as --window '5 minutes' --slide '1 minute' "
        "(default: when the one before ends)",
    )
    counting.add_argument(
        "--watermark",
        type=duration(0),
        default="5 seconds",
        metavar="DURATION",
        help="how long after its end, in event time, a window's record waits for events that are out of order "
        "(default: %(default)s)",
    )
    counting.add_argument(
        "--allowed-lateness",
        type=duration(0),
        default="1 hour",
        metavar="DURATION",
        help="how long after its end, in event time, a window can be corrected; events that come later are late, and "
        "lost; a longer time needs more memory (default: %(default)s)",
    )
    counting.add_argument(
        "--counter",
        choices=COUNTERS,
        default=COUNTERS[0],
        help="how users are counted; exact keeps every user of an open window in memory (default: %(default)s)",
    )
    counting.add_argument(
        "--by",
        type=fields,
        action="append",
        default=[],
        metavar="PATH[,PATH…]",
        help="count the users of each value of this field too, or of several fields together, beside the total; may be "
        "given several times; @topic, @key and @header.NAME are of the record (default: the total only)",
    )
    counting.add_argument(
        "--max-groups",
        type=whole_number(1, 100_000),
        default=1_000,
        metavar="N",
        help="so many groups of a --by keep their name in a window, the largest in events; all others are one "
        "(default: %(default)s)",
    )
    counting.add_argument(
        "--rsd",
        type=number(0.005, 0.39),
        default=0.05,
        metavar="RATIO",
        help="of approx_count_distinct: relative standard deviation, at most; smaller is slower (default: %(default)s)",
    )
    counting.add_argument(
        "--sketch",
        action="store_true",
        help="add the window's HLL sketch to its record, for rollup_users.py and other tools (default: without)",
    )
    counting.add_argument(
        "--lg-k",
        type=whole_number(MIN_LG_K, MAX_LG_K),
        default=12,
        metavar="N",
        help="of hll_sketch and --sketch: 2^N registers, 2^N bytes, error 1.04 / sqrt(2^N) (default: %(default)s)",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--output-topic", type=topic, default="out", metavar="TOPIC", help="(default: %(default)s)")
    output.add_argument(
        "--output-mode",
        choices=("append", "update"),
        default="append",
        help="append: a record for a window once it is final; update: also the running count of a window after every "
        "batch that changed it, with final=false (default: %(default)s)",
    )
    output.add_argument(
        "--correction-interval",
        type=duration(0),
        default="10 seconds",
        metavar="DURATION",
        help="a window is corrected at most once in that time (default: %(default)s)",
    )
    output.add_argument(
        "--delivery",
        choices=DELIVERIES,
        help="exactly-once: records are written in Kafka transactions, so that consumers with "
        "isolation.level=read_committed see each once, whatever was killed when; at-least-once: without, which needs "
        "fewer rights (default: exactly-once; under Spark Connect at-least-once)",
    )
    output.add_argument(
        "--output", choices=("-",), help="-: write the results to standard output, JSON lines, instead of the topic"
    )
    output.add_argument(
        "--summary", type=Path, metavar="FILE", help="at the end write there, as JSON, where every event went"
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--checkpoint-location",
        type=location,
        default="checkpoint/unique_users",
        metavar="DIR",
        help="folder or URL (s3a:, abfss:, gs:, hdfs:, dbfs:) of the job's state; one per running job "
        "(default: %(default)s)",
    )
    running.add_argument(
        "--trigger",
        type=trigger,
        default="200 milliseconds",
        metavar="DURATION",
        help="start a batch this often, or available-now: read what is there and end (default: %(default)s)",
    )
    running.add_argument(
        "--idle-timeout",
        type=duration_or_off(1),
        default="5 seconds",
        metavar="DURATION",
        help="when all is read and no event has arrived for that long, write the windows that have ended by the clock; "
        "events that come later correct them; off: only events close windows. available-now does so at its end, "
        "unless off (default: %(default)s)",
    )
    running.add_argument(
        "--consumer-group",
        type=group,
        metavar="GROUP",
        help="commit what was read to this consumer group after every batch, so that Kafka's tools show the job's lag; "
        "the job never starts from there (default: none)",
    )
    add_metrics_option(running)
    running.add_argument(
        "--state-partitions",
        type=whole_number(1, 10_000),
        default=2,
        metavar="N",
        help="partitions of the state, fixed for the life of a checkpoint (default: %(default)s)",
    )
    return parser
