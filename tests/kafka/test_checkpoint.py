"""What may change on a checkpoint, what may not, and that a checkpoint of every release goes on."""

from __future__ import annotations

import json
import tarfile
from typing import TYPE_CHECKING, Any

import pyspark
import pytest
from load_events import load_lines
from releases import CHECKPOINTS, FLAGS, READ_BEFORE, RELEASES, count_groups, count_lines, make_lines, source_of
from support import InProcess, assert_close, read_records
from uniques import __version__
from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker


def unpack_checkpoint(release: str, folder: Path) -> Path:
    """The checkpoint that a release wrote, in a folder of its own."""
    with tarfile.open(CHECKPOINTS / f"{release}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "checkpoint"


def find_last(records: list[tuple[str, dict[str, Any]]]) -> dict[tuple[str, str | None], dict[str, Any]]:
    """The last record of each window start and page, None for all."""
    return {(value["window_start"], value.get("group", {}).get("page")): value for _, value in records}


@pytest.mark.skipif(pyspark.__version__ < "4.2", reason="the checkpoints were written by Spark 4.2")
@pytest.mark.parametrize("release", RELEASES)
def test_a_checkpoint_of_every_release_goes_on(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path, release: str
) -> None:
    source, sink = source_of(release), new_topic("out")
    broker.create_topic(source, 2)
    load_lines(make_lines(), broker.bootstrap_servers, source)
    summary = tmp_path / "summary.json"
    flags = [*FLAGS, *RELEASES[release], "--input-topic", source, "--summary", str(summary)]
    checkpoint = unpack_checkpoint(release, tmp_path)
    # This broker is not the one that the release read from, so its topic has another id.
    (checkpoint / "topic-id").unlink()
    job.run(*flags, "--output-topic", sink, "--checkpoint-location", str(checkpoint))
    # What the released job had read is not read again.
    assert json.loads(summary.read_text())["read"] == 1_500 - READ_BEFORE
    records = read_records(broker, sink)
    going_on = find_last(records)
    exact = {key: both for key, both in count_groups().items() if key[1] is None or "groups" in release}
    first = next(iter(exact))[0]
    # The first minute had its records before; the second had begun, and the third had not.
    assert set(going_on) == {key for key in exact if key[0] != first}
    for key, value in going_on.items():
        assert_close(value, exact[key])
    # Bit for bit what a job counts that reads all events itself.
    alone = new_topic("out")
    job.run(*flags, "--output-topic", alone, "--checkpoint-location", str(tmp_path / "new"))
    counted = find_last(read_records(broker, alone))
    users = {key: value["unique_users"] for key, value in counted.items() if key[0] != first}
    assert {key: value["unique_users"] for key, value in going_on.items()} == users


@pytest.mark.skipif(pyspark.__version__ < "4.2", reason="the checkpoint was written by Spark 4.2")
def test_a_checkpoint_of_0_1_0_is_refused_with_a_way_that_leaves_no_gap(
    job: InProcess, broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    old = unpack_checkpoint("0.1.0", tmp_path)
    source, sink = source_of("0.1.0"), new_topic("out")
    broker.create_topic(source, 2)
    load_lines(make_lines(), broker.bootstrap_servers, source)
    summary = tmp_path / "summary.json"
    flags = [*FLAGS, "--input-topic", source, "--output-topic", sink, "--summary", str(summary)]
    exact = count_lines()
    # It had written the first minute.
    start = list(exact)[1]
    with pytest.raises(UsageError) as refused:
        job.run(*flags, "--checkpoint-location", str(old))
    assert str(refused.value) == (
        f"--checkpoint-location {old} was made by version 0.1.0, whose open windows can't go on in version "
        f"{__version__}: give another --checkpoint-location and --start-time {start}: all windows before that are "
        "written"
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
