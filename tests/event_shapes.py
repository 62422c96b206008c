"""Events as others write them, with what the job must make of each: what the guide "your events" and tests are about.

No code of the project says what is expected: it is what was put into the event.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START = 1_468_244_340  # 2016-07-11T13:39:00Z
COUNTED, FILTERED = "counted", "filtered"


@dataclass(frozen=True)
class Made:
    """A line, what it is to be counted as, and where it is counted when (unix seconds), for whom, and in which groups.

    `dimensions`: path -> text, of the paths that the guide breaks down by; a path that is not there has none.
    """

    line: bytes
    outcome: str
    time: float | None = None
    user: str | None = None
    dimensions: dict[str, str] = field(default_factory=dict)


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def iso(time: float, offset_hours: float = 0, zulu: bool = True) -> str:
    zone = timezone(timedelta(hours=offset_hours))
    text = datetime.fromtimestamp(time, zone).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z") if zulu else text


def make_times(random_: random.Random, number: int) -> list[float]:
    """Times in milliseconds, in about seven minutes, most of them in order."""
    return [round(START + 2 * at + random_.uniform(-1, 1) + 2, 3) for at in range(number)]


def make_cloud_events(random_: random.Random, time: float) -> Made:
    """CloudEvents in JSON, structured mode: https://github.com/cloudevents/spec."""
    user = f"u-{random_.randrange(40)}"
    kind = random_.choice(("order.created", "order.paid", "order.shipped", "stock.changed"))
    document: dict[str, Any] = {
        "specversion": "1.0",
        "id": f"{random_.getrandbits(64):016x}",
        "source": "/shop/orders",
        "type": f"com.example.{kind}",
        "time": iso(time, random_.choice((0, 0, 2, -7, 5.5))),
        "datacontenttype": "application/json",
        "data": {"userId": user, "amount": round(random_.uniform(1, 200), 2), "items": [{"sku": "a", "userId": "x"}]},
    }
    if kind == "stock.changed":
        del document["data"]["userId"]
        return Made(dump(document), FILTERED)
    damage = random_.random()
    if damage < 0.03:
        document["time"] = random_.choice(("2016-13-01T00:00:00Z", "yesterday", ""))
        return Made(dump(document), "bad_ts")
    if damage < 0.06:
        document["data"] = random_.choice((None, "text", {"userId": ""}))
        return Made(dump(document), "missing_uid")
    return Made(dump(document), COUNTED, time, user, {"type": f"com.example.{kind}"})


def make_track(random_: random.Random, time: float) -> Made:
    """Calls of a tracking library: some users are known, the others have an anonymous id."""
    known = random_.random() < 0.4
    anonymous = f"anon-{random_.randrange(60)}"
    user = f"user-{random_.randrange(20)}"
    kind = random_.choice(("track", "track", "track", "identify"))
    document: dict[str, Any] = {
        "type": kind,
        "event": random_.choice(("Product Viewed", "Product Added", "Order Completed")),
        "messageId": f"ajs-{random_.getrandbits(64):016x}",
        "anonymousId": anonymous,
        "userId": user if known else None,
        "timestamp": iso(time, random_.choice((0, 2)), zulu=False),
        "sentAt": iso(time + 1),
        "context": {
            "app": {"name": random_.choice(("web", "ios", "android"))},
            "ip": "192.0.2.1",
            "userAgent": 'A "browser" {1.0}',
        },
        "properties": {"timestamp": 1, "userId": "not this one", "price": 9.5},
    }
    if kind != "track":
        return Made(dump(document), FILTERED)
    if random_.random() < 0.04:
        del document["anonymousId"], document["userId"]
        return Made(dump(document), "missing_uid")
    groups = {"event": document["event"], "context.app.name": document["context"]["app"]["name"]}
    return Made(dump(document), COUNTED, time, user if known else anonymous, groups)


def make_access_log(random_: random.Random, time: float) -> Made:
    """A web server's access log as JSON lines, with both forms of its time."""
    address = f"192.0.2.{random_.randrange(1, 50)}"
    name = random_.choice(("", "", "", "", "", "ann", "ben", "cid", "dan", "eve"))
    is_bot, status = random_.random() < 0.1, random_.choice((200, 200, 200, 301, 404, 500))
    moment = datetime.fromtimestamp(int(time), timezone(timedelta(hours=random_.choice((0, 2)))))
    document: dict[str, Any] = {
        "time_local": moment.strftime("%d/%b/%Y:%H:%M:%S %z"),
        "time_iso8601": moment.isoformat(),
        "remote_addr": address,
        "remote_user": name,
        "request": f"GET /p/{random_.randrange(9)} HTTP/1.1",
        "status": status,
        "body_bytes_sent": random_.randrange(9_999),
        "http_user_agent": "Mozilla/5.0 (compatible; ExampleBot/2.1)" if is_bot else "Mozilla/5.0 (X11)",
    }
    if random_.random() < 0.03:
        return Made(dump(document)[:-1], "not_json")
    if is_bot or status >= 400:
        return Made(dump(document), FILTERED)
    return Made(dump(document), COUNTED, int(time), name or address, {"status": str(status)})


def make_change(random_: random.Random, time: float) -> Made:
    """Change events of a database's table: rows before and after, and when it changed."""
    customer = random_.randrange(1_000, 1_040)
    operation = random_.choice("cuudr")
    row = {"id": random_.randrange(10**6), "customer_id": customer, "status": random_.choice(("new", "paid", "sent"))}
    payload: dict[str, Any] = {
        "before": None if operation in "cr" else row,
        "after": None if operation == "d" else row,
        "source": {"connector": "postgresql", "db": "shop", "table": "orders", "ts_ms": int(time * 1_000) - 300},
        "op": operation,
        "ts_ms": int(time * 1_000),
    }
    document = {
        "schema": {"type": "struct", "fields": [{"field": "ts_ms"}], "name": "orders.Envelope"},
        "payload": payload,
    }
    if operation == "r":
        return Made(dump(document), FILTERED)
    if random_.random() < 0.03:
        payload["ts_ms"] = None
        return Made(dump(document), "missing_ts")
    groups = {"payload.op": operation}
    if operation != "d":
        groups["payload.after.status"] = str(row["status"])
    return Made(dump(document), COUNTED, int(time * 1_000) / 1_000, str(customer), groups)


def make_code_event(random_: random.Random, time: float) -> Made:
    """The public feed of a code host."""
    login = random_.choice([*(f"dev-{at}" for at in range(30)), "renovate[bot]", "ci[bot]"])
    kind = random_.choice(("PushEvent", "WatchEvent", "PullRequestEvent"))
    payload: dict[str, Any] = {"action": "started"}
    if kind == "PushEvent":
        payload = {
            "ref": "refs/heads/main",
            "before": "0" * 40,
            "commits": [{"author": {"name": "x"}, "created_at": 1}],
        }
    if kind == "PullRequestEvent":
        payload = {"action": "opened", "pull_request": {"created_at": iso(time - 9e6), "user": {"login": "other"}}}
    document: dict[str, Any] = {
        "id": str(random_.randrange(10**10)),
        "type": kind,
        "actor": {"id": sum(login.encode()) * 7 + len(login), "login": login},
        "repo": {"id": random_.randrange(9), "name": f"example/{random_.randrange(9)}"},
        "payload": payload,
        "public": True,
        "created_at": iso(int(time)).replace(".000", ""),
    }
    if login.endswith("[bot]"):
        return Made(dump(document), FILTERED)
    if random_.random() < 0.03:
        document["actor"] = None
        return Made(b"[" + dump(document) + b"]", "not_an_object")
    groups = {"type": kind, "repo.name": document["repo"]["name"]}
    return Made(dump(document), COUNTED, int(time), login, groups)


SHAPES: dict[str, Callable[[random.Random, float], Made]] = {
    "CloudEvents": make_cloud_events,
    "Tracking calls": make_track,
    "Web access log": make_access_log,
    "Database changes": make_change,
    "Code host feed": make_code_event,
}


def make_events(shape: str, number: int = 200, seed: int = 1) -> list[Made]:
    """Events of one of SHAPES, the same for the same seed."""
    random_ = random.Random(f"{shape} {seed}")
    return [SHAPES[shape](random_, time) for time in make_times(random_, number)]


def count_windows(events: Sequence[Made], breakdowns: Sequence[str] = ()) -> dict[str, tuple[int, int]]:
    """Window start, and group where there is one -> (unique users, events), by sets; `breakdowns` as --by has them."""
    users: dict[str, list[str]] = {}
    for event in events:
        if event.time is not None and event.user is not None:
            start = datetime.fromtimestamp(event.time // 60 * 60, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            users.setdefault(start, []).append(event.user)
            for paths in breakdowns:
                group = {path: event.dimensions.get(path) for path in paths.split(",")}
                users.setdefault(f"{start} {json.dumps(group, sort_keys=True)}", []).append(event.user)
    return {start: (len(set(found)), len(found)) for start, found in sorted(users.items())}
