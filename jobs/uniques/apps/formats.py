"""What the values of records are: reads them with the schema of a file, or with those of a registry.

A query is told the schemas of all ids that are known. One that meets another id fails, with its batch undone;
`follow_schemas` asks the registry for that id and starts the query again, which does the same batch again.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from uniques.core.formats import decode_framed, decode_values, strip_frames
from uniques.errors import NewSchemaError, UsageError
from uniques.kafka.registry import SchemaRegistry
from uniques.schemas import make_decoder, read_schema_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyspark.sql import DataFrame, SparkSession

    from uniques.apps.format_settings import FormatSettings

log = logging.getLogger("uniques")


def is_plain(settings: FormatSettings) -> bool:
    """Whether values are JSON texts, to be parsed as they are."""
    return settings.name == "json" and settings.registry is None


def read_format(records: DataFrame, settings: FormatSettings) -> DataFrame:
    """Records whose `value` is a JSON text; see `core.formats` for what else they have.

    Raises UsageError, one line, for a schema of a file that can't be used.
    """
    spark = records.sparkSession
    if settings.name == "json":
        return strip_frames(records)
    if settings.registry is None:
        schema = read_schema_file(settings.name, settings.schema or b"")
        return decode_values(records, make_decoder(spark, settings.name, schema, settings.message or ""))
    registry = open_registry(settings)
    decoders = {}
    for schema_id, schema in sorted(registry.known.items()):
        try:
            decoders[schema_id] = make_decoder(spark, settings.name, schema)
        except UsageError as error:
            if schema_id not in registry.unusable:
                registry.unusable.add(schema_id)
                log.warning("warning: schema id %s: %s; its records are rejected as unknown_schema", schema_id, error)
    return decode_framed(records, decoders, registry.absent | registry.unusable, registry.asks)


@lru_cache
def open_registry(settings: FormatSettings) -> SchemaRegistry:
    """The registry of the settings, which keeps what it has said."""
    if settings.registry is None:
        raise ValueError("no registry")
    return SchemaRegistry(settings.registry, settings.name)


def prepare_format(spark: SparkSession, settings: FormatSettings, topics: Iterable[str]) -> None:
    """Checks that the values of the topics can be read, as far as that can be known.

    Of a registry it asks what Confluent's producers write to the topics. Raises JobError, one line, when it does not
    answer; UsageError for a schema of a file that can't be used.
    """
    if settings.name == "json":
        return
    if settings.registry is None:
        schema = read_schema_file(settings.name, settings.schema or b"")
        make_decoder(spark, settings.name, schema, settings.message or "")
        return
    registry = open_registry(settings)
    for topic in topics:
        registry.look_up_subject(f"{topic}-value")
    known = ", ".join(str(schema_id) for schema_id in sorted(registry.known)) or "none yet"
    log.info("schema ids that the registry names for the topic: %s", known)


def follow_schemas(settings: FormatSettings, run: Callable[[], None]) -> None:
    """Runs a query; when it meets the id of a schema that it was not told, looks it up and runs the query again.

    Raises JobError, one line, when the registry does not answer: nothing of the batch is done, and the next start does
    it again.
    """
    while True:
        try:
            return run()
        except NewSchemaError as met:
            log.info("schema id %s is new: asking the registry, and starting the query again", met.schema_id)
            open_registry(settings).look_up(met.schema_id)
