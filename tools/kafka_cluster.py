"""Runs a real Kafka cluster on this machine without Docker: three KRaft nodes, Java processes that listen on 127.0.0.1.

    python tools/kafka_cluster.py --topic in:2 --topic out

Each node is broker and controller. Topics have three replicas, of which two have to take a record before it is
acknowledged (`min.insync.replicas`); so have Kafka's own topics. Tests use it as a context manager:

    with KafkaCluster() as cluster:
        cluster.create_topic("in", partitions=2)
        leader = cluster.leader("in", 0)
        cluster.nodes[leader].kill()
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from kafka_broker import (
    START_TIMEOUT_SECONDS,
    BrokerError,
    KafkaBroker,
    create_topics,
    find_free_port,
    make_cluster_id,
    parse_topic,
)
from servers import Started

if TYPE_CHECKING:
    from confluent_kafka.admin._metadata import PartitionMetadata

NODES = 3
MIN_IN_SYNC = 2
HEAP = "256m"

# Behind those of a single broker: of two equal names the later one holds. Failures are noticed as fast as Kafka's
# defaults notice them.
PROPERTIES = """
node.id={number}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{address},PROXIED://{proxied},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{address},PROXIED://{advertised}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT
default.replication.factor={nodes}
min.insync.replicas={min_in_sync}
offsets.topic.replication.factor={nodes}
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={min_in_sync}
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr={min_in_sync}
"""


class ClusterNode(KafkaBroker):
    """One node of a cluster, started, stopped, killed and paused as a single broker is.

    `proxied_port` is a second listener for clients, which tells them to come back to `advertised_port`: that of a proxy
    in front of it.
    """

    def __init__(self, number: int, data: Path, cluster_id: str) -> None:
        """Chooses the ports, and starts nothing yet."""
        super().__init__(data=data, heap=HEAP)
        self.number = number
        self.cluster_id = cluster_id
        self.proxied_port, self.advertised_port = find_free_port(), find_free_port()
        self.voters = ""

    @property
    def voter(self) -> str:
        """The node as a controller, as `controller.quorum.voters` names it."""
        return f"{self.number}@127.0.0.1:{self._controller_port}"

    def _properties(self) -> str:
        return super()._properties() + PROPERTIES.format(
            number=self.number,
            voters=self.voters,
            address=self.bootstrap_servers,
            proxied=f"127.0.0.1:{self.proxied_port}",
            advertised=f"127.0.0.1:{self.advertised_port}",
            controller=f"127.0.0.1:{self._controller_port}",
            nodes=NODES,
            min_in_sync=MIN_IN_SYNC,
        )


class KafkaCluster(Started):
    """Three Kafka nodes in one cluster, `nodes` by number; a context manager that starts them and stops them."""

    def __init__(self) -> None:
        """Chooses ports and a temporary folder, and starts nothing yet."""
        self._folder = Path(tempfile.mkdtemp(prefix="kafka-cluster-"))
        cluster_id = make_cluster_id()
        numbers = range(1, NODES + 1)
        self.nodes = {number: ClusterNode(number, self._folder / str(number), cluster_id) for number in numbers}
        for node in self.nodes.values():
            node.voters = ",".join(other.voter for other in self.nodes.values())

    @property
    def bootstrap_servers(self) -> str:
        """The addresses for clients, `host:port,…`."""
        return ",".join(node.bootstrap_servers for node in self.nodes.values())

    @property
    def proxied_bootstrap_servers(self) -> str:
        """The addresses of the proxies in front of the nodes, for clients that are to pass them."""
        return ",".join(f"127.0.0.1:{node.advertised_port}" for node in self.nodes.values())

    def start(self) -> None:
        """Starts the nodes that do not run; returns when all are in the cluster. Raises BrokerError."""
        for node in self.nodes.values():
            if not node.is_running:
                node.launch()
        for node in self.nodes.values():
            node.wait_until_ready()
        self.wait_for_brokers()

    def create_topic(self, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> None:
        """Creates a topic with a replica on each node, unless it exists; returns once every node knows it."""
        create_topics(self.bootstrap_servers, {name: partitions}, config, NODES)
        self.wait_until_in_sync(name)

    def describe(self, topic: str) -> dict[int, PartitionMetadata]:
        """Leader, replicas and in-sync replicas of each partition of a topic; a node that hangs is asked in vain."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            # Any node may answer, so that it does not matter which one is down.
            with suppress(KafkaException):
                found: dict[int, PartitionMetadata] = admin.list_topics(topic, timeout=2).topics[topic].partitions
                if found:
                    return found
            if time.monotonic() > deadline:
                raise BrokerError(f"no node described topic {topic} in {START_TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.1)

    def leader(self, topic: str, partition: int = 0) -> int | None:
        """The number of the node that leads a partition; None while none does."""
        leader = self.describe(topic)[partition].leader
        return None if leader < 0 else leader

    def in_sync(self, topic: str) -> dict[int, set[int]]:
        """Partition -> the numbers of the nodes that have all of it."""
        return {number: set(partition.isrs) for number, partition in self.describe(topic).items()}

    def wait_for_brokers(self) -> None:
        """Returns once the running nodes are in the cluster; raises BrokerError after START_TIMEOUT_SECONDS."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        wanted = {number for number, node in self.nodes.items() if node.is_running}
        self._wait(lambda: set(admin.list_topics(timeout=1).brokers) >= wanted, "all nodes in the cluster")

    def wait_until_in_sync(self, *topics: str) -> None:
        """Returns once every node has all of these topics; raises BrokerError after START_TIMEOUT_SECONDS."""
        everyone = set(self.nodes)
        for topic in topics:
            self._wait(
                lambda topic=topic: all(found == everyone for found in self.in_sync(topic).values()),
                f"{topic} in sync on all nodes",
            )

    def _wait(self, condition: Any, what: str) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            with suppress(KafkaException):
                if condition():
                    return
            if time.monotonic() > deadline:
                raise BrokerError(f"waited {START_TIMEOUT_SECONDS:.0f} s in vain for {what}")
            time.sleep(0.2)

    def clean(self) -> None:
        """Stops the nodes, and removes their folder."""
        # Killed: nodes that stop one after the other wait for a quorum that is gone.
        for node in self.nodes.values():
            node.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def main() -> None:
    """Command line: runs a cluster in the foreground until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description="A real Kafka cluster of three nodes on this machine, without Docker.")
    parser.add_argument(
        "--topic", type=parse_topic, action="append", default=[], metavar="NAME[:PARTITIONS]", help="create this topic"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        print("kafka: starting three nodes", flush=True)
        with KafkaCluster() as cluster:
            for name, partitions in args.topic:
                cluster.create_topic(name, partitions)
            print(f"kafka: ready on {cluster.bootstrap_servers}; Ctrl-C stops it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("kafka: stopped", flush=True)
    except (BrokerError, KafkaException) as error:
        sys.exit(f"kafka_cluster: error: {error}")


if __name__ == "__main__":
    main()
