"""Events of a web shop's pages: nested, with known and anonymous users, bots, dimensions, and times in several formats.

    {"event": {"type": "page_view", "sentAt": 1468244340123}, "context": {"geo": {"country": "US"},
     "device": {"type": "mobile"}, "app": "shop", "bot": false}, "user": {"id": "u00017"}, "anonymousId": "a1f…",
     "properties": {…}}

`user.id` is null for users who are not logged in; some events have no country. FLAGS and BY_FLAGS are how the
job counts them.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import random

COUNTRY, DEVICE, APP = "context.geo.country", "context.device.type", "context.app"
# The breakdowns that exact counts are given for.
BREAKDOWNS = ((COUNTRY,), (DEVICE,), (APP, COUNTRY))
FLAGS = (
    *("--time-field", "event.sentAt", "--user-field", "user.id,anonymousId"),
    *("--where", "coalesce(context.bot, 'false') <> 'true'"),
)
BY_FLAGS = tuple(word for paths in BREAKDOWNS for word in ("--by", ",".join(paths)))

# The second has half as many users as the first, the third a third, and so on.
COUNTRIES = (
    *("US", "IN", "BR", "DE", "GB", "FR", "JP", "ID", "MX", "IT", "ES", "CA", "TR", "NL", "PL"),
    *("AU", "KR", "SE", "CH", "AT", "BE", "AR", "CZ", "PT", "DK", "NO", "FI", "IE", "NZ", "IS"),
)
COUNTRY_WEIGHTS = [1 / (at + 1) for at in range(len(COUNTRIES))]
DEVICES, DEVICE_WEIGHTS = ("mobile", "desktop", "tablet"), (60, 35, 5)
APPS, APP_WEIGHTS = ("shop", "blog", "help", "account", "search"), (50, 20, 15, 10, 5)
TYPES = ("page_view", "click", "search", "add_to_cart", "purchase")
OFFSETS = tuple(timezone(timedelta(minutes=minutes)) for minutes in (0, 120, -420, 330))

BOTS = 0.05
KNOWN_USERS = 0.6
NO_COUNTRY = 0.02
TRAVELLERS = 0.1

# Records that are no events. None has a time and a user.
MALFORMED = (
    b"",
    b"not json",
    b"[]",
    b'{"event":{"type":"click"},"user":{"id":"%(user)s"}}',
    b'{"event":{"type":"click","sentAt":"soon"},"user":{"id":"%(user)s"}}',
    b'{"event":{"type":"click","sentAt":[%(milliseconds)d]},"user":{"id":"%(user)s"}}',
    b'{"event":{"type":"click","sentAt":%(milliseconds)d},"user":{"id":""},"anonymousId":null}',
    b'{"event":{"type":"click","sentAt":%(milliseconds)d},"user":"%(user)s"}',
    b'{"event":{"type":"click","sentAt":%(milliseconds)d},"user":{"id":"%(user)s"}',
)


class Click(NamedTuple):
    """A line without its line feed, the user, and the values of the dimensions; no user where it does not count."""

    line: bytes
    user: str | None = None
    dimensions: dict[str, str | None] | None = None


class Clickstream:
    """Makes the events of users who have a home country."""

    def __init__(self, random_: random.Random, users: int, fillers: list[bytes]) -> None:
        """Draws a number of users; `fillers` are members of an object, without its braces."""
        self._random = random_
        self._fillers = fillers
        self._homes = random_.choices(COUNTRIES, COUNTRY_WEIGHTS, k=users)
        self._anonymous = [f"{random_.getrandbits(64):016x}" for _ in range(users)]

    def make(self, milliseconds: int) -> Click:
        """An event of that time, unix milliseconds."""
        draw, choose = self._random.random, self._random.choices
        number = int(draw() * len(self._homes))
        known = number < KNOWN_USERS * len(self._homes)
        user, anonymous = f"u{number:06d}", self._anonymous[number]
        country: str | None = self._homes[number]
        if draw() < TRAVELLERS:
            country = COUNTRIES[int(draw() * len(COUNTRIES))]
        if draw() < NO_COUNTRY:
            country = None
        ((device,), (app,)) = choose(DEVICES, DEVICE_WEIGHTS), choose(APPS, APP_WEIGHTS)
        is_bot = draw() < BOTS
        line = (
            b'{"event":{"type":"%s","sentAt":%s},"context":{"geo":{%s},"device":{"type":"%s"},"app":"%s"%s},'
            b'"user":{"id":%s},"anonymousId":"%s","properties":{%s}}'
        ) % (
            TYPES[int(draw() * len(TYPES))].encode(),
            self.show_time(milliseconds),
            b'"country":"%s"' % country.encode() if country else b"",
            device.encode(),
            app.encode(),
            # Most have the flag, some do without it.
            b',"bot":true' if is_bot else b',"bot":false' if draw() < 0.8 else b"",
            b'"%s"' % user.encode() if known else b"null",
            anonymous.encode(),
            self._fillers[int(draw() * len(self._fillers))],
        )
        if is_bot:
            return Click(line)
        return Click(line, user if known else anonymous, {COUNTRY: country, DEVICE: device, APP: app})

    def make_malformed(self, milliseconds: int) -> Click:
        """A record that is no event."""
        line = MALFORMED[int(self._random.random() * len(MALFORMED))]
        user = int(self._random.random() * len(self._homes))
        values = {b"milliseconds": milliseconds, b"user": b"u%06d" % user}
        return Click(line % values if b"%" in line else line)

    def show_time(self, milliseconds: int) -> bytes:
        """A time in JSON: milliseconds as a number or a string, seconds with a fraction, or ISO 8601 with an offset."""
        form = int(self._random.random() * 4)
        if form == 0:
            return b"%d" % milliseconds
        if form == 1:
            return b'"%d"' % milliseconds
        if form == 2:
            return b"%d.%03d" % divmod(milliseconds, 1_000)
        zone = OFFSETS[int(self._random.random() * len(OFFSETS))]
        moment = datetime.fromtimestamp(milliseconds // 1_000, zone)
        text = f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1_000:03d}{moment:%z}"
        return f'"{text[:-2]}:{text[-2:]}"'.encode()
