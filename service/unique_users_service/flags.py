"""The flags of unique-users-service and unique-users-ask."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniques.flag_types import (
    OneLineParser,
    bootstrap_servers,
    duration,
    listen_address,
    location,
    refuse,
    topic,
    whole_number,
)
from uniques.kafka.properties import parse_properties, read_client_properties

from unique_users_service.questions import Limits
from unique_users_service.store import Budget
from unique_users_service.tables import Place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+")
OFF = "off"
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class KafkaSettings:
    """The cluster, in librdkafka's properties, and the topics; None: not read."""

    properties: dict[str, str]
    minutes: str | None
    rollups: str | None
    rejects: str | None


@dataclass(frozen=True)
class ServiceSettings:
    """What the flags of the service say."""

    minutes: Place
    rollups: Place
    budget: Budget
    refresh_seconds: int
    address: tuple[str, int]
    limits: Limits
    questions: int
    viewers: int
    kafka: KafkaSettings | None = None
    job_metrics: str | None = None
    tokens: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


def url(text: str) -> str:
    """A type for an HTTP address."""
    if not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
        raise refuse(text, "an address such as http://127.0.0.1:9108/metrics")
    return text


def origin(text: str) -> str:
    """A type for an origin of pages, as browsers send it."""
    if not ORIGIN.fullmatch(text):
        raise refuse(text, "an origin such as https://dashboards.example.com")
    return text


def topic_or_off(text: str) -> str | None:
    """A type for a topic's name, and for OFF."""
    return None if text == OFF else topic(text)


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where the tables are; `find_places` reads them."""
    group = parser.add_argument_group(
        "tables of rollup_users.py (Delta): a folder, or a URL such as s3://bucket/minutes"
    )
    group.add_argument(
        "--minutes-table",
        type=location,
        default="tables/minutes",
        metavar="TABLE",
        help="one row for each window (default: %(default)s)",
    )
    group.add_argument(
        "--rollups-table",
        type=location,
        default="tables/rollups",
        metavar="TABLE",
        help="one row for each hour, day, week, month, year (default: %(default)s)",
    )
    group.add_argument(
        "--storage-options",
        type=Path,
        metavar="FILE",
        help="name=value lines for an object store, as delta-rs takes them, such as AWS_REGION=eu-central-1 "
        "(default: what the environment says)",
    )


def find_places(parser: argparse.ArgumentParser, args: argparse.Namespace) -> tuple[Place, Place]:
    """Where the tables are; ends with one line when the file of options is wrong."""
    options: dict[str, str] = {}
    if args.storage_options:
        try:
            text = args.storage_options.read_text(encoding="utf-8")
            options = {each.name: each.value for each in parse_properties(text)}
        except (OSError, ValueError) as error:
            parser.error(f"argument --storage-options: '{args.storage_options}': {describe_error(error)}")
    return (
        Place("--minutes-table", args.minutes_table, options),
        Place("--rollups-table", args.rollups_table, options),
    )


def describe_error(error: OSError | ValueError) -> str:
    """Why a file can't be used."""
    return f"can't be read ({error.strerror or error})" if isinstance(error, OSError) else str(error)


def make_service_parser() -> OneLineParser:
    """The service's flags."""
    parser = OneLineParser(
        prog="unique-users-service",
        description="Answers questions about unique users over HTTP, and shows them on a page that moves.",
        allow_abbrev=False,
    )
    add_table_options(parser)
    kafka = parser.add_argument_group("Kafka, for what is newer than the tables (without --bootstrap-servers: none)")
    kafka.add_argument("--bootstrap-servers", type=bootstrap_servers, metavar="HOST:PORT,…", help="brokers")
    kafka.add_argument(
        "--kafka-config",
        type=Path,
        metavar="FILE",
        help="Kafka client properties as librdkafka has them: security.protocol, ssl.ca.location, sasl.username, …",
    )
    kafka.add_argument(
        "--input-topic",
        type=topic_or_off,
        default="out",
        metavar="TOPIC",
        help="results of unique_users.py --sketch, or off (default: %(default)s)",
    )
    kafka.add_argument(
        "--rollup-topic",
        type=topic_or_off,
        default="rollups",
        metavar="TOPIC",
        help="results of rollup_users.py, or off (default: %(default)s)",
    )
    kafka.add_argument(
        "--rejects-topic",
        type=topic_or_off,
        default=None,
        metavar="TOPIC",
        help="rejected events of unique_users.py, of which the page shows examples (default: none)",
    )
    job = parser.add_argument_group("the job")
    job.add_argument(
        "--job-metrics",
        type=url,
        metavar="URL",
        help="metrics of unique_users.py --metrics-port, for lag and where every event went (default: none)",
    )
    serving = parser.add_argument_group("serving")
    serving.add_argument(
        "--port",
        type=listen_address,
        default="8050",
        metavar="[HOST:]PORT",
        help="where to listen, on 127.0.0.1 unless a host is given (default: %(default)s)",
    )
    serving.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="bearer tokens, one a line, one of which each question must bring (default: none is asked for)",
    )
    serving.add_argument(
        "--allow-origin",
        type=origin,
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let pages of this origin ask from a browser; may be given again (default: only the service's own page)",
    )
    serving.add_argument(
        "--refresh-interval",
        type=duration(1),
        default="2 seconds",
        metavar="DURATION",
        help="look for new versions of the tables this often (default: %(default)s)",
    )
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--memory",
        type=whole_number(16, 1_000_000),
        default=256,
        metavar="MIB",
        help="about how much rows may take in memory; older minutes and hours are read when asked for "
        "(default: %(default)s)",
    )
    limits.add_argument(
        "--max-days",
        type=whole_number(1, 100_000),
        default=3_660,
        metavar="N",
        help="longest range of a question (default: %(default)s)",
    )
    limits.add_argument(
        "--max-points",
        type=whole_number(1, 1_000_000),
        default=10_000,
        metavar="N",
        help="most numbers in an answer (default: %(default)s)",
    )
    limits.add_argument(
        "--max-questions",
        type=whole_number(1, 10_000),
        default=64,
        metavar="N",
        help="most questions at once; others are told to come again (default: %(default)s)",
    )
    limits.add_argument(
        "--max-viewers",
        type=whole_number(1, 100_000),
        default=200,
        metavar="N",
        help="most pages that are kept up to date at once (default: %(default)s)",
    )
    return parser


def parse_service(argv: Sequence[str] | None = None) -> ServiceSettings:
    """The settings that the flags say; ends with one line and status 2 for wrong ones."""
    parser = make_service_parser()
    args = parser.parse_args(argv)
    minutes, rollups = find_places(parser, args)
    return ServiceSettings(
        minutes,
        rollups,
        Budget(args.memory * MEBIBYTE),
        args.refresh_interval,
        args.port,
        Limits(args.max_days, args.max_points),
        args.max_questions,
        args.max_viewers,
        find_kafka(parser, args),
        args.job_metrics,
        read_tokens(parser, args.token_file),
        tuple(args.allow_origin),
    )


def find_kafka(parser: argparse.ArgumentParser, args: argparse.Namespace) -> KafkaSettings | None:
    """The cluster and topics; ends with one line when the file is wrong."""
    properties: dict[str, str] = {}
    if args.kafka_config:
        try:
            properties = read_client_properties(args.kafka_config)
        except ValueError as error:
            parser.error(f"argument --kafka-config: '{args.kafka_config}': {error}")
    servers = args.bootstrap_servers or properties.get("bootstrap.servers")
    if not servers:
        return None
    return KafkaSettings(
        {**properties, "bootstrap.servers": servers}, args.input_topic, args.rollup_topic, args.rejects_topic
    )


def read_tokens(parser: argparse.ArgumentParser, path: Path | None) -> tuple[str, ...]:
    """The tokens of a file; ends with one line when there are none."""
    if path is None:
        return ()
    try:
        tokens = tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        parser.error(f"argument --token-file: '{path}': can't be read ({getattr(error, 'strerror', None) or error})")
    if not tokens:
        parser.error(f"argument --token-file: '{path}' has no token: write one a line")
    return tokens
