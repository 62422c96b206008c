"""The service without HTTP: the store and what keeps it up to date, the job's metrics, and what pages are shown."""

from __future__ import annotations

import json
import threading
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import available_timezones

from uniques import __version__

from unique_users_service.calendar import Calendar
from unique_users_service.jobs import JobMetrics
from unique_users_service.questions import describe_united, dimensions_of, unite_range
from unique_users_service.store import Store
from unique_users_service.tables import TOTAL

if TYPE_CHECKING:
    from unique_users_service.flags import ServiceSettings
    from unique_users_service.state import State
    from unique_users_service.topics import TopicReader

LIVE_MINUTES = 30
# A window that begins later than that from now is of a wrong clock, and not what happens now.
AHEAD_SECONDS = 300
CATCH_UP_SECONDS = 3.0


class Service:
    """What runs behind the API; `state` is that of the store."""

    def __init__(self, settings: ServiceSettings) -> None:
        """Reads nothing yet; raises ValueError, one line, for a Kafka property that is none."""
        self.settings = settings
        self.store = Store(settings.minutes, settings.rollups, settings.budget)
        self.job = JobMetrics(settings.job_metrics)
        self.topics: TopicReader | None = None
        if settings.kafka:
            from unique_users_service.topics import TopicReader

            self.topics = TopicReader(settings.kafka, self.store)
        self._started_at = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tables", daemon=True)
        self._live: tuple[int, int, bytes] = (-1, -1, b"")

    @property
    def state(self) -> State:
        """All rows at this moment."""
        return self.store.state

    @property
    def is_ready(self) -> bool:
        """Whether there is something to answer from, and no newer records are being read that an earlier run had."""
        return bool(self.state.series) and self.is_caught_up

    @property
    def is_caught_up(self) -> bool:
        """Whether Kafka was read to its end once, or can't be; it is waited for CATCH_UP_SECONDS at most."""
        topics = self.topics
        if topics is None or topics.caught_up.is_set() or topics.is_away:
            return True
        return time.monotonic() - self._started_at > CATCH_UP_SECONDS

    def start(self) -> None:
        """Reads the tables, then follows them and Kafka."""
        self._started_at = time.monotonic()
        self._thread.start()

    def close(self) -> None:
        """Ends what `start` began."""
        self._stop.set()
        if self.topics:
            self.topics.refresh_wanted.set()
            self.topics.close()
        self._thread.join(10)

    def describe_health(self) -> dict[str, Any]:
        """Whether there are answers, and what is missing for newer ones."""
        problems = {
            "tables": self.store.problem,
            "kafka": self.topics.problem if self.topics else "not asked: there is no --bootstrap-servers",
        }
        return {"ready": self.is_ready, "problems": problems, "state": self.state.number}

    def describe_about(self) -> dict[str, Any]:
        """What there is to ask for."""
        state, limits = self.state, self.settings.limits
        span, calendar = state.span(), state.calendar
        names = {dimensions_of(key) for key in state.series} - {frozenset()}
        return {
            "version": __version__,
            "timezone": calendar.timezone,
            "week_start": calendar.week_start,
            "first": calendar.format(span[0]) if span else None,
            "last": calendar.format(span[1]) if span else None,
            "timezones": list_zones(),
            "breakdowns": sorted(sorted(each) for each in names),
            "limits": {"days": limits.days, "points": limits.points},
        }

    def describe_accounting(self) -> dict[str, Any]:
        """Where every event went."""
        job = self.job.read()
        years = self.state.series.get(TOTAL, {}).get("year", {})
        kafka = self.settings.kafka
        return {
            "source": self.settings.job_metrics,
            "problem": self.job.problem,
            "job": job,
            "events_in_tables": sum(int(rows.events.sum()) for rows in years.values()),
            "rejects_topic": kafka.rejects if kafka else None,
        }

    def read_rejects(self, reason: str | None, limit: int) -> list[dict[str, Any]]:
        """Examples of rejected events; none without a topic. Raises KafkaException where Kafka can't be read."""
        kafka = self.settings.kafka
        if kafka is None or kafka.rejects is None:
            return []
        from unique_users_service.topics import read_rejects

        return read_rejects(kafka, reason, limit)

    def describe_live(self) -> bytes:
        """The last 30 minutes by minute, and what is known of them, as JSON; made once for all who look."""
        state, now = self.state, int(time.time())
        number, second, made = self._live
        if number == state.number and second == now // 10:
            return made
        text = json.dumps(describe_minutes(state, now), separators=(",", ":")).encode()
        self._live = (state.number, now // 10, text)
        return text

    def _run(self) -> None:
        self.store.refresh()
        wanted = threading.Event()
        if self.topics:
            self.topics.start()
            wanted = self.topics.refresh_wanted
        while not self._stop.is_set():
            wanted.wait(self.settings.refresh_seconds)
            wanted.clear()
            if not self._stop.is_set():
                self.store.refresh()


@lru_cache(maxsize=1)
def list_zones() -> list[str]:
    """The names of zones that people look for."""
    return ["UTC", *sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))]


def describe_minutes(state: State, now: int) -> dict[str, Any]:
    """The last minutes up to the newest window, each with its users; times are in UTC."""
    last = find_last(state, now + AHEAD_SECONDS)
    answer: dict[str, Any] = {
        "now": Calendar().format(now),
        "state": state.number,
        "final_until": Calendar().format(state.newest) if state.newest else None,
        "minutes": [],
        "together": None,
    }
    if last is None:
        return answer
    start, step = last
    first = start - (LIVE_MINUTES - 1) * step
    for at in range(first, start + 1, step):
        revision = 0
        for rows, low, high in state.find(TOTAL, "minute", at, at + step):
            revision = int(rows.revision[low:high].max())
        united = unite_range(state, TOTAL, (at, at + step))
        answer["minutes"].append({**describe_united(united, Calendar()), "revision": revision})
    answer["together"] = describe_united(unite_range(state, TOTAL, (first, start + step)), Calendar())
    return answer


def find_last(state: State, before: int) -> tuple[int, int] | None:
    """The start of the newest window that begins before a time, and how far minutes are apart: 60 s, or a window."""
    blocks = state.series.get(TOTAL, {}).get("minute", {})
    for block in sorted(blocks, reverse=True):
        rows = blocks[block]
        at = int(rows.start.searchsorted(before)) - 1
        if at >= 0:
            step = max(60, int(rows.end[at] - rows.start[at]))
            return int(rows.start[at]) // step * step, step
    return None
