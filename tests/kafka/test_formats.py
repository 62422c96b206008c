"""Avro, Protobuf and Confluent's wire format from a topic to exact counts."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from schemas import avro, descriptor_set, framed, message, proto_class, proto_file, serve_registry, zigzag
from support import read_headers, read_messages, read_records, submit, utc, wait_until
from uniques.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from schemas import Registry
    from support import InProcess

START = 1_468_244_340
TIME = {"type": "long", "logicalType": "timestamp-millis"}
FIRST = {
    "type": "record",
    "name": "Event",
    "fields": [{"name": "at", "type": TIME}, {"name": "user", "type": "string"}],
}
# A field more, in front, and the time in another unit.
SECOND = {
    "type": "record",
    "name": "Event",
    "fields": [
        {"name": "country", "type": ["null", "string"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "user", "type": "string"},
    ],
}
PROTO_FIRST = proto_file(
    "first.proto",
    message("Event", ("user", "string"), ("at", "google.protobuf.Timestamp")),
    imports=("google/protobuf/timestamp.proto",),
)
# Another message in front, and a field more.
PROTO_SECOND = proto_file(
    "second.proto",
    message("Page", ("url", "string")),
    message("Event", ("user", "string"), ("at", "google.protobuf.Timestamp"), ("page", "shop.Page")),
    imports=("google/protobuf/timestamp.proto",),
)
SHAPE = ["--time-field", "at", "--user-field", "user", "--counter", "exact", "--watermark", "1 minute"]


@dataclass
class Sent:
    """What is to be counted, and what rejected: an independent count."""

    users: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    events: Counter[str] = field(default_factory=Counter)
    rejected: list[tuple[str, bytes | None]] = field(default_factory=list)

    def count(self, ts: int, user: str) -> None:
        start = utc(ts - ts % 60)
        self.users[start].add(user)
        self.events[start] += 1

    def windows(self) -> dict[str, tuple[int, int]]:
        return {start: (len(self.users[start]), self.events[start]) for start in self.events}


def write_avro(schema: dict[str, Any], ts: int, user: str) -> bytes:
    return avro(schema, {"at": datetime.fromtimestamp(ts, timezone.utc), "user": user, "country": "CH"})


def write_proto(file: Any, ts: int, user: str) -> bytes:
    event = proto_class("Event", file)(user=user)
    event.at.seconds = ts
    written: bytes = event.SerializeToString()
    return written


def write_json(ts: int, user: str) -> bytes:
    return json.dumps({"at": ts, "user": user}).encode()


def list_events(count: int = 300) -> list[tuple[int, str]]:
    return [(START + at, f"u{at * 7 % 40}") for at in range(count)]


def send(broker: KafkaBroker, topic: str, values: Sequence[tuple[int, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for ts, value in values:
        producer.produce(topic, value, timestamp=ts * 1000)
    assert producer.flush(30) == 0


def read_windows(broker: KafkaBroker, topic: str) -> dict[str, tuple[int, int]]:
    return {key: (value["unique_users"], value["events"]) for key, value in read_records(broker, topic)}


def read_rejects(broker: KafkaBroker, topic: str) -> list[tuple[str, bytes | None]]:
    return [(read_headers(message)["reason"], message.value()) for message in read_messages(broker, topic)]


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serve_registry() as running:
        yield running


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
@pytest.mark.parametrize("mode", ["--trigger=available-now", "--backfill"])
def test_one_schema_from_a_file(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, kind: str, mode: str
) -> None:
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    schema, summary = tmp_path / "schema", tmp_path / "summary.json"
    schema.write_bytes(json.dumps(FIRST).encode() if kind == "avro" else descriptor_set(PROTO_SECOND))
    sent, values = Sent(), []
    for ts, user in list_events():
        value: bytes | None = write_avro(FIRST, ts, user) if kind == "avro" else write_proto(PROTO_SECOND, ts, user)
        sent.count(ts, user)
        values.append((ts, value))
    for reason, value in [
        ("bad_bytes", values[0][1][:-1]),  # type: ignore[index]
        ("bad_bytes", b"\xff" * 12),
        ("missing_uid", write_avro(FIRST, START, "") if kind == "avro" else write_proto(PROTO_SECOND, START, "")),
        ("tombstone", None),
    ]:
        sent.rejected.append((reason, value))
        values.append((START, value))
    send(broker, source, values)
    flags = ["--format", kind, "--schema", str(schema)] + (["--message", "shop.Event"] if kind == "protobuf" else [])
    job.run(
        *[*flags, *SHAPE, mode, "--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects],
        *["--checkpoint-location", str(tmp_path / "checkpoint"), "--summary", str(summary)],
    )
    assert read_windows(broker, sink) == sent.windows()
    assert Counter(read_rejects(broker, rejects)) == Counter(sent.rejected)
    assert json.loads(summary.read_text())["rejected_by_reason"] == Counter(reason for reason, _ in sent.rejected)


@pytest.mark.parametrize("kind", ["json", "avro", "protobuf"])
def test_the_wire_format_with_two_versions_of_a_schema(
    job: InProcess,
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    registry: Registry,
    kind: str,
) -> None:
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    summary = tmp_path / "summary.json"
    if kind == "avro":
        registry.add(7, f"{source}-value", FIRST)
        registry.add(900, f"{source}-value", SECOND)
    elif kind == "protobuf":
        registry.add(7, f"{source}-value", PROTO_FIRST)
        registry.add(900, f"{source}-value", PROTO_SECOND)
    sent = Sent()
    values: list[tuple[int, bytes | None]] = []
    for at, (ts, user) in enumerate(list_events()):
        if kind == "json":
            value = framed(7 if at % 3 else 900, write_json(ts, user))
        elif kind == "avro":
            value = framed(*((7, write_avro(FIRST, ts, user)) if at % 3 else (900, write_avro(SECOND, ts, user))))
        elif at % 3:
            value = framed(7, b"\x00" + write_proto(PROTO_FIRST, ts, user))
        else:
            value = framed(900, zigzag(1) + zigzag(1) + write_proto(PROTO_SECOND, ts, user))
        sent.count(ts, user)
        values.append((ts, value))
    bad = [write_json(START, "a"), b"\x00\x00"] + ([framed(7, b"\xff\xff\xff")] if kind != "json" else [])
    sent.rejected += [("bad_bytes", value) for value in bad]
    if kind != "json":
        sent.rejected.append(("unknown_schema", framed(5, b"x")))
    values += [(START, value) for _, value in sent.rejected]
    send(broker, source, values)
    job.run(
        *["--format", kind, "--schema-registry", registry.url, *SHAPE, "--trigger", "available-now"],
        *["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, "--summary", str(summary)],
        *["--checkpoint-location", str(tmp_path / "checkpoint")],
    )
    assert read_windows(broker, sink) == sent.windows()
    assert set(read_rejects(broker, rejects)) == set(sent.rejected)  # at least once
    told = json.loads(summary.read_text())
    assert told["rejected_by_reason"] == Counter(reason for reason, _ in sent.rejected)
    assert told["read"] == len(values)
    assert told["counted"] == sum(sent.events.values())
    asked = Counter(registry.requests)
    assert set(asked.values()) <= {1}  # a schema is asked for once
    assert bool(asked) == (kind != "json")


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
def test_an_id_that_comes_while_the_job_runs_loses_no_event(
    job: InProcess,
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    registry: Registry,
    delivery: str,
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    summary = tmp_path / "summary.json"
    # Of subjects that do not have the name of the topic, so that nothing is known at the start.
    registry.add(1, "shop.Event", FIRST)
    sent, events = Sent(), list_events(400)
    first = [(ts, framed(1, write_avro(FIRST, ts, user))) for ts, user in events[:200]]
    second = [(ts, framed(2, write_avro(SECOND, ts, user))) for ts, user in events[200:]]
    for ts, user in events:
        sent.count(ts, user)
    send(broker, source, first)
    flags = ["--format", "avro", "--schema-registry", registry.url, *SHAPE, "--delivery", delivery]
    flags += ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")]
    with job.running(*flags, "--summary", str(summary), "--max-offsets-per-trigger", "70") as runs:
        wait_until(lambda: len(read_windows(broker, sink)) >= 2, runs)
        registry.add(2, "shop.Event", SECOND)
        send(broker, source, [*second, (START, framed(3, b"x"))])
        wait_until(lambda: read_windows(broker, sink) == sent.windows(), runs)
    told = json.loads(summary.read_text())
    assert told["exact"]
    assert told["read"] == len(events) + 1
    assert told["counted"] + told["in_open_windows"] == len(events)
    assert told["rejected_by_reason"] == {"unknown_schema": 1}
    asked = sorted(request.partition("?")[0] for request in registry.requests)
    assert asked == [*(f"/schemas/ids/{number}" for number in (1, 2, 3)), f"/subjects/{source}-value/versions"]


@pytest.mark.parametrize("mode", ["--trigger=available-now", "--backfill"])
def test_a_batch_that_is_done_again_rejects_nothing_that_counts(
    job: InProcess,
    broker: KafkaBroker,
    new_topic: Callable[..., str],
    tmp_path: Path,
    registry: Registry,
    mode: str,
) -> None:
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    registry.add(1, "shop.Event", FIRST)
    registry.add(2, "shop.Event", SECOND)
    sent, values = Sent(), []
    for at, (ts, user) in enumerate(list_events()):
        sent.count(ts, user)
        schema = SECOND if at % 2 else FIRST
        values.append((ts, framed(1 + at % 2, write_avro(schema, ts, user))))
    sent.rejected += [("unknown_schema", framed(3, b"x")), ("unknown_schema", framed(4, b"y"))]
    send(broker, source, [*values, *((START, value) for _, value in sent.rejected)])
    summary = tmp_path / "summary.json"
    job.run(
        *["--format", "avro", "--schema-registry", registry.url, *SHAPE, mode, "--input-topic", source],
        *["--output-topic", sink, "--rejects-topic", rejects, "--summary", str(summary)],
        *["--checkpoint-location", str(tmp_path / "checkpoint")],
    )
    assert read_windows(broker, sink) == sent.windows()
    assert sorted(read_rejects(broker, rejects)) == sorted(sent.rejected)
    told = json.loads(summary.read_text())
    assert (told["read"], told["counted"], told["exact"]) == (302, 300, True)


@pytest.mark.slow
def test_a_new_id_is_one_line_in_the_log(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, registry: Registry
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    registry.add(1, "shop.Event", FIRST)
    send(broker, source, [(ts, framed(1, write_avro(FIRST, ts, user))) for ts, user in list_events()])
    flags = ["--format", "avro", "--schema-registry", registry.url, *SHAPE, "--trigger", "available-now"]
    flags += ["--input-topic", source, "--output-topic", sink, "--checkpoint-location", str(tmp_path / "checkpoint")]
    with submit(broker, tmp_path, *flags) as process:
        said = process.communicate()[1]
    lines = [line for line in said.splitlines() if "incubator" not in line]
    assert process.returncode == 0
    assert [line for line in lines if " unique_users: " not in line] == []
    assert sum("new schema ids: 1; asking the registry" in line for line in lines) == 1


def test_a_registry_that_is_away(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in"), new_topic("out")
    sent = Sent()
    for ts, user in list_events():
        sent.count(ts, user)
    send(broker, source, [(ts, framed(1, write_avro(FIRST, ts, user))) for ts, user in list_events()])
    shared = ["--format", "avro", *SHAPE, "--input-topic", source, "--output-topic", sink]
    shared += ["--checkpoint-location", str(tmp_path / "checkpoint"), "--trigger", "available-now"]
    with serve_registry() as registry:
        registry.add(1, "shop.Event", FIRST)
        registry.fails_after = 1
        with pytest.raises(JobError) as error:
            job.run(*shared, "--schema-registry", registry.url)
        assert str(error.value) == f"the schema registry at {registry.url} answered with an error: HTTP status 500"
        assert error.value.status == 1
    with pytest.raises(JobError) as error:
        job.run(*shared, "--schema-registry", registry.url)
    assert str(error.value).startswith(f"the schema registry at {registry.url} did not answer: is it running, and do ")
    assert error.value.status == 1
    assert "\n" not in str(error.value)
    with serve_registry() as registry:
        registry.add(1, "shop.Event", FIRST)
        job.run(*shared, "--schema-registry", registry.url)
    assert read_windows(broker, sink) == sent.windows()
