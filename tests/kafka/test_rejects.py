"""A rejected record on the rejects topic: all that the original record had, and where it came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from support import read_messages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker
    from support import InProcess

ARRIVAL = 1_468_244_384_123  # 2016-07-11T13:39:44.123Z
OURS = ["reason", "topic", "partition", "offset", "arrival_time", "timestamp_type"]
# Bytes that are no UTF-8, no value, an empty one, a name that comes twice, names of the job's own headers.
HEADERS = [
    ("trace", b"\xff\x00\xfe"),
    ("reason", b"mine"),
    ("trace", None),
    ("topic", None),
    ("empty", b""),
    ("\N{SNOWMAN}", b"\xc3\x28"),
]
# Key, value, headers; each is rejected.
REJECTED: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"\xff\x00key", b"\xff not UTF-8", HEADERS),
    (None, b"[]", []),
    (b"", None, [("why", b"deleted")]),
    (b"key", b"", [("", b"a header without a name")]),
]


@pytest.mark.parametrize(
    "mode", [["--delivery", "at-least-once"], ["--delivery", "exactly-once"], ["--backfill"]], ids=lambda mode: mode[-1]
)
def test_a_rejected_record_keeps_its_key_value_headers_and_timestamp(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, mode: list[str]
) -> None:
    source, sink, rejects = new_topic("in"), new_topic("out"), new_topic("rejects")
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 0})
    for number, (key, value, headers) in enumerate(REJECTED):
        producer.produce(source, value, key, headers=headers, timestamp=ARRIVAL + number)  # type: ignore[arg-type]
    # An event that counts, with headers too.
    producer.produce(source, b'{"ts":1468244384,"uid":"a"}', headers=HEADERS, timestamp=ARRIVAL)  # type: ignore[arg-type]
    assert producer.flush(30) == 0
    flags = ["--input-topic", source, "--output-topic", sink, "--rejects-topic", rejects, *mode]
    flags += [] if "--backfill" in mode else ["--trigger", "available-now"]
    job.run(*flags, "--checkpoint-location", str(tmp_path / "checkpoint"))

    found = {}
    for message in read_messages(broker, rejects):
        pairs: Any = message.headers()
        kept, ours = pairs[: -len(OURS)], dict(pairs[-len(OURS) :])
        assert list(ours) == OURS
        found[int(ours["offset"])] = (message.key(), message.value(), kept, ours)
    reasons = ["invalid_utf8", "not_an_object", "tombstone", "not_json"]
    assert found == {
        offset: (
            key,
            value,
            headers,
            {
                "reason": reasons[offset].encode(),
                "topic": source.encode(),
                "partition": b"0",
                "offset": str(offset).encode(),
                "arrival_time": f"2016-07-11T13:39:44.{123 + offset}Z".encode(),
                "timestamp_type": b"CreateTime",
            },
        )
        for offset, (key, value, headers) in enumerate(REJECTED)
    }
    [result] = read_messages(broker, sink)
    assert result.headers() is None


def test_a_rejected_line_of_a_file_has_its_reason_only(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    rejects = new_topic("rejects")
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b'[]\n{"ts":1468244384,"uid":"a"}\n')
    job.run("--input", str(lines), "--output-topic", new_topic("out"), "--rejects-topic", rejects)
    assert [(message.key(), message.value(), message.headers()) for message in read_messages(broker, rejects)] == [
        (None, b"[]", [("reason", b"not_an_object")])
    ]
