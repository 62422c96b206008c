"""Generates events like those of the challenge, and counts them exactly.

    python tools/generate_events.py --events 100000 --output stream.jsonl.gz --exact exact.jsonl

The same flags give the same bytes. An event is one line of JSON of about 2 kB. At its root are `ts` (unix seconds, a
number or a string) and `uid`, in either order. The rest tests a parser: nested objects repeat both names, and strings
hold braces and escaped quotes. `--exact` writes one JSON line for each window, in order of time:

    {"window_start": "2016-07-11T13:39:00Z", "events": 60000, "unique_users": 45118, "late_events": 0}

`--shape clickstream` makes nested events of another shape (`clickstream.py`), with dimensions. After the lines of the
windows `--exact` then has one for each window and group of each breakdown:

    {"window_start": …, "group": {"context.app": "help"}, "events": 8705, "unique_users": 8214, "late_events": 0}
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from clickstream import BREAKDOWNS, Clickstream

if TYPE_CHECKING:
    from collections.abc import Iterator

SHAPES = ("challenge", "clickstream")
FILLERS = 64
PROGRESS_EVERY = 100_000

MALFORMED = (
    b"",
    b"not json",
    b"null",
    b"[]",
    b"{}",
    b'{"ts":%(ts)d}',
    b'{"uid":"%(uid)s"}',
    b'{"ts":null,"uid":"%(uid)s"}',
    b'{"ts":"soon","uid":"%(uid)s"}',
    b'{"ts":true,"uid":"%(uid)s"}',
    b'{"ts":"2016-02-30T13:39:44Z","uid":"%(uid)s"}',
    b'{"ts":"%(ts)d.5.5","uid":"%(uid)s"}',
    b'{"ts":-%(ts)d,"uid":"%(uid)s"}',
    b'{"ts":1%(ts)d1%(ts)d,"uid":"%(uid)s"}',
    b'{"ts":%(ts)d,"uid":""}',
    b'{"ts":%(ts)d,"uid":null}',
    b'{"ts":%(ts)d,"uid":"%(uid)s"',
    b'{"nested":{"ts":%(ts)d,"uid":"%(uid)s"}}',
)


@dataclass(frozen=True)
class Settings:
    """What to generate.

    `shape` is one of SHAPES. Times are in unix seconds, rates in events per second of event time, shares from 0 to 1,
    sizes in bytes.
    """

    events: int = 100_000
    start: int = 1_468_244_340  # 2016-07-11T13:39:00Z, the start of the challenge's sample
    rate: float = 1_000.0
    users: int = 100_000
    size: int = 2_000
    string_ts: float = 0.5
    max_delay: float = 4.0
    delayed: float = 0.1
    late: float = 0.0
    late_by: float = 300.0
    malformed: float = 0.0
    seed: int = 1
    shape: str = SHAPES[0]


@dataclass(frozen=True)
class Event:
    """A generated line without its line feed.

    `ts` and `uid` are None in one that does not count: it is malformed, or a bot's. `dimensions`: path -> value, for
    shapes that have them.
    """

    line: bytes
    ts: int | None = None
    uid: str | None = None
    late: bool = False
    dimensions: dict[str, str | None] | None = None


# The window, and the values of a breakdown's dimensions, as JSON; empty for all events of the window.
Key = tuple[int, str]


@dataclass
class ExactCounts:
    """The exact counts of events and users for each window, and for its groups, from Python sets."""

    window_seconds: int = 60
    users: dict[Key, set[str]] = field(default_factory=lambda: defaultdict(set))
    events: dict[Key, int] = field(default_factory=lambda: defaultdict(int))
    late: dict[Key, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, event: Event) -> None:
        """Counts an event. It ignores one that does not count and counts a late one separately."""
        if event.ts is None or event.uid is None:
            return
        start = event.ts - event.ts % self.window_seconds
        groups = [""]
        if event.dimensions is not None:
            groups += [json.dumps({path: event.dimensions[path] for path in paths}) for paths in BREAKDOWNS]
        for group in groups:
            if event.late:
                self.late[start, group] += 1
            else:
                self.users[start, group].add(event.uid)
                self.events[start, group] += 1

    def rows(self) -> Iterator[dict[str, Any]]:
        """A row for each window that is not empty, in order of time, then one for each of its groups."""
        keys = {*self.events, *self.late}
        for start, group in sorted(keys, key=lambda key: (key[1] != "", key)):
            row: dict[str, Any] = {
                "window_start": datetime.fromtimestamp(start, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            }
            if group:
                row["group"] = json.loads(group)
            yield {
                **row,
                "events": self.events[start, group],
                "unique_users": len(self.users[start, group]),
                "late_events": self.late[start, group],
            }


def make_fillers(random_: random.Random, size: int) -> list[bytes]:
    """Members of an object, without its braces, that make an event about `size` bytes long."""
    fillers = []
    for index in range(FILLERS):
        nested: dict[str, object] = {
            "ts": random_.randrange(2**31),
            "uid": f"nested-{random_.randrange(10**6)}",
            "path": 'a "quoted" {brace} \\ back[slash] "uid": "fake", "ts": 1}',
            "list": [{"uid": "in-list", "ts": "0"}, [], {}],
        }
        filler: dict[str, object] = {"type": f"page-{index}", "data": nested, "text": ""}
        missing = size - 60 - len(json.dumps(filler, separators=(",", ":")))
        if missing > 0:
            filler["text"] = "".join(random_.choices("abcdefghij klmno{}[]:,", k=missing))
        else:
            filler = {"type": index}
        fillers.append(json.dumps(filler, separators=(",", ":"))[1:-1].encode())
    return fillers


def generate_events(settings: Settings) -> Iterator[Event]:
    """Yields the events in order of arrival. Most `ts` rise; `settings` say how many are delayed and how many late."""
    if settings.shape == "clickstream":
        yield from generate_clicks(settings)
        return
    random_ = random.Random(settings.seed)
    fillers = make_fillers(random_, settings.size)
    uids = [f"{random_.getrandbits(80):020x}" for _ in range(settings.users)]
    draw = random_.random
    for index in range(settings.events):
        uid = uids[int(draw() * settings.users)]
        arrival = settings.start + index / settings.rate
        late = draw() < settings.late
        if late:
            ts = int(arrival - settings.late_by)
        elif draw() < settings.delayed:
            # Not before the start, or there would be an extra first window with a few delayed events.
            ts = max(settings.start, int(arrival - draw() * settings.max_delay))
        else:
            ts = int(arrival)
        if draw() < settings.malformed:
            line = MALFORMED[int(draw() * len(MALFORMED))]
            yield Event(line % {b"ts": ts, b"uid": uid.encode()} if b"%" in line else line)
            continue
        shown = b'"%d"' % ts if draw() < settings.string_ts else b"%d" % ts
        filler = fillers[int(draw() * FILLERS)]
        if index % 2:
            line = b'{"ts":%s,%s,"uid":"%s"}' % (shown, filler, uid.encode())
        else:
            line = b'{%s,"uid":"%s","ts":%s}' % (filler, uid.encode(), shown)
        yield Event(line, ts, uid, late)


def generate_clicks(settings: Settings) -> Iterator[Event]:
    """The same for the shape `clickstream`."""
    random_ = random.Random(settings.seed)
    clicks = Clickstream(random_, settings.users, make_fillers(random_, settings.size - 160))
    draw = random_.random
    for index in range(settings.events):
        time = settings.start + index / settings.rate
        late = draw() < settings.late
        if late:
            time -= settings.late_by
        elif draw() < settings.delayed:
            time = max(settings.start, time - draw() * settings.max_delay)
        milliseconds = int(time * 1_000)
        click = clicks.make_malformed(milliseconds) if draw() < settings.malformed else clicks.make(milliseconds)
        ts = None if click.user is None else milliseconds // 1_000
        yield Event(click.line, ts, click.user, late, click.dimensions)


def parse_time(text: str) -> int:
    """ISO 8601 in UTC, or unix seconds, to unix seconds."""
    if text.isdecimal():
        return int(text)
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2016-07-11T13:39:00Z") from None
    return int((time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp())


def share(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share from 0 to 1")
    return value


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def positive_rate(text: str) -> float:
    """A number above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def not_negative(text: str) -> float:
    """A number from 0."""
    value = float(text)
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return value


def open_output(path: str) -> IO[bytes] | gzip.GzipFile:
    """Standard output for `-`, a gzip file for a name that ends in .gz, otherwise a plain file."""
    if path == "-":
        return sys.stdout.buffer
    if path.endswith(".gz"):
        # Without a name and a time in its header the file has the same bytes for the same settings.
        return gzip.GzipFile("", "wb", compresslevel=1, fileobj=Path(path).open("wb"), mtime=0)
    return Path(path).open("wb")


def make_parser() -> argparse.ArgumentParser:
    """The command line's flags."""
    parser = argparse.ArgumentParser(
        description="Generate events like those of the challenge, and their exact counts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    default = Settings()
    parser.add_argument("--output", default="-", metavar="FILE", help=".jsonl, .jsonl.gz, or - for standard output")
    parser.add_argument(
        "--exact", type=Path, metavar="FILE", help="write the exact counts here, one JSON line for each window"
    )
    parser.add_argument(
        "--shape", choices=SHAPES, default=default.shape, help="clickstream: nested, with dimensions, bots, other times"
    )
    parser.add_argument("--events", type=positive, default=default.events, help="number of events")
    parser.add_argument("--start", type=parse_time, default=default.start, help="first event time, ISO 8601 or seconds")
    parser.add_argument("--rate", type=positive_rate, default=default.rate, help="events a second of event time")
    parser.add_argument("--users", type=positive, default=default.users, help="number of users to draw from")
    parser.add_argument("--size", type=positive, default=default.size, help="approximate bytes of an event")
    parser.add_argument(
        "--string-ts",
        type=share,
        default=default.string_ts,
        help="share of events whose ts is a string, of --shape challenge",
    )
    parser.add_argument(
        "--delayed", type=share, default=default.delayed, help="share of events that arrive out of order"
    )
    parser.add_argument(
        "--max-delay", type=not_negative, default=default.max_delay, help="largest delay of these, in seconds"
    )
    parser.add_argument(
        "--late", type=share, default=default.late, help="share of events that arrive late, after --late-by seconds"
    )
    parser.add_argument(
        "--late-by", type=not_negative, default=default.late_by, help="delay of late events, in seconds"
    )
    parser.add_argument(
        "--malformed", type=share, default=default.malformed, help="share of records that can't be counted"
    )
    parser.add_argument("--window", type=positive, default=60, help="window of the exact counts, in seconds")
    parser.add_argument("--seed", type=int, default=default.seed, help="another seed gives other events")
    return parser


def main() -> None:
    """Writes the events, and the exact counts when asked."""
    args = make_parser().parse_args()
    names = Settings.__dataclass_fields__
    settings = Settings(**{name: value for name, value in vars(args).items() if name in names})
    counts = ExactCounts(args.window)
    try:
        with ExitStack() as stack:
            output = open_output(args.output)
            if args.output != "-":
                stack.enter_context(output)
            for done, event in enumerate(generate_events(settings), 1):
                output.write(event.line + b"\n")
                if args.exact:
                    counts.add(event)
                if done % PROGRESS_EVERY == 0:
                    print(
                        f"generate_events: {done:,} of {settings.events:,} events",
                        file=sys.stderr,
                        flush=True,
                    )
            output.flush()
        if args.exact:
            args.exact.write_text("".join(json.dumps(row) + "\n" for row in counts.rows()))
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        sys.exit(f"generate_events: error: {error}")


if __name__ == "__main__":
    main()
