"""A cluster of three brokers that loses some of them: both jobs go on, and their results equal the exact counts."""

from __future__ import annotations

import signal
import time
from collections import defaultdict
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from faults import (
    Job,
    RollupJob,
    Stream,
    drain_and_compare,
    longest_silence,
    wait_for_results,
    wait_until,
)
from kafka_cluster import NODES
from result_watcher import ResultWatcher
from support import DEADLINE_SECONDS, read_records, utc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kafka_cluster import KafkaCluster

    Report = Callable[..., None]
    Setting = Callable[..., tuple[Stream, Job]]

# Not imported by name: for mypy, `kafka` is the folder beside this one.
kafka: Any = import_module("kafka")
import_module("kafka.errors")

FLAGS = ("--counter", "exact")
PREFERRED, UNCLEAN = 0, 1  # kinds of leader election
GROUPS, TRANSACTIONS = "__consumer_offsets", "__transaction_state"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture
def admin(whole_cluster: KafkaCluster) -> Iterator[Any]:
    """For what Confluent's client can't do."""
    client = kafka.KafkaAdminClient(bootstrap_servers=whole_cluster.bootstrap_servers.split(","))
    yield client
    client.close()


def find_controller(admin: Any) -> int:
    """The number of the node that is the active controller."""
    leader: int = admin.describe_metadata_quorum()["topics"][0]["partitions"][0]["leader_id"]
    return leader


def watch(cluster: KafkaCluster, job: Job) -> ResultWatcher:
    return ResultWatcher(cluster.bootstrap_servers, job.sink)


def test_a_rolling_restart_under_both_jobs(
    whole_cluster: KafkaCluster, cluster_setting: Setting, report: Report, tmp_path: Path
) -> None:
    cluster = whole_cluster
    stream, job = cluster_setting("rolling", "--counter", "hll_sketch", "--sketch")
    cluster.create_topic("rolling-rollups")
    rollups = RollupJob(cluster, tmp_path, job.sink, "rolling-rollups")
    silences = []
    try:
        with stream, watch(cluster, job) as watcher:
            job.start()
            rollups.start()
            wait_for_results(watcher, job, rollups)
            wait_until(lambda: any(" rollups=" in line for line in rollups.said()), DEADLINE_SECONDS)
            for node in cluster.nodes.values():
                began = time.time()
                node.stop()
                node.start()
                cluster.wait_until_in_sync(job.source, job.sink, GROUPS, TRANSACTIONS)
                wait_for_results(watcher, job, rollups)
                silences.append(longest_silence(watcher, began))
    finally:
        rollups.kill()
    job.kill()
    job.finish()
    exact = stream.exact()
    last = compare_closely(read_records(cluster, job.sink, "read_committed"), exact)
    rollups.start("--trigger", "available-now")
    assert rollups.wait() == 0, rollups.said()[-10:]
    hours = compare_hours(dict(read_records(cluster, rollups.sink, "read_committed")), stream)
    assert not job.ended
    assert not rollups.ended
    report(
        "rolling restart of three brokers, under the job and the rollup job",
        f"both go on by themselves; events of all {len(last)} windows and {hours} hours equal the exact count, users "
        "within three times the error",
        longest_time_without_a_result=describe(silences),
    )


def compare_closely(
    records: list[tuple[str, dict[str, Any]]], exact: dict[str, tuple[int, int]]
) -> dict[str, dict[str, Any]]:
    """Compares the last record of each window, whose users were estimated, and that each revision is there once."""
    revisions = defaultdict(list)
    for key, value in records:
        revisions[key].append(value)
    for values in revisions.values():
        assert [value["revision"] for value in values] == list(range(len(values)))
    last = {key: values[-1] for key, values in revisions.items()}
    assert {key: value["events"] for key, value in last.items()} == {key: found[1] for key, found in exact.items()}
    for key, (users, _) in exact.items():
        assert abs(last[key]["unique_users"] - users) <= max(2, 3 * last[key]["relative_error"] * users), key
    return last


def compare_hours(rollups: dict[str, dict[str, Any]], stream: Stream) -> int:
    """Compares the hours of the rollup topic; returns how many there are."""
    users: dict[str, set[str]] = defaultdict(set)
    events: dict[str, int] = defaultdict(int)
    for key, names in stream.users().items():
        start = int(datetime.fromisoformat(key.replace("Z", "+00:00")).timestamp())
        hour = f"hour {utc(start - start % 3600)}"
        users[hour] |= names
        events[hour] += stream.exact()[key][1]
    found = {key: value for key, value in rollups.items() if key.startswith("hour ")}
    assert {key: value["events"] for key, value in found.items()} == events
    for key, value in found.items():
        assert abs(value["unique_users"] / len(users[key]) - 1) <= 3 * value["relative_error"], key
    return len(found)


def describe(seconds: list[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in seconds) + " s"


def test_kill_9_of_each_broker_that_the_job_depends_on(
    whole_cluster: KafkaCluster, cluster_setting: Setting, admin: Any, report: Report
) -> None:
    cluster = whole_cluster
    stream, job = cluster_setting("kill", *FLAGS)
    finders: dict[str, Callable[[], int | None]] = {
        "leader of a partition of the input": lambda: cluster.leader(job.source),
        "leader of the output": lambda: cluster.leader(job.sink),
        "controller": lambda: find_controller(admin),
        "transaction coordinator": lambda: cluster.leader(TRANSACTIONS),
        "group coordinator": lambda: cluster.leader(GROUPS),
    }
    silences = {}
    with stream, watch(cluster, job) as watcher:
        job.start()
        wait_for_results(watcher, job)
        for name, find in finders.items():
            number = find()
            assert number is not None
            began = time.time()
            cluster.nodes[number].kill()
            # It comes back once the job has done without it.
            wait_for_results(watcher, job)
            silences[name] = round(longest_silence(watcher, began), 1)
            cluster.start()
            cluster.wait_until_in_sync(job.source, job.sink, GROUPS, TRANSACTIONS)
    outcome = drain_and_compare(cluster, stream, job)
    for name, seconds in silences.items():
        report(f"kill -9 of the {name}, away until the job goes on", outcome, longest_time_without_a_result=seconds)
    assert not job.ended


def test_two_of_three_brokers_are_killed(whole_cluster: KafkaCluster, cluster_setting: Setting, report: Report) -> None:
    """What is left may not acknowledge a record, because `min.insync.replicas` is 2: everybody waits."""
    cluster = whole_cluster
    stream, job = cluster_setting("two", *FLAGS)
    with stream, watch(cluster, job) as watcher:
        job.start()
        wait_for_results(watcher, job)
        first = cluster.leader(job.sink)
        assert first is not None
        for number in (first, first % NODES + 1):
            cluster.nodes[number].kill()
        time.sleep(20)
        cluster.start()
        returned = time.time()
        wait_for_results(watcher, job)
        after = next(result.arrived for result in watcher.seen if result.arrived > returned) - returned
    outcome = drain_and_compare(cluster, stream, job)
    assert not job.ended
    report("kill -9 of two brokers of three, for 20 s", outcome, next_result_after_their_return=f"{after:.1f} s")


def test_partitions_move_and_leaders_change(
    whole_cluster: KafkaCluster, cluster_setting: Setting, admin: Any, report: Report
) -> None:
    cluster = whole_cluster
    stream, job = cluster_setting("moved", *FLAGS)
    moved = [
        kafka.TopicPartition(job.source, 0),
        kafka.TopicPartition(job.source, 1),
        kafka.TopicPartition(job.sink, 0),
    ]
    with stream, watch(cluster, job) as watcher:
        job.start()
        wait_for_results(watcher, job)
        began = time.time()
        # From two brokers to two others, one of them new, then back to all, led by another one.
        for replicas in ([1, 2], [2, 3], [3, 1], [2, 3, 1]):
            for error in admin.alter_partition_reassignments(dict.fromkeys(moved, replicas)).values():
                assert error is None
            wait_until(
                lambda wanted=replicas: all(
                    found.replicas == wanted and set(found.isrs) == set(wanted)
                    for topic in (job.source, job.sink)
                    for found in cluster.describe(topic).values()
                ),
                DEADLINE_SECONDS,
            )
            wait_for_results(watcher, job)
        moving, began = longest_silence(watcher, began), time.time()
        for replicas in ([1, 2, 3], [3, 1, 2]):
            for error in admin.alter_partition_reassignments(dict.fromkeys(moved, replicas)).values():
                assert error is None
            wait_until(lambda first=replicas: elect(admin, cluster, job, first[0]), DEADLINE_SECONDS)
            wait_for_results(watcher, job)
        electing = longest_silence(watcher, began)
    outcome = drain_and_compare(cluster, stream, job)
    assert not job.ended
    report("all partitions move to other brokers, four times", outcome, longest_time_without_a_result=f"{moving:.1f} s")
    report("preferred leaders are elected, twice", outcome, longest_time_without_a_result=f"{electing:.1f} s")


def elect(admin: Any, cluster: KafkaCluster, job: Job, wanted: int) -> bool:
    """Elects the preferred leaders of the job's topics; whether that broker leads all of them now."""
    partitions = {topic: list(cluster.describe(topic)) for topic in (job.source, job.sink)}
    admin.elect_leaders(PREFERRED, partitions, raise_errors=False)
    return all(cluster.leader(topic, partition) == wanted for topic in partitions for partition in partitions[topic])


def test_a_broker_that_is_slow(whole_cluster: KafkaCluster, cluster_setting: Setting, report: Report) -> None:
    """Paused for longer than its session with the controller, then stopped nine tenths of the time."""
    cluster = whole_cluster
    stream, job = cluster_setting("slow", *FLAGS)
    with stream, watch(cluster, job) as watcher:
        job.start()
        wait_for_results(watcher, job)
        began = time.time()
        leader = cluster.nodes[cluster.leader(job.sink) or 1]
        leader.pause()
        time.sleep(20)
        leader.resume()
        wait_for_results(watcher, job)
        paused = longest_silence(watcher, began)
        cluster.wait_until_in_sync(job.source, job.sink, GROUPS, TRANSACTIONS)
        began = time.time()
        leader = cluster.nodes[cluster.leader(job.source) or 1]
        while time.time() < began + 30:
            leader.pause()
            time.sleep(0.9)
            leader.resume()
            time.sleep(0.1)
        wait_for_results(watcher, job)
        slow = longest_silence(watcher, began)
    outcome = drain_and_compare(cluster, stream, job)
    assert not job.ended
    report("the leader of the output is paused for 20 s", outcome, longest_time_without_a_result=f"{paused:.1f} s")
    report("a leader runs a tenth of the time, for 30 s", outcome, longest_time_without_a_result=f"{slow:.1f} s")


@pytest.mark.parametrize("beyond", [False, True], ids=["the log is shorter", "the log has grown beyond"])
def test_an_unclean_leader_election_loses_acknowledged_events(
    whole_cluster: KafkaCluster, report: Report, tmp_path: Path, seed: int, beyond: bool
) -> None:
    """Events that were read and counted are gone, and others may stand in their place: they must not be skipped."""
    cluster = whole_cluster
    first, second = cluster.nodes[2], cluster.nodes[3]
    name = f"unclean-{beyond}".lower()
    config = {"min.insync.replicas": "1"}
    topic = NewTopic(f"{name}-in", 1, replica_assignment=[[first.number, second.number]], config=config)
    client = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    for done in client.create_topics([topic]).values():
        done.result()
    cluster.create_topic(f"{name}-out")
    job, stream = Job(cluster, tmp_path, f"{name}-in", f"{name}-out", *FLAGS), Stream(cluster, f"{name}-in", seed)
    stream.partitions = 1
    try:
        stream.load(2_000)
        job.start()
        wait_until(lambda: count_events(job) == 2_000, DEADLINE_SECONDS)
        second.kill()
        wait_until(lambda: cluster.in_sync(job.source)[0] == {first.number}, DEADLINE_SECONDS)
        stream.load(1_000)  # only the first broker has these
        wait_until(lambda: count_events(job) == 3_000, DEADLINE_SECONDS)
        if beyond:
            time.sleep(3)  # for the job to ask in which leader epoch it read them
            job.signal(signal.SIGSTOP)
        first.kill()
        second.start()
        wait_until(lambda: elect_unclean(cluster, job.source, second.number), DEADLINE_SECONDS)
        # Another producer: this one would end, because the broker does not know its last events.
        later = Stream(cluster, job.source, seed + 1)
        later.partitions = 1
        later.load(1_500 if beyond else 500)
        job.signal(signal.SIGCONT)
        assert job.wait() == 2, "\n".join(job.said()[-10:])
        line = job.error()
        assert "take another --checkpoint-location" in line
        assert "unclean" in line
    finally:
        job.kill()
        cluster.start()
    state = "the log has grown beyond what was read" if beyond else "the log is shorter than what was read"
    report(f"unclean leader election: {state}", "ends with status 2", ended_with=line)


def count_events(job: Job) -> int:
    """The events of the batches so far."""
    assert job.status() is None, "\n".join(job.said()[-10:])
    return sum(int(batch["events"]) for batch in job.batches())


def elect_unclean(cluster: KafkaCluster, topic: str, wanted: int) -> bool:
    """Elects a leader that is not in sync; whether it leads now."""
    if cluster.leader(topic) == wanted:
        return True
    # A client that knew the broker that was killed would go on asking it.
    with suppress(kafka.errors.KafkaError):
        client = kafka.KafkaAdminClient(bootstrap_servers=cluster.nodes[wanted].bootstrap_servers)
        try:
            client.elect_leaders(UNCLEAN, {topic: [0]}, raise_errors=False)
        finally:
            client.close()
    return False
