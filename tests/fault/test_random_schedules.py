"""Faults at random: drawn from a seed, under a stream that never stops, until the time is over.

After each schedule the invariants are checked: the last record of each window equals the exact count, its revisions are
there once and in order, none is missing, and the accounting adds up. A schedule that fails is printed and shrunk.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, compare_with_exact, wait_until
from schedules import (
    KINDS,
    Fault,
    Run,
    Schedule,
    Surroundings,
    ViolationError,
    check_accounting,
    draw_schedule,
    read_schedule,
    shrink,
    write_schedule,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kafka_cluster import KafkaCluster
    from toxiproxy import Toxiproxy

ROUND_SECONDS = 75  # in which faults begin
SHRINK_TRIES = 10
FLAGS = ("--counter", "exact", "--correction-interval", "1 second")
# Where Debian and others put it.
LIBFAKETIME = [
    *Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"),
    *Path("/usr/lib/faketime").glob("libfaketimeMT.so.1"),
]
# Python reads this when it starts: moves the clock of the job's Python as libfaketime moves that of its JVM.
MOVE_CLOCK = """
import pathlib, time

def move(real=time.time, clock=pathlib.Path({clock!r})):
    return real() + float(clock.read_text().strip().rstrip("s") or 0)

time.time = move
"""


def test_a_schedule_is_drawn_from_its_seed_and_read_back_from_its_text() -> None:
    drawn = draw_schedule(7, 60, ["network", "disk", "clock"], 3)
    assert drawn == draw_schedule(7, 60, ["network", "disk", "clock"], 3)
    assert drawn != draw_schedule(8, 60, ["network", "disk", "clock"], 3)
    assert read_schedule(write_schedule(drawn)) == drawn
    plain = draw_schedule(7, 6_000, [], 3)
    assert {kind for kind, (_, _, needs) in KINDS.items() if not needs} == {
        "-".join([*fault.kind.split("-")[:2], "N"]) if fault.kind[-1].isdecimal() else fault.kind for fault in plain
    }
    with pytest.raises(ValueError, match="'4 burn-broker-2 1' is no fault"):
        read_schedule("4 burn-broker-2 1\n")


def test_a_failing_schedule_is_shrunk_to_the_faults_that_matter() -> None:
    faults = tuple(Fault(float(at), kind, 1.0) for at, kind in enumerate(["a", "b", "c", "d", "e", "f"]))

    def fails(schedule: Schedule) -> bool:
        return {"b", "e"} <= {fault.kind for fault in schedule}

    assert [fault.kind for fault in shrink(faults, fails, tries=10)] == ["b", "e"]
    assert len(shrink(faults, fails, tries=2)) == 5


def test_an_accounting_that_does_not_add_up_is_found(tmp_path: Path) -> None:
    summary = tmp_path / "summary.json"
    names = '"carried": 2, "read": 8, "counted": 7, "rejected": 1, "filtered": 0, "late": 0, "in_open_windows": '
    line = "x | total carried=0 read=3 counted=1 rejected=0 filtered=0 late=0 in_open_windows=2"
    summary.write_text(f"{{{names}2}}")
    assert check_accounting([line], summary) == 2
    with pytest.raises(ViolationError, match="3 events came, 4 are accounted for"):
        check_accounting([line.replace("windows=2", "windows=3")], summary)
    summary.write_text(f"{{{names}1}}")
    with pytest.raises(ViolationError, match="10 events came, 9 are accounted for"):
        check_accounting([], summary)


@pytest.fixture
def disks() -> Iterator[Callable[[Path], Path | None]]:
    """Mounts a small file system on a folder; None where only root may."""
    mounted = []

    def mount(folder: Path) -> Path | None:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True, check=False).returncode != 0:
            return None
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


class Rounds:
    """Runs schedules, each on topics and a checkpoint of its own; counts what was done."""

    def __init__(
        self,
        cluster: KafkaCluster,
        network: dict[int, Toxiproxy],
        folder: Path,
        mount: Callable[[Path], Path | None],
        seed: int,
    ) -> None:
        self._cluster, self._network, self._folder, self._mount, self._seed = cluster, network, folder, mount, seed
        self._number = 0
        self.figures: Counter[str] = Counter()
        self.lines: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def prepare(self) -> Surroundings:
        """A job that runs, and all that faults are done to."""
        self._number += 1
        name = f"random-{self._number}"
        folder = self._folder / name
        folder.mkdir()
        self._mend()
        self._cluster.create_topic(f"{name}-in", 2)
        self._cluster.create_topic(f"{name}-out")
        flags = (*FLAGS, "--bootstrap-servers", self._cluster.proxied_bootstrap_servers)
        job = Job(self._cluster, folder, f"{name}-in", f"{name}-out", *flags)
        clock = None
        if LIBFAKETIME:
            clock = folder / "clock"
            clock.write_text("+0s\n")
            (folder / "sitecustomize.py").write_text(MOVE_CLOCK.format(clock=str(clock)))
            python = folder / "python"
            # Under libfaketime 0.9.10 Python's sleep() fails.
            python.write_text(f'#!/bin/sh\nunset LD_PRELOAD\nexec {sys.executable} "$@"\n')
            python.chmod(0o755)
            job.environment = {
                "LD_PRELOAD": str(LIBFAKETIME[0]),
                "FAKETIME_TIMESTAMP_FILE": str(clock),
                "FAKETIME_CACHE_DURATION": "1",
                "PYTHONPATH": str(folder),
                "PYSPARK_DRIVER_PYTHON": str(python),
                # Else Java's timed waits end at once, and its threads turn in circles.
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            }
        return Surroundings(self._cluster, self._network, job, self._mount(job.checkpoint), clock)

    def run(self, schedule: Schedule) -> None:
        """Runs a schedule to its end, and checks what must hold; raises ViolationError."""
        around = self.prepare()
        self._run(around, schedule)

    def draw_and_run(self, seed: int) -> Schedule:
        """Runs the schedule of a seed; returns it, also when the run fails, as `failed` of the ViolationError."""
        around = self.prepare()
        schedule = draw_schedule(seed, ROUND_SECONDS, around.list_has(), len(self._cluster.nodes))
        print(f"\nschedule of seed {seed}:\n{write_schedule(schedule)}", flush=True)
        try:
            self._run(around, schedule)
        except ViolationError as violation:
            violation.schedule = schedule
            raise
        return schedule

    def _run(self, around: Surroundings, schedule: Schedule) -> None:
        job, run = around.job, Run(around)
        stream = Stream(self._cluster, job.source, self._seed)
        summary = self._folder / f"{job.source}-summary.json"
        try:
            with stream:
                job.start()
                wait_until(lambda: job.batches() or job.status() is not None, 300)
                run.carry_out(schedule)
                self._mend()
                wait_until(lambda: is_well(run, job), 300)
            run.end()
            self._mend()
            job.flags += ["--summary", str(summary)]
            job.finish()
            found = compare_with_exact(self._cluster, job.sink, stream.exact())
        except AssertionError as error:
            raise ViolationError(str(error)) from error
        finally:
            job.kill()
            self._mend()
        if found["repeated"]:
            raise ViolationError(f"{found['repeated']} records came twice")
        checked = check_accounting(run.lines, summary)
        self.figures.update(
            schedules=1,
            faults=len(schedule),
            windows=found["windows"],
            corrections=found["corrections"],
            totals=checked,
            events=stream.loaded,
            ended=len(run.ended),
        )
        self.kinds.update(fault.kind.rstrip("-0123456789") for fault in schedule)
        self.lines.update(run.ended)

    def _mend(self) -> None:
        """Ends whatever faults are left."""
        for node in self._cluster.nodes.values():
            if node.is_running:
                node.resume()
        for proxy in self._network.values():
            proxy.heal()
            proxy.clear()
        self._cluster.start()


@pytest.mark.slow
@pytest.mark.timeout(0)  # --minutes says how long it takes
def test_random_schedules_of_faults(
    whole_cluster: KafkaCluster,
    request: pytest.FixtureRequest,
    disks: Callable[[Path], Path | None],
    report: Callable[..., None],
    tmp_path: Path,
    seed: int,
) -> None:
    minutes, file = request.config.getoption("--minutes"), request.config.getoption("--schedule")
    network: dict[int, Toxiproxy] = request.getfixturevalue("network")
    rounds = Rounds(whole_cluster, network, tmp_path, disks, seed)
    began, number = time.monotonic(), 0
    try:
        if file is not None:
            rounds.run(read_schedule(Path(file).read_text()))
        else:
            while number == 0 or time.monotonic() < began + 60 * minutes:
                rounds.draw_and_run(seed + number)
                number += 1
    except ViolationError as violation:
        schedule = violation.schedule
        print(f"\nit failed: {violation}\n", flush=True)
        shortest = schedule and shrink(schedule, lambda fewer: fails(rounds, fewer), SHRINK_TRIES)
        text = write_schedule(shortest or read_schedule(Path(file).read_text()))
        pytest.fail(
            f"seed {seed + number}: {violation}\nShrunk to this schedule; --schedule FILE runs it again:\n{text}",
            pytrace=False,
        )
    report(
        "schedules drawn at random",
        f"0 violations; last records of all {rounds.figures['windows']} windows equal the exact count, each revision "
        "once, in order; the accounting adds up",
        schedules=rounds.figures["schedules"],
        faults=rounds.figures["faults"],
        faults_by_kind=dict(sorted(rounds.kinds.items())),
        windows=rounds.figures["windows"],
        corrections=rounds.figures["corrections"],
        totals_checked=rounds.figures["totals"],
        events=rounds.figures["events"],
        ended_by_itself_with_one_line=rounds.figures["ended"],
        lines=dict(rounds.lines.most_common(10)),
    )


def is_well(run: Run, job: Job) -> bool:
    """Whether the job goes on after the faults; starts it when it has ended."""
    run.supervise()
    return len(job.batches()) >= 3


def fails(rounds: Rounds, schedule: Schedule) -> bool:
    try:
        rounds.run(schedule)
    except ViolationError:
        return True
    return False
