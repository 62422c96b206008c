"""A bad network between the job and three brokers: nothing is lost, nothing comes twice, nobody has to help.

The events are loaded, and the results are read, past the proxies.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from faults import Job, Stream, drain_and_compare, longest_silence, wait_for_results
from result_watcher import ResultWatcher

if TYPE_CHECKING:
    from collections.abc import Callable

    from kafka_cluster import KafkaCluster
    from toxiproxy import Toxiproxy

    Network = dict[int, Toxiproxy]
    Report = Callable[..., None]
    Setting = Callable[..., tuple[Stream, Job]]

FLAGS = ("--counter", "exact")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


class Bench:
    """The job behind the proxies, on its way; what was measured."""

    def __init__(self, cluster: KafkaCluster, setting: Setting, name: str) -> None:
        self.cluster = cluster
        flags = ("--bootstrap-servers", cluster.proxied_bootstrap_servers)
        self.stream, self.job = setting(name, *FLAGS, *flags)
        self.watcher = ResultWatcher(cluster.bootstrap_servers, self.job.sink)
        self.figures: dict[str, str] = {}

    def wait_for_results(self) -> None:
        wait_for_results(self.watcher, self.job)

    def measure(self, fault: Callable[[], None], end: Callable[[], None]) -> str:
        """Runs a fault and what ends it, and waits until the job goes on; returns how long it took."""
        began = time.time()
        fault()
        end()
        ended = time.time()
        self.wait_for_results()
        after = next(result.arrived for result in list(self.watcher.seen) if result.arrived > ended) - ended
        silence = longest_silence(self.watcher, began)
        return f"next result {after:.1f} s after its end; longest time without a result {silence:.1f} s"

    def finish(self) -> str:
        return drain_and_compare(self.cluster, self.stream, self.job)


@pytest.fixture
def start(whole_cluster: KafkaCluster, cluster_setting: Setting) -> Callable[[str], Bench]:
    return lambda name: Bench(whole_cluster, cluster_setting, name)


def add(network: Network, kind: str, **settings: float) -> None:
    for proxy in network.values():
        proxy.add(kind, **settings)  # type: ignore[arg-type]


def clear(network: Network) -> None:
    for proxy in network.values():
        proxy.clear()


def test_a_slow_network(good_network: Network, start: Callable[[str], Bench], report: Report) -> None:
    bench = start("slow-network")
    slow = {
        "300 ms each way, and up to 100 ms more or less, for 40 s": ("latency", {"latency": 300, "jitter": 100}),
        "1 Mbit/s each way, a connection, for 40 s": ("bandwidth", {"rate": 125}),  # in kB a second
    }
    figures = {}
    with bench.stream, bench.watcher:
        bench.job.start()
        bench.wait_for_results()
        for name, (kind, settings) in slow.items():
            add(good_network, kind, **settings)
            began = time.time()
            time.sleep(40)
            bench.wait_for_results()  # while it is slow
            figures[name] = f"longest time without a result {longest_silence(bench.watcher, began):.1f} s"
            clear(good_network)
            bench.wait_for_results()
    outcome = bench.finish()
    assert not bench.job.ended
    for name, measured in figures.items():
        report(name, outcome, measured=measured)


def test_connections_that_are_reset_or_close_slowly(
    good_network: Network, start: Callable[[str], Bench], report: Report
) -> None:
    bench = start("resets")

    def reset() -> None:
        """Once a second, one connection in twenty is drawn anew, beside one in twenty of the new ones."""
        for _ in range(40):
            add(good_network, "reset_peer", toxicity=0.05, timeout=0)
            time.sleep(1)
            clear(good_network)

    def close_slowly() -> None:
        add(good_network, "slow_close", delay=5_000)
        for _ in range(4):
            for proxy in good_network.values():
                proxy.cut()
            time.sleep(5)

    with bench.stream, bench.watcher:
        bench.job.start()
        bench.wait_for_results()
        resets = bench.measure(reset, lambda: clear(good_network))
        slow_close = bench.measure(close_slowly, lambda: clear(good_network))
    outcome = bench.finish()
    report("5 % of connections are reset, drawn each second, for 40 s", outcome, measured=resets, ended=bench.job.ended)
    report("all connections are closed four times, each 5 s late", outcome, measured=slow_close, ended=bench.job.ended)


def test_half_open_connections(good_network: Network, start: Callable[[str], Bench], report: Report) -> None:
    """Data vanishes, one way or both, and no end of a connection is told; then the connections are gone."""
    bench = start("half-open")
    figures = {}
    with bench.stream, bench.watcher:
        bench.job.start()
        bench.wait_for_results()
        for streams, what in ((("downstream",), "answers vanish"), (("upstream", "downstream"), "all data vanishes")):

            def vanish(streams: tuple[str, ...] = streams) -> None:
                for proxy in good_network.values():
                    proxy.add("timeout", streams=streams, timeout=0)
                time.sleep(45)

            def come_back() -> None:
                clear(good_network)
                for proxy in good_network.values():
                    proxy.cut()

            figures[what] = bench.measure(vanish, come_back)
    outcome = bench.finish()
    for what, measured in figures.items():
        report(f"half-open connections for 45 s: {what}", outcome, measured=measured, ended=bench.job.ended)


@pytest.mark.parametrize("seconds", [10, 180])
def test_a_partition(good_network: Network, start: Callable[[str], Bench], report: Report, seconds: int) -> None:
    """Nothing gets through between the job and all brokers; then all that was sent does."""
    bench = start(f"partition-{seconds}")

    def part() -> None:
        for proxy in good_network.values():
            proxy.part()
        time.sleep(seconds)

    def heal() -> None:
        for proxy in good_network.values():
            proxy.heal()

    with bench.stream, bench.watcher:
        bench.job.start()
        bench.wait_for_results()
        measured = bench.measure(part, heal)
    outcome = bench.finish()
    report(
        f"a partition of {seconds} s between the job and all brokers", outcome, measured=measured, ended=bench.job.ended
    )


def test_one_broker_that_only_the_job_can_not_reach(
    good_network: Network, start: Callable[[str], Bench], report: Report
) -> None:
    """The leader of the output stays the leader, because the other brokers reach it: the job can't go elsewhere."""
    bench = start("one-broker")
    leader = bench.cluster.leader(bench.job.sink)
    assert leader is not None

    def part() -> None:
        good_network[leader].part()
        time.sleep(30)

    with bench.stream, bench.watcher:
        bench.job.start()
        bench.wait_for_results()
        measured = bench.measure(part, good_network[leader].heal)
    outcome = bench.finish()
    report(
        "the job alone can't reach the leader of the output for 30 s", outcome, measured=measured, ended=bench.job.ended
    )
