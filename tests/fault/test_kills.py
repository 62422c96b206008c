"""kill -9 of the driver and of the broker, again and again, under a stream that never stops."""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, compare_with_exact, describe_seconds, wait_until
from result_watcher import ResultWatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker


class BrokerKiller:
    """Kills the broker at random moments and starts it again at once; a context manager."""

    def __init__(self, broker: KafkaBroker, random_: random.Random) -> None:
        self.kills = 0
        self._broker = broker
        self._random = random_
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._failure: Exception | None = None

    def __enter__(self) -> BrokerKiller:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(self._random.uniform(6, 18)):
                self._broker.kill()
                self.kills += 1
                self._broker.start()
        except Exception as error:
            self._failure = error


def kill_often(
    job: Job, watcher: ResultWatcher, random_: random.Random, enough: Callable[[int], bool]
) -> tuple[int, int, list[float]]:
    """Starts the job and kills it until `enough(kills)`.

    Every second life ends at any moment, the start included; every other one soon after its first result. Returns the
    kills, how often the job had ended by itself before, and seconds from kill -9 to the next result, where one came
    before the next kill.
    """
    kills, ended, delays = 0, 0, []
    killed_at = None
    while not enough(kills):
        job.start()
        if kills % 2:
            lived = time.monotonic() + random_.uniform(2, 12)
            wait_until(lambda until=lived: time.monotonic() > until or job.status() is not None, 300)
        else:
            since = time.time()
            wait_until(lambda moment=since: watcher.first_after(moment) or job.status() is not None, 300)
            time.sleep(random_.uniform(0, 2))
        if killed_at is not None:
            result = watcher.first_after(killed_at)
            delays += [result.written - killed_at] if result is not None else []
        if job.status() is not None:
            ended += 1
            job.error()  # one clear line, or the test fails
            continue
        killed_at = time.time()
        job.kill()
        kills += 1
    return kills, ended, delays


@pytest.mark.timeout(1700)
def test_kills_of_driver_and_broker_lose_nothing_and_repeat_nothing(
    setting: Callable[..., tuple[Stream, Job]],
    broker: KafkaBroker,
    seed: int,
    report: Callable[..., None],
    pytestconfig: pytest.Config,
) -> None:
    wanted = pytestconfig.getoption("--kills")
    stream, job = setting("kills", "--counter", "exact", "--correction-interval", "1 second", "--by", "type")
    with (
        stream,
        ResultWatcher(broker.bootstrap_servers, "kills-out") as watcher,
        BrokerKiller(broker, random.Random(seed)) as killer,
    ):
        kills, ended, delays = kill_often(
            job, watcher, random.Random(seed), lambda kills: kills >= wanted // 2 and kills + killer.kills >= wanted
        )
    job.finish()
    found = compare_with_exact(broker, "kills-out", stream.exact_groups())
    assert found["repeated"] == 0
    assert found["corrections"] > 20
    report(
        "kill -9 of driver and broker",
        f"last records of {found['windows']} windows and groups equal the exact count, each revision once, in order",
        corrections=found["corrections"],
        kills_of_the_driver=kills,
        kills_of_the_broker=killer.kills,
        ended_by_itself_with_one_line=ended,
        events=stream.loaded,
        from_kill_to_next_result=describe_seconds(delays),
    )


@pytest.mark.timeout(600)
def test_at_least_once_records_may_repeat_but_are_equal(
    setting: Callable[..., tuple[Stream, Job]], broker: KafkaBroker, seed: int, report: Callable[..., None]
) -> None:
    stream, job = setting("least", "--delivery", "at-least-once", "--counter", "exact")
    with stream, ResultWatcher(broker.bootstrap_servers, "least-out") as watcher:
        kills, ended, delays = kill_often(job, watcher, random.Random(seed), lambda kills: kills >= 10)
        # And once where it must repeat: the records are written, and nothing was noted since.
        job.start()
        wait_until(lambda: job.status() is not None or any(b["rows_written"] != "0" for b in job.batches()), 300)
        job.kill()
        job.forget_steps()
    job.finish()
    found = compare_with_exact(broker, "least-out", stream.exact())
    assert found["repeated"] > 0
    report(
        "kill -9 of the driver, --delivery at-least-once",
        f"all {found['windows']} windows there; records that came again are equal to the first",
        kills_of_the_driver=kills + 1,
        ended_by_itself_with_one_line=ended,
        records_that_came_again=found["repeated"],
        from_kill_to_next_result=describe_seconds(delays),
    )
