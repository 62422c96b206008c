"""What events look like: the fields that are in them, and which of these are the time, the user, dimensions, bots."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from event_rules import PATTERNS, BotFlag, Record, as_text, is_utf8, read_json, read_time
from uniques.core.fields import EventShape, Field, TimeFormat, parse_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

# Objects whose keys are ids have no end of paths.
MAX_PATHS = 5_000
MAX_LEVELS = 32
# Of longer values a hash is kept.
MAX_TEXT = 200
DAY = 86_400 * 10**6
OLDEST = 20 * 365 * DAY
MAX_DIMENSION_VALUES = 50
BOT_NAME = re.compile(r"(is)?(ro)?bot|(is)?(crawler|spider)")
BOT_VALUES = (("true", "false"), ("1", "0"), ("yes", "no"), ("True", "False"))

# Names without capitals, dashes and underscores, the best first.
TIME_NAMES = (
    ("eventtime", "eventtimestamp", "time", "timestamp", "ts", "occurredat", "derivedtstamp", "timeiso8601"),
    ("sentat", "createdat", "datetime", "tsms", "eventat", "collectortstamp", "msec", "timelocal", "originaltimestamp"),
)
TIME_ENDINGS = re.compile(r"(time|timestamp|tstamp|date|at|ts|on|ms|epoch|when|dt)$")
USER_PARENTS = frozenset(
    ("user", "actor", "customer", "account", "member", "person", "profile", "player", "subscriber", "sender", "viewer")
)
USER_LAST = ("id", "uuid", "userid", "login", "username", "name", "email", "sub", "key")
# What says who a user is, the best first: pairs of last names, and of (name above, last name).
USER_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "user",
        re.compile(rf"uid|(\w+ )?({'|'.join(USER_PARENTS)})id|({'|'.join(USER_PARENTS)}) ({'|'.join(USER_LAST)})"),
    ),
    ("user", re.compile(r"(\w+ )?(user(name)?|login|actor|email|remoteuser|performer)")),
    (
        "anonymous id",
        re.compile(
            r"(\w+ )?(anonymousid|anonid|anonymous|visitorid|cookieid|cookie|clientid|distinctid|domainuserid|"
            r"networkuserid|userpseudoid|fullvisitorid|guestid)|(visitor|anonymous|guest) id"
        ),
    ),
    ("device", re.compile(r"(\w+ )?(deviceid|idfa|idfv|advertisingid|installid|androidid)|device id")),
    ("session", re.compile(r"(\w+ )?(sessionid|domainsessionid|sid)|session id")),
    ("address", re.compile(r"(\w+ )?(remoteaddr|ip|clientip|ipaddress|remotehost|remoteip|sourceip)")),
)
DIMENSION_NAMES = re.compile(
    r"country|region|city|device|platform|os|browser|app|application|product|site|channel|source|type|event|name|action|"
    r"plan|language|locale|method|status|op|table|version"
)


@dataclass
class PathProfile:
    """What is at a path: how many events have it (null is not there), of which types, with which values."""

    names: tuple[str, ...]
    present: int = 0
    types: Counter[str] = field(default_factory=Counter)
    values: Counter[str] = field(default_factory=Counter)
    examples: list[object] = field(default_factory=list)
    # (value, arrival time), for what may be a time.
    times: list[tuple[object, float | None]] = field(default_factory=list)
    # The events that have it, and not empty.
    holders: set[int] = field(default_factory=set)

    @property
    def field(self) -> Field | None:
        """The path as flags take it; None when no flag can name it."""
        found = Field(self.names)
        if self.names[0].startswith("@") or not all(name.isprintable() for name in self.names):
            return None
        try:
            return found if parse_fields(found.text) == (found,) else None
        except ValueError:
            return None

    @property
    def is_scalar(self) -> bool:
        """Whether hardly any event has an object or an array there."""
        return self.types["object"] + self.types["array"] <= self.present / 10

    def add(self, event: int, value: object, arrived: float | None) -> None:
        """Counts the value of an event."""
        self.types[name_type(value)] += 1
        if value is None:
            return
        self.present += 1
        text = as_text(value) or ""
        if text:
            self.holders.add(event)
        self.values[text if len(text) <= MAX_TEXT else hash_text(text)] += 1
        if len(self.examples) < 3 and value not in self.examples:
            self.examples.append(value)
        if isinstance(value, (str, int, float)) and len(text) <= MAX_TEXT:
            self.times.append((value, arrived))


class TimeChoice(NamedTuple):
    """A field that may be the time: its format, how its values are written, and what of it is a plausible time."""

    profile: PathProfile | None
    time_format: str
    written: Counter[str]
    first: int
    last: int
    plausible: int
    score: float


class Given(NamedTuple):
    """What whoever looks knows already."""

    time: Field | None = None
    users: tuple[Field, ...] = ()


NOTHING_GIVEN = Given()


class Proposal(NamedTuple):
    """What the events seem to have where; `users` are `(field, what says so)`."""

    time: TimeChoice | None
    users: list[tuple[Field, str]]
    bots: tuple[BotFlag, int] | None
    dimensions: list[PathProfile]

    @property
    def shape(self) -> EventShape | None:
        """The shape for the job; None when there is no time or no user."""
        if self.time is None or not self.users:
            return None
        users = tuple(found for found, _ in self.users)
        profile = self.time.profile
        if profile is None or profile.field is None:
            return EventShape(time_format=TimeFormat("kafka"), users=users)
        return EventShape(profile.field, TimeFormat(self.time.time_format), users)


@dataclass
class Profile:
    """What is in records: the paths of their JSON objects, in order of appearance."""

    records: Sequence[Record]
    objects: int = 0
    paths: dict[tuple[str, ...], PathProfile] = field(default_factory=dict)
    has_more_paths: bool = False

    @property
    def keys(self) -> Counter[str]:
        """The keys of records that are text."""
        return Counter(record.key.decode() for record in self.records if record.key and is_utf8(record.key))


def profile_records(records: Sequence[Record]) -> Profile:
    """Looks at the JSON objects among these records."""
    profile = Profile(records)
    for event, record in enumerate(records):
        document, _reason = read_json(record.value or b"")
        if not isinstance(document, dict):
            continue
        profile.objects += 1
        for names, value in list_leaves(document):
            found = profile.paths.get(names)
            if found is None:
                if len(profile.paths) >= MAX_PATHS:
                    profile.has_more_paths = True
                    continue
                found = profile.paths[names] = PathProfile(names)
            found.add(event, value, record.arrived)
    return profile


def list_leaves(document: dict[str, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """The paths of a document that lead to no further names, with their values. Flags don't reach into arrays."""
    left: list[tuple[tuple[str, ...], object]] = [((name,), value) for name, value in reversed(document.items())]
    while left:
        names, value = left.pop()
        if isinstance(value, dict) and value and len(names) < MAX_LEVELS:
            left += [((*names, name), inner) for name, inner in reversed(value.items())]
        else:
            yield names, value


def name_type(value: object) -> str:
    """JSON's word for the type of a value; whole numbers and others are told apart."""
    if isinstance(value, bool):
        return "boolean"
    names = {str: "string", int: "integer", float: "number", dict: "object", list: "array"}
    return names.get(type(value), "null")


def hash_text(text: str) -> str:
    """A short text that stands for a long one."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def normalize(name: str) -> str:
    """A name without capitals, blanks, dashes and underscores."""
    return re.sub(r"[\W_]", "", name.lower())


def propose(profile: Profile, now: float, given: Given = NOTHING_GIVEN) -> Proposal:
    """What the events seem to have where, as far as it is not given.

    `now`, unix seconds, is what times of lines are compared with.
    """
    time = find_time(profile, now) if given.time is None else look_at_time(profile, given.time, now)
    users = [(found, "as given") for found in given.users] or find_users(profile, time)
    taken = {found for found, _ in users} | ({time.profile.field} if time and time.profile else set())
    bots = find_bots(profile)
    if bots:
        taken.add(bots[0].field)
    return Proposal(time, users, bots, find_dimensions(profile, taken))


def look_at_time(profile: Profile, field: Field, now: float) -> TimeChoice:
    """The best format for a field that is given."""
    path = profile.paths.get(field.names, PathProfile(field.names))
    found = [choice for name in ("auto", *PATTERNS) if (choice := try_format(path, name, profile, now))]
    none = TimeChoice(path, "auto", Counter(), 0, 0, 0, 0.0)
    return max(found, key=lambda choice: choice.plausible, default=none)


def find_time(profile: Profile, now: float) -> TimeChoice | None:
    """The field that is most likely the time; the arrival time where there is none and records have one."""
    choices = []
    for path in profile.paths.values():
        if path.field is None or not path.is_scalar:
            continue
        found = [choice for name in ("auto", *PATTERNS) if (choice := try_format(path, name, profile, now))]
        # Of formats that read as many of its values the first: auto.
        choices += sorted(found, key=lambda choice: -choice.plausible)[:1]
    best = max(choices, key=lambda choice: choice.score, default=None)
    if best is not None and best.plausible >= profile.objects / 2:
        return best
    arrivals = [round(record.arrived * 10**6) for record in profile.records if record.arrived is not None]
    if not arrivals or not profile.objects:
        return best
    return TimeChoice(None, "kafka", Counter(), min(arrivals), max(arrivals), len(arrivals), 0.0)


def try_format(path: PathProfile, time_format: str, profile: Profile, now: float) -> TimeChoice | None:
    """How good a time a path is in a format; None when most of its values are no plausible time."""
    micros, distances = [], []
    written: Counter[str] = Counter()
    for value, arrived in path.times:
        read = read_time(value, time_format)
        reference = round((now if arrived is None else arrived) * 10**6)
        if read is not None and reference - OLDEST <= read[0] <= reference + DAY:
            micros.append(read[0])
            distances.append(abs(reference - read[0]))
            written[read[1]] += 1
    if not micros or len(micros) < path.present / 2:
        return None
    micros.sort()
    distances.sort()
    distance = distances[len(distances) // 2]
    spread = micros[len(micros) * 9 // 10] - micros[len(micros) // 10]
    score = 8 * len(micros) / profile.objects + rank_time(path.names) - 0.5 * len(path.names)
    # Times of events are close to each other and to now; birthdays are not, nor are numbers that only look like times.
    score += sum(distance < limit for limit in (DAY, 31 * DAY, 366 * DAY)) - 2 * (spread > 366 * DAY)
    return TimeChoice(path, time_format, written, micros[0], micros[-1], len(micros), score)


def rank_time(names: tuple[str, ...]) -> float:
    """How much a name says that it is an event's time."""
    name = normalize(names[-1])
    for points, known in zip((4.0, 3.0), TIME_NAMES, strict=True):
        if name in known:
            return points - known.index(name) / 100
    return 1.5 if TIME_ENDINGS.search(name) else 0.0


def find_users(profile: Profile, time: TimeChoice | None) -> list[tuple[Field, str]]:
    """The fields that name a user, by kind, then by how many events have them; each adds events to those before."""
    # Of several shapes only the one that has the time counts.
    asked = set(range(len(profile.records)))
    if time and time.profile and time.plausible:
        asked = time.profile.holders
    candidates = []
    for path in profile.paths.values():
        kind, holders = rank_user(path), path.holders & asked
        if kind is not None and holders and path.field is not None and path.is_scalar and is_spread(path):
            # Nested twice as deep is about as bad as being in hardly any event.
            candidates.append((kind, 0.45 * len(path.names) - len(holders) / len(asked), path.field, holders))
    found: list[tuple[Field, str]] = []
    covered: set[int] = set()
    for kind, _badness, name, holders in sorted(candidates, key=lambda candidate: candidate[:2]):
        why = USER_KINDS[kind][0]
        # A second id of the same kind beside the first is somebody else's, unless it has the same name.
        others = [other for other, other_why in found if other_why == why]
        is_same = any(normalize(other.names[-1]) == normalize(name.names[-1]) for other in others)
        if others and not is_same and len(holders & covered) > len(holders) / 100:
            continue
        if not found or len(holders - covered) >= len(asked) / 100:
            found.append((name, why))
            covered |= holders
    if found:
        return found
    if len(profile.keys) > 1:
        return [(Field(("@key",)), "the key of the record")]
    return guess_user(profile, time)


def rank_user(path: PathProfile) -> int | None:
    """Which of USER_KINDS a path is by its names; None for none."""
    names = " ".join(normalize(name) for name in path.names[-2:])
    last = names.rpartition(" ")[2]
    for kind, pattern in enumerate(USER_KINDS):
        if pattern[1].fullmatch(names) or pattern[1].fullmatch(last):
            return kind
    return None


def is_spread(path: PathProfile) -> bool:
    """Whether values are those of many: one of them that most events have, such as `-`, names no user."""
    values = Counter({value: number for value, number in path.values.items() if value})
    most = max(values.values(), default=0)
    return bool(values) and (path.present < 20 or most <= path.present / 2)


def guess_user(profile: Profile, time: TimeChoice | None) -> list[tuple[Field, str]]:
    """The text that differs most between events, but comes again; nothing when there is none."""
    best: tuple[int, Field] | None = None
    for path in profile.paths.values():
        distinct = len(path.values)
        is_time = time is not None and path is time.profile
        if path.field is None or set(path.types) - {"string", "null"} or is_time or not is_spread(path):
            continue
        if path.present < profile.objects / 2 or distinct < min(10, path.present / 4) or distinct >= path.present:
            continue
        if any(len(value) > 64 or " " in value for value in path.values):
            continue
        if best is None or distinct > best[0]:
            best = distinct, path.field
    return [(best[1], "a guess: its values differ most, and come again")] if best else []


def find_bots(profile: Profile) -> tuple[BotFlag, int] | None:
    """The field that says whether a bot made the event, and how many did."""
    for path in profile.paths.values():
        if path.field is None or not BOT_NAME.fullmatch(normalize(path.names[-1])):
            continue
        for yes, no in BOT_VALUES:
            if path.values and set(path.values) <= {yes, no}:
                return BotFlag(path.field, yes, no), path.values[yes]
    return None


def find_dimensions(profile: Profile, taken: set[Field | None]) -> list[PathProfile]:
    """Up to six fields with few values, those whose names say so first."""
    found = []
    for path in profile.paths.values():
        distinct = len(path.values)
        if path.field is None or path.field in taken or set(path.types) - {"string", "boolean", "integer", "null"}:
            continue
        if path.present < profile.objects / 2 or not 2 <= distinct <= min(MAX_DIMENSION_VALUES, path.present / 4):
            continue
        is_key = path.names[-1].lower().endswith("id") or rank_user(path) is not None
        if is_key or rank_time(path.names) >= 3 or any(len(value) > 64 for value in path.values):
            continue
        if "integer" in path.types and rank_dimension(path.names):
            continue
        found.append(path)
    return sorted(found, key=lambda path: (rank_dimension(path.names), len(path.values)))[:6]


def rank_dimension(names: tuple[str, ...]) -> int:
    """0 when the last names say that it is a dimension, else 1."""
    return 0 if any(DIMENSION_NAMES.search(normalize(name)) for name in names[-2:]) else 1
