"""What the values of records are: reads them with the schema of a file, or with those of a registry.

A query is told the schemas of all ids that are known. `SchemaGuard` holds back a batch that met other ids, with nothing
done, and stops the query; `follow_schemas` asks the registry for them, and starts the query again with the same batch.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING

from uniques.core.formats import decode_framed, decode_values, strip_frames
from uniques.errors import UsageError
from uniques.kafka.registry import SchemaRegistry
from uniques.schemas import SchemaNotes, make_decoder, read_schema_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyspark.sql import DataFrame, SparkSession

    from uniques.apps.format_settings import FormatSettings
    from uniques.runtime.gate import BatchGate

log = logging.getLogger("uniques")


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
    note = open_notes(spark).note if registry.asks else None
    return decode_framed(records, decoders, registry.absent | registry.unusable, note)


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
    registry.forget()
    for topic in topics:
        registry.look_up_subject(f"{topic}-value")
    known = ", ".join(str(schema_id) for schema_id in sorted(registry.known)) or "none yet"
    log.info("schema ids that the registry names for the topic: %s", known)


@lru_cache
def open_notes(spark: SparkSession) -> SchemaNotes:
    """Where the queries of a session note the ids that they were not told."""
    return SchemaNotes(spark)


class SchemaGuard:
    """Holds back batches of a query that meet ids of schemas which it was not told."""

    def __init__(self, spark: SparkSession, settings: FormatSettings) -> None:
        """Does nothing where values have no ids, or need no schema."""
        self._settings = settings
        self._notes = open_notes(spark) if settings.needs_registry else None

    def check(self, gate: BatchGate, frame: DataFrame | None = None) -> None:
        """Call it in a batch once it is read, or with its `frame`, which is persisted and is read here.

        When it met new ids, stops the query and raises InterruptedBatchError.
        """
        if self._notes is None:
            return
        if frame is not None:
            frame.count()
        met = self._notes.take()
        if met:
            open_registry(self._settings).met |= met
            if frame is not None:
                frame.unpersist()  # before the query is stopped: then Spark can't be asked any more
            gate.close()
            gate.enter()

    def wrap(self, take: Callable[[DataFrame, int], None], gate: BatchGate) -> Callable[[DataFrame, int], None]:
        """A function for `foreachBatch` that hands to `take` only batches without new ids."""
        if self._notes is None:
            return take

        def guarded(frame: DataFrame, batch: int) -> None:
            frame.persist()
            self.check(gate, frame)
            take(frame, batch)
            frame.unpersist()

        return guarded


def follow_schemas(settings: FormatSettings, run: Callable[[], None]) -> None:
    """Runs a query, and again while it was stopped because of new ids, once these are looked up.

    Raises JobError, one line, when the registry does not answer: nothing of the batch is done, and the next start does
    it again.
    """
    while True:
        run()
        if not settings.needs_registry:
            return
        registry = open_registry(settings)
        if not registry.met:
            return
        ids = ", ".join(str(schema_id) for schema_id in sorted(registry.met))
        log.info("new schema ids: %s; asking the registry, then the batch is done again", ids)
        registry.look_up_met()
