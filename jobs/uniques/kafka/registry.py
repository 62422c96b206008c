"""A schema registry with Confluent's API: the schema of an id, asked for once, by the driver."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, TypeVar

from uniques.core.formats import Schema
from uniques.errors import JobError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from uniques.kafka.properties import RegistryAddress

T = TypeVar("T")

log = logging.getLogger("uniques")

ANSWER_SECONDS = 10
RETRIES = 2
# Of a subject so many versions are asked for at the start; older ones when a record has their id.
NEWEST_VERSIONS = 20
# Damaged bytes may hold any id. A batch with new ones is done again, so a run asks for so many in vain at most.
MAX_ABSENT = 100


class SchemaRegistry:
    """What a registry has said: `known`, id -> schema, and `absent`, the ids that it has no schema of `kind` for.

    Others add to `unusable` the ids of schemas that can't be used, and to `met` those that are to be looked up.
    """

    def __init__(self, address: RegistryAddress, kind: str) -> None:
        """Asks nothing yet. Raises UsageError, one line, when the client is missing, or a property is wrong."""
        self._address = address
        self._kind = kind
        self._client = make_client(address)
        self.known: dict[int, Schema] = {}
        self.absent: set[int] = set()
        self.unusable: set[int] = set()
        self.met: set[int] = set()

    def forget(self) -> None:
        """Forgets what may change: which ids it has no schema for. Schemas do not change."""
        self.absent.clear()
        self.unusable.clear()
        self.met.clear()

    @property
    def asks(self) -> bool:
        """Whether a new id is worth doing a batch again."""
        return len(self.absent) < MAX_ABSENT

    def look_up_met(self) -> None:
        """Looks up the ids in `met`, as `look_up` does."""
        while self.met:
            self.look_up(min(self.met))
            self.met.remove(min(self.met))

    def look_up(self, schema_id: int) -> Schema | None:
        """The schema of an id, None when the registry has none of this kind.

        Raises JobError, one line, when the registry does not answer, or does not let the job ask.
        """
        if schema_id not in self.known and schema_id not in self.absent:
            found = self._ask(lambda: self._client.get_schema(schema_id, fmt=self._format))
            schema = None if found is None else self._collect(found)
            if schema is None:
                self.absent.add(schema_id)
                log.warning(
                    "warning: the schema registry has no %s schema of id %s: its records are rejected as "
                    "unknown_schema",
                    self._kind,
                    schema_id,
                )
                if not self.asks:
                    log.warning(
                        "warning: %s ids have no schema: further new ids are rejected as unknown_schema, and not "
                        "asked for, until the job starts again",
                        MAX_ABSENT,
                    )
            else:
                self.known[schema_id] = schema
        return self.known.get(schema_id)

    def look_up_subject(self, subject: str) -> None:
        """Adds the newest versions of a subject to `known`; nothing when there is no such subject."""
        versions = self._ask(lambda: self._client.get_versions(subject)) or []
        for version in sorted(versions)[-NEWEST_VERSIONS:]:
            found = self._get_version(subject, version)
            schema = None if found is None else self._collect(found.schema)
            if found is not None and schema is not None:
                self.known[found.schema_id] = schema

    @property
    def _format(self) -> str | None:
        return "serialized" if self._kind == "protobuf" else None

    def _collect(self, found: Any) -> Schema | None:
        """A schema and what it refers to; None when it is of another kind, or what it refers to is gone."""
        if (found.schema_type or "AVRO").lower() != self._kind:
            return None
        files: dict[str, str] = {}
        if not self._add_references(found, files):
            return None
        # Protobuf has no two files of one name; this one nobody imports.
        return Schema((*files.items(), ("uniques/event.proto", found.schema_str)))

    def _add_references(self, found: Any, files: dict[str, str]) -> bool:
        for reference in found.references or []:
            if reference.name in files:
                continue
            version = self._get_version(reference.subject, reference.version)
            if version is None or not self._add_references(version.schema, files):
                return False
            files[reference.name] = version.schema.schema_str
        return True

    def _get_version(self, subject: str, version: int) -> Any | None:
        return self._ask(lambda: self._client.get_version(subject, version, fmt=self._format))

    def _ask(self, question: Callable[[], T]) -> T | None:
        from confluent_kafka.schema_registry import SchemaRegistryError

        where = f"the schema registry at {self._address.url}"
        try:
            return question()
        except SchemaRegistryError as error:
            status = error.http_status_code
            if status == 404:
                return None
            if status == 401:
                raise JobError(f"{where} refused the login: check schema.registry.* in --kafka-config") from None
            if status == 403:
                raise JobError(f"{where} does not let the job read schemas: give it the right") from None
            raise JobError(f"{where} answered with an error: HTTP status {status}") from None
        except Exception as error:
            # Errors of its HTTP library, which is another one with each version of Python.
            said = str(error).splitlines()
            raise JobError(
                f"{where} did not answer: is it running, and do --schema-registry and schema.registry.* of "
                f"--kafka-config match? ({type(error).__name__}{f': {said[0]}' if said else ''})"
            ) from None


def make_client(address: RegistryAddress) -> Any:
    """Confluent's client. Raises UsageError, one line without any value of the properties."""
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--schema-registry needs the Python package {error.name}: pip install 'confluent-kafka[schemaregistry]'"
        ) from error
    properties = dict(address.properties)
    # What other clients are told where the user stands; this one looks there by itself.
    if properties.get("basic.auth.credentials.source") == "USER_INFO":
        del properties["basic.auth.credentials.source"]
    settings = {**properties, "url": address.url, "timeout": ANSWER_SECONDS, "max.retries": RETRIES}
    try:
        return SchemaRegistryClient(settings)
    except (ValueError, TypeError) as error:
        raise UsageError(f"schema.registry.* of --kafka-config: {str(error).splitlines()[0]}") from None
    except OSError as error:
        raise UsageError(
            f"schema.registry.ssl.* of --kafka-config: a file can't be used ({error.strerror or type(error).__name__})"
        ) from None
