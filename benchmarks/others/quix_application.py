"""Unique users a minute with Quix Streams: parse, bring all to one key, collect the users of a window, count them.

    python quix_application.py localhost:9092 in out STATE_FOLDER

At least once, Quix's default. Ends when nothing has come for a while.
"""

from __future__ import annotations

import sys
import time
import uuid
from datetime import timedelta
from typing import Any

import msgspec
from quixstreams import Application

MAX_FUTURE_MS = 5_000
IDLE_SECONDS = 5.0


class Event(msgspec.Struct):
    """The two fields that count."""

    ts: int | str
    uid: str


decode = msgspec.json.Decoder(Event).decode


def parse(value: bytes | None, _key: Any, arrival_ms: int, _headers: Any) -> tuple[int, str] | None:
    """Event time in milliseconds and user; None for what does not count."""
    try:
        event = decode(value or b"")
        milliseconds = int(event.ts) * 1_000
    except (msgspec.MsgspecError, ValueError):
        return None
    return (milliseconds, event.uid) if event.uid and 0 <= milliseconds <= arrival_ms + MAX_FUTURE_MS else None


def describe_window(window: dict[str, Any]) -> dict[str, Any]:
    """The result of a closed window."""
    return {
        "window_start": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(window["start"] // 1_000)),
        "unique_users": len(set(window["value"])),
        "events": len(window["value"]),
    }


def main(servers: str, input_topic: str, output_topic: str, folder: str) -> None:
    """Runs the application."""
    app = Application(
        broker_address=servers,
        consumer_group=f"quix-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        state_dir=folder,
        loglevel="WARNING",
    )
    events = app.dataframe(app.topic(input_topic, value_deserializer="bytes"))
    events = events.apply(parse, metadata=True).filter(lambda event: event is not None)
    events = events.set_timestamp(lambda event, *_: event[0]).apply(lambda event: event[1])
    # A window is counted per key: users of all partitions have to come together under one.
    users = events.group_by(
        lambda _: "all",
        name="all",
        value_serializer="str",
        value_deserializer="str",
        key_serializer="str",
        key_deserializer="str",
    )
    # By default a late event is logged, which costs more than counting one.
    minutes = users.tumbling_window(timedelta(minutes=1), grace_ms=timedelta(seconds=5), on_late=lambda *_: False)
    minutes.collect().final().apply(describe_window).to_topic(
        app.topic(output_topic, value_serializer="json", key_serializer="str")
    )
    app.run(timeout=IDLE_SECONDS, collect=False)


if __name__ == "__main__":
    main(*sys.argv[1:5])
