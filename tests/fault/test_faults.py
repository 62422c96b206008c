"""Every other fault once: the job goes on by itself, or ends with one clear line; then its results are right."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from faults import Job, Stream, compare_with_exact, take_over, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kafka_broker import KafkaBroker

    Setting = Callable[..., tuple[Stream, Job]]
    Report = Callable[..., None]

FLAGS = ("--counter", "exact")
GOES_ON = "goes on by itself; results equal the exact count"

pytestmark = pytest.mark.timeout(900)


def check(broker: KafkaBroker, stream: Stream, job: Job) -> None:
    """Drains the rest, and compares."""
    job.finish()
    assert compare_with_exact(broker, job.sink, stream.exact())["repeated"] == 0


def start_anew(broker: KafkaBroker, folder: Path, job: Job) -> Job:
    """The job with another checkpoint and output topic, as its line says."""
    assert "take another --checkpoint-location" in job.error()
    (folder / "anew").mkdir()
    broker.create_topic(f"{job.source}-anew")
    return Job(broker, folder / "anew", job.source, f"{job.source}-anew", *FLAGS)


def test_a_broker_that_is_stopped_for_longer_than_the_idle_timeout(
    setting: Setting, broker: KafkaBroker, report: Report
) -> None:
    """What producers hold back while the broker is away is not late: an outage is no silence."""
    stream, job = setting("stopped", *FLAGS, "--idle-timeout", "4 seconds")
    with stream:
        job.start()
        job.wait_for_batches(3)
        for _ in range(2):
            broker.stop()
            time.sleep(10)
            broker.start()
            seen = len(job.batches())
            job.wait_for_batches(seen + 3)
        job.kill()
    check(broker, stream, job)
    report("broker stopped for 10 s and started, twice, --idle-timeout 4 s", GOES_ON)


def test_a_job_that_is_paused_beyond_all_client_timeouts(
    setting: Setting, broker: KafkaBroker, report: Report, tmp_path: Path, seed: int
) -> None:
    config = tmp_path / "client.properties"
    timeouts = "request.timeout.ms=3000\ndelivery.timeout.ms=6000\ntransaction.timeout.ms=4000\nlinger.ms=0\n"
    config.write_text(timeouts + "connections.max.idle.ms=5000\ndefault.api.timeout.ms=6000\n")
    stream, job = setting("paused", *FLAGS, "--idle-timeout", "5 seconds", "--kafka-config", str(config))
    random_ = random.Random(seed)
    lines = []
    with stream:
        job.start()
        for _ in range(4):
            job.wait_for_batches(3)
            time.sleep(random_.uniform(0, 1))
            job.signal(signal.SIGSTOP)
            time.sleep(9)
            seen = len(job.batches())
            job.signal(signal.SIGCONT)
            wait_until(lambda seen=seen: len(job.batches()) > seen + 2 or job.status() is not None, 300)
            if job.status() is not None:
                assert job.status() == 1
                lines.append(job.error())
                job.start()
        job.kill()
    check(broker, stream, job)
    report("SIGSTOP for 9 s, four times, all client timeouts below", GOES_ON, ended_with=lines or "never")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB for the checkpoint."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system can't be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Writes until the disk is full."""
    with file.open("wb", buffering=0) as open_file:
        while True:
            open_file.write(bytes(4096))


def test_a_full_disk(small_disk: Path, setting: Setting, broker: KafkaBroker, report: Report) -> None:
    stream, job = setting("full", *FLAGS, "--idle-timeout", "off")
    ballast = small_disk / "ballast"
    with stream:
        job.start()
        job.wait_for_batches(3)
        with pytest.raises(OSError, match="No space left"):
            fill(ballast)
        assert job.wait() == 1
        assert "no space left on the disk of --checkpoint-location" in job.error()
        line = job.error()
        ballast.unlink()
        job.start()
        job.wait_for_batches(3)
        job.kill()
    check(broker, stream, job)
    report("full disk for the checkpoint", "ends; after making room results equal", ended_with=line)


@pytest.mark.parametrize(
    ("what", "share"),
    [("offsets", 0.5), ("offsets", 0.0), ("commits", 0.5), ("state", 0.5)],
    ids=["half of offsets", "empty offsets", "half of commits", "half of the state"],
)
def test_a_torn_last_file_of_the_checkpoint(
    setting: Setting, broker: KafkaBroker, report: Report, what: str, share: float
) -> None:
    name = f"torn-{what}-{share}"
    stream, job = setting(name, *FLAGS, "--idle-timeout", "off")
    with stream:
        job.start()
        job.wait_for_batches(4)
        job.kill()
    if what == "state":
        # Spark reads the state of the last finished batch.
        version = int(job.log_file("commits").name) + 1
        torn = job.checkpoint / "query" / "state" / "0" / "0" / f"{version}.delta"
    else:
        torn = job.log_file(what)
    torn.write_bytes(torn.read_bytes()[: int(torn.stat().st_size * share)])
    job.start("--trigger", "available-now")
    if job.wait() != 0:
        assert job.status() == 2
        line = job.error()
        # Do what it says.
        said, _, where = line.partition(" is damaged: delete ")[2].partition(" in ")
        assert where.startswith(f"{job.checkpoint}/query, with the .crc file of each;"), line
        for log, number in (file.split("/") for file in said.split(" and ")):
            for file in (number, f".{number}.crc"):
                (job.checkpoint / "query" / log / file).unlink()
    else:
        line = "never: it went on"
    check(broker, stream, job)
    report(f"torn last file of {what}, cut to {share:.0%}", "results equal after what the line says", ended_with=line)


def test_a_topic_that_gains_partitions(setting: Setting, broker: KafkaBroker, report: Report) -> None:
    stream, job = setting("grown", *FLAGS, "--idle-timeout", "off")
    with stream:
        job.start()
        job.wait_for_batches(3)
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        for done in admin.create_partitions([NewPartitions("grown-in", 4)]).values():
            done.result()
        time.sleep(3)  # until the producer knows
        stream.partitions = 4
        seen = len(job.batches())
        job.wait_for_batches(seen + 5)
        job.kill()
    check(broker, stream, job)
    report("two partitions more while it runs", GOES_ON)


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_a_topic_deleted_and_made_anew(
    setting: Setting, broker: KafkaBroker, report: Report, tmp_path: Path, running: bool
) -> None:
    name = f"anew-{running}"
    stream, job = setting(name, *FLAGS, "--idle-timeout", "off")
    with stream:
        job.start()
        job.wait_for_batches(3)
        if not running:
            job.kill()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    for done in admin.delete_topics([f"{name}-in"]).values():
        done.result()
    time.sleep(3)
    broker.create_topic(f"{name}-in", 2)
    fresh = Stream(broker, f"{name}-in", seed=99)
    fresh.load(500)
    if not running:
        job.start()
    assert job.wait() in (1, 2)
    if "a topic of the job does not exist on Kafka" in job.error():
        # It looked while there was none; the next start sees the new one.
        job.start()
        assert job.wait() in (1, 2)
    check(broker, fresh, start_anew(broker, tmp_path, job))
    state = "running" if running else "stopped"
    told = "ends; right from a new checkpoint"
    report(f"topic deleted and created again, the job {state}", told, ended_with=job.error())


def test_retention_that_removes_what_was_not_read(
    setting: Setting, broker: KafkaBroker, report: Report, tmp_path: Path
) -> None:
    stream, job = setting("removed", *FLAGS, "--idle-timeout", "off")
    with stream:
        job.start()
        job.wait_for_batches(3)
        job.kill()
    stream.load(stream.loaded % 2 + 4_000)
    # What retention does, at a moment of our choosing.
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    start = stream.loaded // 2
    removed = admin.delete_records([TopicPartition("removed-in", partition, start) for partition in range(2)])
    assert [done.result().low_watermark for done in removed.values()] == [start, start]
    stream.forget()
    stream.load(2_000)
    job.start()
    assert job.wait() == 2
    check(broker, stream, start_anew(broker, tmp_path, job))
    report("retention removed unread events", "ends; right from a new checkpoint", ended_with=job.error())


def test_a_second_instance_on_the_checkpoint(
    setting: Setting, broker: KafkaBroker, report: Report, tmp_path: Path
) -> None:
    stream, older = setting("twice", *FLAGS, "--idle-timeout", "off")
    (tmp_path / "newer").mkdir()
    flags = (*FLAGS, "--idle-timeout", "off", "--checkpoint-location", str(older.checkpoint))
    newer = Job(broker, tmp_path / "newer", older.source, older.sink, *flags)
    line = take_over(stream, older, newer)
    check(broker, stream, newer)
    report("a second instance on the same checkpoint", "the older one ends, the newer goes on", ended_with=line)
