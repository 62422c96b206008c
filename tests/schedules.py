"""Schedules of faults: drawn from a seed, written as text, read back, carried out, and shrunk when one fails.

A schedule is text with a fault a line: when it begins, in seconds; what it is; how long it lasts, in seconds.

    4.2 kill-broker-2 6.0
    7.0 pause-driver 3.5
"""

from __future__ import annotations

import json
import random
import re
import signal
import time
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from faults import Job
    from kafka_cluster import ClusterNode, KafkaCluster
    from toxiproxy import Toxiproxy

POLL_SECONDS = 0.2
# What a kind needs; the others need nothing.
NETWORK, DISK, CLOCK = "network", "disk", "clock"
# Kind -> how long it lasts, from and to, and what it needs. Those with `-N` are of one broker.
KINDS: dict[str, tuple[float, float, str]] = {
    "kill-driver": (0, 0, ""),
    "stop-driver": (0, 0, ""),
    "pause-driver": (1, 12, ""),
    "kill-broker-N": (1, 20, ""),
    "stop-broker-N": (1, 10, ""),
    "pause-broker-N": (1, 20, ""),
    "slow-network": (5, 20, NETWORK),
    "narrow-network": (5, 20, NETWORK),
    "reset-connections": (2, 15, NETWORK),
    "lose-answers": (5, 40, NETWORK),
    "part-network": (2, 25, NETWORK),
    "part-broker-N": (5, 40, NETWORK),
    "fill-disk": (2, 10, DISK),
    "clock-ahead": (3, 20, CLOCK),
    "clock-behind": (3, 20, CLOCK),
}
CLOCK_JUMP_SECONDS = 300
LINE = re.compile(r"(\d+(?:\.\d+)?) ([a-z-]+(?:-\d+)?) (\d+(?:\.\d+)?)")


class Fault(NamedTuple):
    """What happens at a time, in seconds since the schedule began, for how long."""

    at: float
    kind: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.at:.1f} {self.kind} {self.seconds:.1f}"


Schedule = tuple[Fault, ...]


def draw_schedule(seed: int, length_seconds: float, has: Iterable[str], brokers: int) -> Schedule:
    """Draws faults of the kinds that need nothing or what there is, one every six seconds on average."""
    random_ = random.Random(seed)
    kinds = [kind for kind, (_, _, needs) in KINDS.items() if not needs or needs in has]
    faults, at = [], random_.uniform(1, 8)
    while at < length_seconds:
        kind = random_.choice(kinds)
        shortest, longest, _ = KINDS[kind]
        seconds = random_.uniform(shortest, longest)
        named = kind.replace("N", str(random_.randint(1, brokers)))
        faults.append(Fault(round(at, 1), named, round(seconds, 1)))
        at += random_.uniform(1, 11)
    return tuple(faults)


def write_schedule(schedule: Schedule) -> str:
    """The schedule as text."""
    return "".join(f"{fault}\n" for fault in schedule)


def read_schedule(text: str) -> Schedule:
    """A schedule from its text; raises ValueError that names a wrong line."""
    faults = []
    for line in filter(None, map(str.strip, text.splitlines())):
        match = LINE.fullmatch(line)
        if match is None or re.sub(r"-\d+$", "-N", match[2]) not in KINDS:
            raise ValueError(f"{line!r} is no fault, such as '4.2 kill-broker-2 6.0'; kinds: {', '.join(KINDS)}")
        faults.append(Fault(float(match[1]), match[2], float(match[3])))
    return tuple(sorted(faults))


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], tries: int) -> Schedule:
    """Leaves out one fault after the other while what is left still fails; asks `fails` up to `tries` times."""
    index = 0
    while index < len(schedule) and tries > 0 and len(schedule) > 1:
        fewer = (*schedule[:index], *schedule[index + 1 :])
        tries -= 1
        if fails(fewer):
            schedule = fewer
        else:
            index += 1
    return schedule


class ViolationError(Exception):
    """What must hold does not; the message is what was found, `schedule` what had been done."""

    schedule: Schedule | None = None


class Surroundings(NamedTuple):
    """What faults are done to. `disk` is the small file system of the checkpoint, `clock` libfaketime's file."""

    cluster: KafkaCluster
    network: dict[int, Toxiproxy]
    job: Job
    disk: Path | None
    clock: Path | None

    def list_has(self) -> list[str]:
        """What kinds of faults may need."""
        there = {NETWORK: self.network, DISK: self.disk, CLOCK: self.clock}
        return [name for name, value in there.items() if value]


class Run:
    """Carries out a schedule, and starts the job whenever it has ended; `ended` are the lines it ended with."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._all = surroundings
        self._may_end = False
        self.lines: list[str] = []
        self.ended: list[str] = []

    def carry_out(self, schedule: Schedule) -> None:
        """Returns when all faults are over; raises ViolationError when the job ends as it may not."""
        began = time.monotonic()
        steps: list[tuple[float, int, Callable[[], None]]] = []
        for number, fault in enumerate(schedule):
            begin, end = self._make(fault)
            steps.append((fault.at, number, begin))
            if end is not None:
                steps.append((fault.at + fault.seconds, number, end))
        for at, _, step in sorted(steps, key=lambda found: found[:2]):
            while time.monotonic() < began + at:
                self.supervise()
                time.sleep(min(POLL_SECONDS, max(0.0, began + at - time.monotonic())))
            step()
        self.supervise()

    def supervise(self) -> None:
        """Starts the job when it has ended, by itself or because it was told to; raises ViolationError otherwise."""
        status = self._all.job.status()
        if status is None:
            return
        self._keep_lines()
        if not (self._may_end and status in (0, -signal.SIGTERM, 128 + signal.SIGTERM)):
            try:
                line = self._all.job.error()
            except AssertionError as error:
                raise ViolationError(
                    f"the job ended with status {status} and without one clear line:\n{error}"
                ) from error
            self.ended.append(line)
            if status != 1:
                raise ViolationError(f"the job ended with status {status}: {line}")
        self._start()

    def end(self) -> None:
        """Ends the job, and keeps what it said."""
        self._all.job.kill()
        self._keep_lines()

    def _start(self) -> None:
        self._may_end = False
        self._all.job.start()

    def _keep_lines(self) -> None:
        self.lines += self._all.job.said()

    def _make(self, fault: Fault) -> tuple[Callable[[], None], Callable[[], None] | None]:
        """What begins a fault, and what ends it, if anything does."""
        job, proxies = self._all.job, self._all.network
        kind, _, number = fault.kind.rpartition("-")
        if number.isdecimal():
            node = self._all.cluster.nodes[int(number)]

            def back() -> None:
                if not node.is_running:
                    node.launch()

            return {
                "kill-broker": (node.kill, back),
                "stop-broker": (node.stop, back),
                "pause-broker": (lambda: if_running(node, node.pause), lambda: if_running(node, node.resume)),
                "part-broker": (lambda: proxies[int(number)].part(), lambda: proxies[int(number)].heal()),
            }[kind]
        return {
            "kill-driver": (self._kill, None),
            "stop-driver": (self._stop, None),
            "pause-driver": (lambda: job.signal(signal.SIGSTOP), lambda: job.signal(signal.SIGCONT)),
            "slow-network": (lambda: self._add("latency", latency=300, jitter=100), self._clear),
            "narrow-network": (lambda: self._add("bandwidth", rate=125), self._clear),
            "reset-connections": (lambda: self._add("reset_peer", toxicity=0.2, timeout=500), self._clear),
            "lose-answers": (lambda: self._add("timeout", streams=("downstream",), timeout=0), self._clear_and_cut),
            "part-network": (lambda: self._each("part"), lambda: self._each("heal")),
            "fill-disk": (self._fill, self._make_room),
            "clock-ahead": (lambda: self._set_clock(CLOCK_JUMP_SECONDS), lambda: self._set_clock(0)),
            "clock-behind": (lambda: self._set_clock(-CLOCK_JUMP_SECONDS), lambda: self._set_clock(0)),
        }[fault.kind]

    def _kill(self) -> None:
        self._all.job.kill()
        self._keep_lines()
        self._start()

    def _stop(self) -> None:
        self._may_end = True
        self._all.job.signal(signal.SIGTERM)

    def _each(self, what: str) -> None:
        for proxy in self._all.network.values():
            getattr(proxy, what)()

    def _add(self, kind: str, **settings: Any) -> None:
        self._ask_proxies(lambda proxy: proxy.replace(kind, **settings))

    def _clear(self) -> None:
        self._ask_proxies(lambda proxy: proxy.clear())

    def _clear_and_cut(self) -> None:
        # Bytes are missing in these connections: they are of no use any more.
        self._ask_proxies(lambda proxy: proxy.clear())
        self._ask_proxies(lambda proxy: proxy.cut())

    def _ask_proxies(self, what: Callable[[Toxiproxy], None]) -> None:
        for proxy in self._all.network.values():
            proxy.heal()  # one that is parted would not answer
            what(proxy)

    def _fill(self) -> None:
        assert self._all.disk is not None
        try:
            with (self._all.disk / "ballast").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass

    def _make_room(self) -> None:
        assert self._all.disk is not None
        (self._all.disk / "ballast").unlink(missing_ok=True)

    def _set_clock(self, seconds: int) -> None:
        assert self._all.clock is not None
        self._all.clock.write_text(f"{seconds:+d}s\n")


def if_running(node: ClusterNode, what: Callable[[], None]) -> None:
    """Does it, unless the node was killed meanwhile."""
    if node.is_running:
        what()


TOTAL = re.compile(r"\| total (.+)")


def check_accounting(lines: Sequence[str], summary: Path) -> int:
    """Checks that the totals of each batch, and the summary of the last run, add up; returns how many were checked.

    Raises ViolationError.
    """
    found = [dict(pair.split("=", 1) for pair in match[1].split()) for match in map(TOTAL.search, lines) if match]
    totals = [total for total in found if total.get("exact") != "False"]
    totals.append(json.loads(summary.read_text()))
    for total in totals:
        into = sum(int(total[name]) for name in ("carried", "read"))
        out = sum(int(total[name]) for name in ("counted", "rejected", "filtered", "late", "in_open_windows"))
        if into != out:
            raise ViolationError(
                f"the accounting does not add up: {into} events came, {out} are accounted for: {total}"
            )
        if int(total["late"]):
            raise ViolationError(f"events are late: {total}")
    return len(totals)
