"""What the values of records are: the flags that say so, and what they say once checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uniques.core.choices import FORMATS
from uniques.errors import UsageError
from uniques.flag_types import registry_url
from uniques.kafka.properties import KafkaCluster, RegistryAddress

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True)
class FormatSettings:
    """What values are: `name` is `json`, `avro` or `protobuf`.

    With a `registry` they are in Confluent's wire format. Else Avro and Protobuf have the `schema` of a file, and
    Protobuf the `message` of it.
    """

    name: str = "json"
    registry: RegistryAddress | None = None
    schema: bytes | None = field(default=None, repr=False)
    message: str | None = None

    @property
    def is_plain(self) -> bool:
        """Whether values are JSON texts, to be parsed as they are."""
        return self.name == "json" and self.registry is None

    @property
    def needs_registry(self) -> bool:
        """Whether values can be read only with the schemas of a registry; JSON is read without."""
        return self.name != "json" and self.registry is not None


def add_format_options(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say what the bytes of a record are."""
    formats = parser.add_argument_group("format")
    formats.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="what the values of records are; Avro and Protobuf need --schema-registry or --schema (default: "
        "%(default)s)",
    )
    formats.add_argument(
        "--schema-registry",
        type=registry_url,
        metavar="URL",
        help="values are in Confluent's wire format, each with the id of its schema in this registry; its user and "
        "certificates stand in --kafka-config, as schema.registry.*; needs Confluent's Python client "
        "(default: none)",
    )
    formats.add_argument(
        "--schema",
        type=Path,
        metavar="FILE",
        help="the one schema of all values: an Avro schema, or a set of Protobuf descriptors that protoc wrote "
        "(default: none)",
    )
    formats.add_argument(
        "--message",
        metavar="NAME",
        help="the full name of the message in the Protobuf --schema, such as shop.v1.Event (default: none)",
    )


def make_format(args: argparse.Namespace, cluster: KafkaCluster) -> FormatSettings:
    """What values are, as the flags say. Raises UsageError, one line, for flags that do not go together."""
    name, registry, path, message = args.format, args.schema_registry, args.schema, args.message
    if registry and path:
        raise UsageError(
            "--schema-registry and --schema: give one of them, as values have an id of their schema or not"
        )
    if path and name == "json":
        raise UsageError("--schema is for --format avro and protobuf: JSON needs no schema")
    if name != "json" and not registry and not path:
        raise UsageError(f"--format {name} needs a schema: give --schema-registry URL, or --schema FILE")
    if message and not (path and name == "protobuf"):
        raise UsageError("--message is for --format protobuf with --schema: elsewhere it is known")
    if path and name == "protobuf" and not message:
        raise UsageError("--format protobuf with --schema needs --message NAME: a file may have several messages")
    if args.input and (registry or name != "json"):
        flag = "--schema-registry" if registry else f"--format {name}"
        raise UsageError(f"{flag} is for a topic: the lines of --input are JSON")
    try:
        schema = path.read_bytes() if path else None
    except OSError as error:
        raise UsageError(f"--schema {str(path)!r}: the file can't be read ({error.strerror or error})") from error
    address = RegistryAddress(registry, tuple(sorted(cluster.registry_properties.items()))) if registry else None
    return FormatSettings(name, address, schema, message)
