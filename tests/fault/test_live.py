"""A live stream with the default flags: runs by a schedule, a stall, an outage of the job, an outage of the broker."""

from __future__ import annotations

import json
import signal
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from faults import Job, compare_with_exact, wait_until
from live_stream import WINDOW_SECONDS, ExactCount, LiveStream, wait_for_second, when_written
from support import DEADLINE_SECONDS, read_records, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kafka_broker import KafkaBroker

    Start = Callable[..., Job]
    Report = Callable[..., None]

WATERMARK_SECONDS = 5
# The defaults of the job, which takes the last of a flag; the other fault tests have shorter windows.
FLAGS = ("--window", "1 minute", "--watermark", f"{WATERMARK_SECONDS} seconds", "--counter", "exact")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def make_job(broker: KafkaBroker, tmp_path: Path) -> Iterator[Start]:
    """Makes the topics `NAME-in` and `NAME-out`, and a job from the one to the other, which is killed at the end."""
    jobs = []

    def make(name: str, partitions: int, *flags: str) -> Job:
        broker.create_topic(f"{name}-in", partitions)
        broker.create_topic(f"{name}-out")
        jobs.append(Job(broker, tmp_path, f"{name}-in", f"{name}-out", *FLAGS, *flags))
        return jobs[-1]

    yield make
    for job in jobs:
        job.kill()


def stop(job: Job) -> None:
    """Stops it as an orchestrator does."""
    job.signal(signal.SIGTERM)
    assert job.wait() == 0, "\n".join(job.said()[-10:])


def wait_for_exact_results(broker: KafkaBroker, job: Job, exact: ExactCount) -> None:
    """Returns once the last record of each window is right; after some minutes `compare` says what is not."""
    expected = exact.windows()

    def is_complete() -> bool:
        assert job.status() is None, "\n".join(job.said()[-10:])
        last = dict(read_records(broker, job.sink, "read_committed"))
        return {key: (value["unique_users"], value["events"]) for key, value in last.items()} == expected

    try:
        wait_until(is_complete, 240)
    except AssertionError:
        compare(broker, job, exact)
        raise


def compare(broker: KafkaBroker, job: Job, exact: ExactCount) -> dict[str, Any]:
    """Compares all records with the exact count: none twice, and windows first published in order of time."""
    found = compare_with_exact(broker, job.sink, exact.windows())
    assert found["repeated"] == 0
    assert found["in_order"]
    return found


def assert_all_was_counted(summary: Path, events: int) -> None:
    """The summary of a run says that so many events were read, and that all of them are in records."""
    said = json.loads(summary.read_text())
    assert (said["read"], said["counted"], said["late"], said["exact"]) == (events, events, 0, True), said


def assert_nothing_was_sent_too_early(broker: KafkaBroker, job: Job) -> None:
    """No window of a live stream has a record before it is over by the clock, and has waited for its watermark."""
    for key, times in when_written(broker, job.sink).items():
        start = datetime.fromisoformat(key.replace("Z", "+00:00"))
        assert times[0] >= start.timestamp() + WINDOW_SECONDS + WATERMARK_SECONDS, key


def test_runs_by_a_schedule_over_a_live_stream_give_the_records_of_a_stream(
    make_job: Start, broker: KafkaBroker, report: Report, tmp_path: Path, seed: int, live_seconds: int
) -> None:
    job, file, summaries = make_job("scheduled", 2), tmp_path / "summary.json", []
    flags = ("--trigger", "available-now", "--summary", str(file))

    def run() -> None:
        job.start(*flags)
        assert job.wait() == 0, "\n".join(job.said()[-10:])
        summaries.append(json.loads(file.read_text()))

    with LiveStream(broker, "scheduled-in", 2, seed) as stream:
        began = time.monotonic()
        while time.monotonic() < began + live_seconds:
            next_start = time.monotonic() + 20
            run()
            time.sleep(max(0.0, next_start - time.monotonic()))
    time.sleep(max(0.0, stream.exact.last_end() + WATERMARK_SECONDS + 1 - time.time()))
    run()
    found = compare(broker, job, stream.exact)
    assert_nothing_was_sent_too_early(broker, job)
    assert sum(summary["read"] for summary in summaries) == stream.sent
    assert sum(summary["late"] for summary in summaries) == 0
    assert all(summary["exact"] for summary in summaries)
    # What one run leaves open, the next one goes on with.
    assert [s["carried"] for s in summaries[1:]] == [s["in_open_windows"] for s in summaries[:-1]]
    assert summaries[-1]["in_open_windows"] == 0
    assert found["corrections"] == sum(summary["corrections"] for summary in summaries)
    report(
        "--trigger available-now every 20 s over a live stream",
        f"last records of all {found['windows']} windows equal the exact count; late: 0",
        runs=len(summaries),
        events=stream.sent,
        corrections=found["corrections"],
    )


def test_a_producer_that_stalls_for_80_seconds_in_the_middle_of_a_minute(
    make_job: Start, broker: KafkaBroker, report: Report, tmp_path: Path, seed: int
) -> None:
    summary = tmp_path / "summary.json"
    job = make_job("stalled", 2, "--summary", str(summary))
    with LiveStream(broker, "stalled-in", 2, seed) as stream:
        job.start()
        job.wait_for_batches(3)
        minute = wait_for_second(30)
        stream.hold()
        held = time.time()
        time.sleep(80)
        stream.go_on()
        went_on = time.time()
        time.sleep(20)
    wait_for_exact_results(broker, job, stream.exact)
    stop(job)
    found = compare(broker, job, stream.exact)
    first, *corrections = when_written(broker, job.sink)[utc(minute)]
    assert held < minute + WINDOW_SECONDS + WATERMARK_SECONDS <= first < went_on
    assert corrections
    assert min(corrections) > went_on
    assert_nothing_was_sent_too_early(broker, job)
    assert_all_was_counted(summary, stream.sent)
    report(
        "a producer that stalls for 80 s in the middle of a minute",
        f"last records of all {found['windows']} windows equal the exact count; late: 0",
        record_of_the_minute_after_its_end=f"{first - minute - WINDOW_SECONDS:.1f} s",
        corrections=found["corrections"],
    )


def load_history(broker: KafkaBroker, topic: str, exact: ExactCount, hours: dict[int, tuple[float, float]]) -> int:
    """Loads an event a second into each partition, from one hour of event time to another; returns how many."""
    producer, number = Producer({"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 20}), 0
    for partition, (first, last) in hours.items():
        for ts in range(1_700_000_040 + int(first * 3_600), 1_700_000_040 + int(last * 3_600)):
            uid = f"u{(ts * 7_919 + partition * 104_729) % 997}"
            producer.produce(topic, json.dumps({"ts": ts, "uid": uid}).encode(), partition=partition)
            exact.add(ts, uid)
            number += 1
            producer.poll(0)
    assert producer.flush(DEADLINE_SECONDS) == 0
    return number


def test_an_outage_of_the_job_that_leaves_partitions_with_unequal_backlogs(
    make_job: Start, broker: KafkaBroker, report: Report, tmp_path: Path
) -> None:
    summary, exact = tmp_path / "summary.json", ExactCount()
    job = make_job("outage", 3, "--max-offsets-per-trigger", "4000", "--summary", str(summary))
    before = load_history(broker, "outage-in", exact, {0: (0, 0.5), 1: (0, 0.5), 2: (0, 0.5)})
    job.start()
    wait_for_exact_results(broker, job, exact)
    stop(job)
    assert_all_was_counted(summary, before)
    # Spark reads the backlogs in proportion. So all of partition 2, which ends first, is read when the others are
    # nearly read: four hours of event time further. Partition 1 begins three hours after partition 0.
    backlog = load_history(broker, "outage-in", exact, {0: (0.5, 6.5), 1: (3.5, 6.5), 2: (0.5, 2.5)})
    job.start()
    wait_for_exact_results(broker, job, exact)
    stop(job)
    found = compare(broker, job, exact)
    assert_all_was_counted(summary, backlog)
    assert len(job.batches()) >= 10
    report(
        "an outage of the job; backlogs of 6, 3 and 2 hours that begin and end hours apart",
        f"last records of all {found['windows']} windows equal the exact count, first published in order; late: 0",
        events=before + backlog,
        corrections=found["corrections"],
    )


def read_windows_sent(job: Job) -> set[int]:
    """Starts of the windows whose records the last steps decided to send."""
    files = [file for file in (job.checkpoint / "steps").iterdir() if file.name.isdecimal()]
    return {key[0] for file in files for key in json.loads(file.read_text().splitlines()[0])["sent"]}


def test_a_broker_that_is_away_for_30_seconds_while_a_minute_ends(
    make_job: Start, broker: KafkaBroker, report: Report, tmp_path: Path, seed: int
) -> None:
    summary = tmp_path / "summary.json"
    job = make_job("away", 2, "--summary", str(summary))
    # Without late events, so that the job is not busy with sending a correction when the minute ends.
    with LiveStream(broker, "away-in", 2, seed, late_share=0.0) as stream:
        job.start()
        job.wait_for_batches(3)
        minute = wait_for_second(40)
        # So that the job is between two batches, and not in one that waits for the broker.
        stream.hold()
        wait_until(lambda: sum(int(batch["events"]) for batch in job.batches()) == stream.sent, DEADLINE_SECONDS)
        broker.kill()
        stream.go_on()
        time.sleep(30)
        # The minute has been over for longer than the watermark, and nothing came for the idle timeout. Nobody knows
        # what is left to read, so nothing may be decided.
        assert time.time() > minute + WINDOW_SECONDS + WATERMARK_SECONDS
        assert minute not in read_windows_sent(job)
        broker.start()
        returned = time.time()
        time.sleep(20)
    wait_for_exact_results(broker, job, stream.exact)
    stop(job)
    found = compare(broker, job, stream.exact)
    assert_nothing_was_sent_too_early(broker, job)
    assert_all_was_counted(summary, stream.sent)
    report(
        "broker killed, and started 30 s later, while a minute ends and producers go on",
        f"goes on by itself; last records of all {found['windows']} windows equal the exact count; late: 0",
        record_of_the_minute_after_its_return=f"{when_written(broker, job.sink)[utc(minute)][0] - returned:.1f} s",
        corrections=found["corrections"],
    )
