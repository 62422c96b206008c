"""The service and Kafka: newer records count at once, and Kafka may be away."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from service_tables import TOTAL, Minute, Tables, draw_minutes
from support import utc, wait_until
from test_api import client_of, get, start_service
from test_questions import assert_right
from unique_users_service import topics
from unique_users_service.calendar import Calendar
from unique_users_service.records import Window, parse_window

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker

FIRST = int(time.time()) // 3_600 * 3_600 - 7_200


def always() -> bool:
    """The service runs in this process."""
    return True


def make_record(minute: Minute, **fields: Any) -> bytes:
    """A record of unique_users.py --sketch."""
    record = {
        "window_start": utc(minute.start),
        "window_end": utc(minute.start + 60),
        "unique_users": len(set(minute.users)),
        "events": len(minute.users),
        "final": minute.final,
        "revision": minute.revision,
        # In lines, as Spark writes it.
        "sketch": base64.encodebytes(minute.sketch).decode().rstrip().replace("\n", "\r\n"),
    }
    if minute.group[0]:
        record |= {"group": json.loads(minute.group[0]), "other": minute.group[1]}
    return json.dumps({**record, **fields}).encode()


def produce(broker: KafkaBroker, topic: str, *values: bytes | None, headers: Any = None) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
    for value in values:
        producer.produce(topic, value, headers=headers)
    producer.flush()


def flags_of(broker: KafkaBroker, out: str, rollups: str, *more: str) -> list[str]:
    servers = ["--bootstrap-servers", broker.bootstrap_servers, "--refresh-interval", "1 second"]
    return [*servers, "--input-topic", out, "--rollup-topic", rollups, *more]


def test_records_count_at_once_and_the_highest_revision_stays(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 60, 60))
    out, rollups = new_topic("out", partitions=2), new_topic("rollups")
    group = ('{"country":"CH"}', False)
    newer = [
        Minute(FIRST + 3_600, ["a", "b"]),
        Minute(FIRST + 3_600, ["a"], group=group),
        Minute(FIRST, ["z"], revision=2),
    ]
    produce(broker, out, *map(make_record, newer), b"no record", None, make_record(newer[0], sketch="AAAA"))
    with client_of(tables, *flags_of(broker, out, rollups)) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        for minute in newer:
            tables.minutes[minute.group, minute.start] = minute
        wait_until(lambda: service.topics.taken == 3 and service.topics.caught_up.is_set(), always)
        for key in (TOTAL, group):
            assert_right(tables, service.state, FIRST - 600, FIRST + 7_200, key)
        assert service.topics.rejected == {"not_a_record": 1, "tombstone": 1, "bad_sketch": 1}
        assert get(client, "/healthz")["problems"] == {"tables": None, "kafka": None}
        last = Minute(FIRST + 3_660, ["c"])
        tables.minutes[TOTAL, last.start] = last
        produce(broker, out, make_record(Minute(FIRST, ["older"], revision=1)), make_record(last))
        wait_until(lambda: service.topics.taken == 5, always)
        wait_until(lambda: (service.state.span() or (0, 0))[1] == last.start + 60, always)
        assert_right(tables, service.state, FIRST - 600, FIRST + 7_200)


def test_a_period_that_kafka_calls_final_is_complete(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    tables = Tables(tmp_path)
    minutes = draw_minutes(FIRST, 70, 60)
    tables.write(minutes, rollups=False)
    for minute in minutes[:60]:
        minute.final = False
    tables.write_rollups(minutes)
    out, rollups = new_topic("out"), new_topic("rollups")
    with client_of(tables, *flags_of(broker, out, rollups)) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        question = f"/v1/unique-users?from={utc(FIRST)}&to={utc(FIRST + 3_600)}"
        assert not get(client, question)["complete"]
        wait_until(service.topics.caught_up.is_set, always)
        record = {"period": "hour", "period_start": utc(FIRST), "final": True, "events": 1}
        produce(broker, rollups, json.dumps(record).encode())
        wait_until(lambda: get(client, question)["complete"] is True, always)


def test_examples_of_rejected_events_come_from_their_topic(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    out, rollups, rejects = new_topic("out"), new_topic("rollups"), new_topic("rejects", partitions=2)
    for index in range(20):
        reason = b"not_json" if index % 2 else b"missing_uid"
        headers = [("reason", reason), ("topic", b"in"), ("partition", b"0"), ("offset", b"%d" % index)]
        produce(broker, rejects, b"event %d" % index, headers=headers)
    with client_of(Tables(tmp_path), *flags_of(broker, out, rollups, "--rejects-topic", rejects)) as client:
        found = get(client, "/v1/rejects?reason=not_json&limit=3")["rejects"]
        assert [each["value"] for each in found] == ["event 19", "event 17", "event 15"]
        assert found[0]["offset"] == "19"
        assert len(get(client, "/v1/rejects?limit=100")["rejects"]) == 20


@pytest.mark.slow
def test_kafka_may_be_away_and_come_back(own_broker: KafkaBroker, tmp_path: Path) -> None:
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 60, 60))
    own_broker.create_topic("out")
    own_broker.create_topic("rollups")
    own_broker.stop()
    with client_of(tables, *flags_of(own_broker, "out", "rollups")) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        question = f"/v1/unique-users?from={utc(FIRST)}&to={utc(FIRST + 7_200)}"
        before = get(client, question)["events"]
        assert before == tables.expect(FIRST, FIRST + 7_200)[2]
        wait_until(
            lambda: get(client, "/healthz")["problems"]["kafka"] not in (None, "Kafka was not asked yet"), always
        )
        own_broker.start()
        produce(own_broker, "out", make_record(Minute(FIRST + 3_600, ["a", "b"])))
        wait_until(lambda: get(client, question)["events"] == before + 2, always)
        assert get(client, "/healthz")["problems"]["kafka"] is None
        assert service.topics.taken >= 1


def test_new_partitions_are_found_and_a_strange_record_ends_nothing(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics, "PARTITIONS_SECONDS", 0.5)
    tables = Tables(tmp_path)
    tables.write(draw_minutes(FIRST, 60, 60))
    out, rollups = new_topic("out"), new_topic("rollups")
    with client_of(tables, *flags_of(broker, out, rollups)) as client:
        service: Any = client.app.state.service  # type: ignore[attr-defined]
        failed: list[tuple[Any, ...]] = []

        def fail_once(*args: Any) -> Any:
            if not failed:
                failed.append(args)
                raise RuntimeError("strange")
            return parse_window(*args)

        monkeypatch.setattr(topics, "parse_window", fail_once)
        produce(broker, out, b"strange")
        wait_until(lambda: bool(failed), always)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        admin.create_partitions([NewPartitions(out, 2)])[out].result(30)
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers})
        producer.produce(out, make_record(Minute(FIRST + 3_600, ["a"])), partition=1)
        producer.flush()
        wait_until(lambda: service.topics.taken == 1, always)
        assert service.topics.problem is None


def test_a_missing_topic_is_said(broker: KafkaBroker, tmp_path: Path) -> None:
    service = start_service(Tables(tmp_path), *flags_of(broker, "no-such-topic", "none-either"))
    service.start()
    try:
        assert service.topics is not None
        reader = service.topics
        wait_until(lambda: "no-such-topic" in (reader.problem or ""), always)
    finally:
        service.close()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"window_start": "soon"}, "not_a_record"),
        ({"events": "many"}, "not_a_record"),
        ({"revision": True}, "not_a_record"),
        ({"group": "CH"}, "not_a_record"),
        ({"sketch": None}, "no_sketch"),
        ({"sketch": "%%%"}, "bad_sketch"),
        ({"window_end": utc(FIRST + 7 * 60)}, "bad_window"),
    ],
)
def test_records_that_can_not_be_united_have_the_reasons_of_the_job(fields: dict[str, Any], reason: str) -> None:
    assert parse_window(make_record(Minute(FIRST, ["a"]), **fields), Calendar(), None) == reason
    assert parse_window(make_record(Minute(FIRST, ["a"])), Calendar(), FIRST + 60) == "before_kept_minutes"
    assert isinstance(parse_window(make_record(Minute(FIRST, ["a"])), Calendar(), FIRST), Window)
