"""What may change on a checkpoint, what may not, and that a checkpoint of every release goes on."""

from __future__ import annotations

import json
import tarfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark
import pytest
from load_events import load_lines
from support import InProcess, assert_close, read_records, utc
from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_broker import KafkaBroker

RELEASES = sorted((Path(__file__).parent / "checkpoints").glob("*.tar.gz"))
FLAGS = ["--rsd", "0.02", "--trigger", "available-now", "--max-offsets-per-trigger", "300"]
START = 1_468_244_340  # 2016-07-11T13:39:00Z
READ_BEFORE = 900  # events the released job read: a minute and a half


def source_of(version: str) -> str:
    """The topic that a release's checkpoint has offsets of."""
    return f"in-{version}"


def make_event(index: int) -> tuple[int, str]:
    """Ten a second, in order, of 500 users; a formula, so that a release's offsets fit for ever."""
    return START + index // 10, f"user-{index * index * 7919 % 4_999 % 500}"


def make_lines(number: int = 1_500) -> list[bytes]:
    return [json.dumps({"ts": ts, "uid": uid}).encode() for ts, uid in map(make_event, range(number))]


def count_lines(number: int = 1_500) -> dict[str, tuple[int, int]]:
    """Window start -> (unique users, events) of `make_lines`, by sets."""
    users: defaultdict[str, set[str]] = defaultdict(set)
    events: Counter[str] = Counter()
    for ts, uid in map(make_event, range(number)):
        users[utc(ts - ts % 60)].add(uid)
        events[utc(ts - ts % 60)] += 1
    return {start: (len(users[start]), events[start]) for start in users}


@pytest.mark.skipif(pyspark.__version__ < "4.2", reason="the checkpoints were written by Spark 4.2")
@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.name.removesuffix(".tar.gz"))
def test_a_checkpoint_of_0_1_0_is_refused_with_a_way_that_leaves_no_gap(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, release: Path
) -> None:
    with tarfile.open(release) as archive:
        archive.extractall(tmp_path, filter="data")
    source, sink = source_of(release.name.removesuffix(".tar.gz")), new_topic("out")
    broker.create_topic(source, 2)
    load_lines(make_lines(), broker.bootstrap_servers, source)
    summary = tmp_path / "summary.json"
    flags = [*FLAGS, "--input-topic", source, "--output-topic", sink, "--summary", str(summary)]
    old = tmp_path / "checkpoint"
    exact = count_lines()
    # It had written the first minute.
    start = list(exact)[1]
    with pytest.raises(UsageError) as refused:
        job.run(*flags, "--checkpoint-location", str(old))
    assert str(refused.value) == (
        f"--checkpoint-location {old} was made by version 0.1.0, whose open windows can't go on in version 0.2.0: give "
        f"another --checkpoint-location and --start-time {start}: all windows before that are written"
    )
    job.run(*flags, "--checkpoint-location", str(tmp_path / "new"), "--start-time", start)
    records = read_records(broker, sink)
    assert [key for key, _ in records] == list(exact)[1:]
    for key, value in records:
        assert_close(value, exact[key])
    said = json.loads(summary.read_text())
    assert (said["late"], said["rejected_by_reason"]) == (0, {"outside_range": exact[next(iter(exact))][1]})


def test_a_switch_to_a_new_checkpoint_leaves_no_gap_and_counts_nothing_twice(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in", 2), new_topic("out")
    flags = ["--input-topic", source, "--output-topic", sink, "--trigger", "available-now", "--idle-timeout", "off"]
    lines = make_lines(3_000)
    load_lines(lines[:1_000], broker.bootstrap_servers, source)
    job.run(*flags, "--checkpoint-location", str(tmp_path / "old"))  # and is stopped in the middle of a minute
    load_lines(lines[1_000:], broker.bootstrap_servers, source)
    switch = max(value["window_end"] for _, value in read_records(broker, sink))
    changed = ["--rsd", "0.01", "--state-partitions", "3", "--start-time", switch]
    job.run(*flags, *changed, "--checkpoint-location", str(tmp_path / "new"))
    exact = count_lines(3_000)
    records = sorted(read_records(broker, sink), key=lambda record: record[0])
    assert [start for start, _ in records] == list(exact)[:-1]
    for start, value in records:
        assert_close(value, exact[start])
    assert {value["relative_error"] for _, value in records} == {0.0489, 0.0086}  # some of either job
