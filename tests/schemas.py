"""Avro and Protobuf values for tests, and a small schema registry, on a port of its own.

The registry answers the requests of Confluent's API that the job makes. It is not a real one: none is served by the
package registries.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import fastavro
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

Field = descriptor_pb2.FieldDescriptorProto
KINDS = {
    "string": Field.TYPE_STRING,
    "bytes": Field.TYPE_BYTES,
    "int64": Field.TYPE_INT64,
    "uint32": Field.TYPE_UINT32,
    "uint64": Field.TYPE_UINT64,
    "sint32": Field.TYPE_SINT32,
    "double": Field.TYPE_DOUBLE,
    "bool": Field.TYPE_BOOL,
}


def avro(schema: dict[str, Any], value: object) -> bytes:
    """A value in Avro, without a header."""
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(dict(schema)), value)
    return written.getvalue()


def zigzag(number: int) -> bytes:
    """A number as Avro writes it, and Protobuf a signed one."""
    bits, written = (number << 1) ^ (number >> 63), b""
    while bits > 0x7F:
        written += bytes([bits & 0x7F | 0x80])
        bits >>= 7
    return written + bytes([bits])


def framed(schema_id: int, payload: bytes) -> bytes:
    """A value in Confluent's wire format."""
    return b"\x00" + struct.pack(">I", schema_id) + payload


def message(name: str, *fields: tuple[str, str] | tuple[str, str, bool]) -> descriptor_pb2.DescriptorProto:
    """A Protobuf message; a field is a name, a kind (or the full name of a message), and whether it is repeated."""
    made = descriptor_pb2.DescriptorProto(name=name)
    for number, (label, kind, *repeated) in enumerate(fields, 1):
        found = made.field.add(name=label, number=number, label=3 if repeated else 1)
        if kind in KINDS:
            found.type = KINDS[kind]
        else:
            found.type, found.type_name = Field.TYPE_MESSAGE, f".{kind}"
    return made


def proto_file(
    name: str, *messages: descriptor_pb2.DescriptorProto, imports: tuple[str, ...] = (), syntax: str = "proto3"
) -> descriptor_pb2.FileDescriptorProto:
    """A file of the package `shop`."""
    return descriptor_pb2.FileDescriptorProto(
        name=name, package="shop", syntax=syntax, message_type=messages, dependency=imports
    )


def proto_class(name: str, *files: descriptor_pb2.FileDescriptorProto) -> Any:
    """The Python class of a message in the last file; the others are those it imports."""
    pool = descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    for file in files:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"shop.{name}"))


def descriptor_set(*files: descriptor_pb2.FileDescriptorProto) -> bytes:
    """What protoc --include_imports --descriptor_set_out writes, without the files that Protobuf has itself."""
    return descriptor_pb2.FileDescriptorSet(file=files).SerializeToString()


@dataclass
class Registry:
    """The schemas of a registry by id, its subjects, and the requests it got."""

    url: str = ""
    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    fails_after: int | None = None  # requests, then it answers with an error

    def add(self, schema_id: int, subject: str, schema: object, references: object = ()) -> None:
        """Adds a schema as the next version of a subject: a dict (Avro) or a Protobuf file."""
        if isinstance(schema, descriptor_pb2.FileDescriptorProto):
            text = base64.b64encode(schema.SerializeToString()).decode()
            found = {"schema": text, "schemaType": "PROTOBUF"}
        else:
            found = {"schema": json.dumps(schema)}
        self.schemas[schema_id] = {**found, "references": list(references)}  # type: ignore[call-overload]
        self.subjects.setdefault(subject, []).append(schema_id)

    def answer(self, path: str) -> object | None:
        """What a request gets, None for what is not there."""
        path, _, query = path.partition("?")
        parts = path.strip("/").split("/")
        if parts[:2] == ["schemas", "ids"]:
            found = self.schemas.get(int(parts[2]))
        elif parts[0] == "subjects" and parts[1] in self.subjects:
            ids = self.subjects[parts[1]]
            if len(parts) == 3:
                return list(range(1, len(ids) + 1))
            found = {**self.schemas[ids[int(parts[3]) - 1]], "id": ids[int(parts[3]) - 1]}
            found |= {"subject": parts[1], "version": int(parts[3])}
        else:
            return None
        if found and found.get("schemaType") == "PROTOBUF" and "format=serialized" not in query:
            return {**found, "schema": 'syntax = "proto3";'}
        return found


@contextmanager
def serve_registry(tls: ssl.SSLContext | None = None, login: str | None = None) -> Iterator[Registry]:
    """A registry on a free port of this machine."""
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            registry.requests.append(self.path)
            if login and self.headers["Authorization"] != f"Basic {base64.b64encode(login.encode()).decode()}":
                self.reply(401, {"error_code": 401, "message": "Unauthorized"})
                return
            if registry.fails_after is not None and len(registry.requests) > registry.fails_after:
                self.reply(500, {"error_code": 500, "message": "no leader"})
                return
            found = registry.answer(self.path)
            code = 40403 if "/ids/" in self.path else 40401
            self.reply(200 if found else 404, found or {"error_code": code, "message": "not found"})

        def reply(self, status: int, content: object) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        registry.url = f"{'https' if tls else 'http'}://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield registry
        finally:
            server.shutdown()
            thread.join()
