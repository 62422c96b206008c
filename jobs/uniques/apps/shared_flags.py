"""Flags that both jobs have."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from uniques.errors import UsageError
from uniques.flag_types import bootstrap_servers, listen_address
from uniques.kafka.properties import KafkaCluster, read_client_properties, split_registry_properties

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def add_metrics_option(group: argparse._ArgumentGroup) -> None:
    """Adds --metrics-port to a group of flags."""
    group.add_argument(
        "--metrics-port",
        type=listen_address,
        metavar="[HOST:]PORT",
        help="serve the job's metrics for Prometheus at /metrics, on 127.0.0.1 unless a host is given; needs "
        "prometheus_client (default: not at all)",
    )


@contextmanager
def needed_packages(flag: str) -> Iterator[None]:
    """Raises UsageError, one line, when what is imported inside is not installed on the driver."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{flag} needs the Python package {error.name}: pip install {error.name}") from error


def add_kafka_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say where Kafka is; `cluster_of` reads them."""
    group = parser.add_argument_group("Kafka")
    group.add_argument(
        "--bootstrap-servers",
        type=bootstrap_servers,
        metavar="HOST:PORT,…",
        help="brokers to connect to first (default: bootstrap.servers of --kafka-config, else localhost:9092)",
    )
    group.add_argument(
        "--kafka-config",
        type=Path,
        metavar="FILE",
        help="Kafka client properties, as Kafka's own tools take them with --command-config: TLS, SASL, tuning",
    )


def cluster_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> KafkaCluster:
    """The cluster that the flags of `add_kafka_options` name; ends with one line when the file is wrong."""
    properties: dict[str, str] = {}
    if args.kafka_config:
        try:
            properties = read_client_properties(args.kafka_config)
        except ValueError as error:
            parser.error(f"argument --kafka-config: '{args.kafka_config}': {error}")
    properties, registry_properties = split_registry_properties(properties)
    servers = properties.pop("bootstrap.servers", "localhost:9092")
    return KafkaCluster(args.bootstrap_servers or servers, properties, registry_properties)
