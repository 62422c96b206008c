"""Runs a real Kafka on this machine without Docker: one KRaft node, a Java process that listens on 127.0.0.1.

    python tools/kafka_broker.py run --port 9092 --topic in:2 --topic out
    python tools/kafka_broker.py topics --bootstrap-servers localhost:9092 in:2 out

`make install` downloads its jars. Tests and benchmarks use it as a context manager:

    with KafkaBroker() as broker:
        broker.create_topic("in", partitions=2)
        print(broker.bootstrap_servers)
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from contextlib import suppress
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from kafka_security import LISTENER_PROPERTIES, STORE_PASSWORD, admit_job, make_stores
from packages import BROKER_JARS
from servers import Server

START_TIMEOUT_SECONDS = 180.0  # on a busy machine; a broker that ends while it starts is noticed at once
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
# Below the ports that Linux and macOS give to clients. While a server restarts, a client that looks for it could be
# given the server's own port, connect to itself, and keep the server from coming back.
PORTS = range(20_000, 32_768)

# Records may have timestamps in the past. With its default retention of 7 days Kafka would delete them.
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listeners}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL_SSL:SASL_SSL
log.dirs={data}
log.retention.ms=-1
message.max.bytes={max_bytes}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class BrokerError(Exception):
    """The broker can't be started, or is not ready in time; the message is one line."""


def find_free_port() -> int:
    """A TCP port of PORTS on 127.0.0.1 that nothing listens on now, drawn at random: others look for one too."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as server, suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port


def make_cluster_id() -> str:
    """An id for a new cluster, as Kafka's own tool draws one."""
    # The first byte is fixed, because Kafka would read an id that begins with "-" as a flag.
    return urlsafe_b64encode(b"\x00" + uuid.uuid4().bytes[1:]).decode().rstrip("=")


def create_topics(
    bootstrap_servers: str, topics: dict[str, int], config: dict[str, str] | None = None, replicas: int = 1
) -> list[str]:
    """Creates the missing topics (name -> number of partitions). Returns the names of the new ones.

    `config` holds Kafka's topic settings, such as `cleanup.policy`. Each partition is on so many brokers. Raises
    BrokerError when the broker can't be reached or refuses.
    """
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    new = [
        NewTopic(name, num_partitions=partitions, replication_factor=replicas, config=config or {})
        for name, partitions in topics.items()
    ]
    created = []
    for name, done in admin.create_topics(new, request_timeout=10).items():
        try:
            done.result()
            created.append(name)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerError(f"topic {name} on {bootstrap_servers}: {reason.str()}") from error
    return created


class KafkaBroker(Server):
    """One Kafka node, broker and controller; a context manager that starts it and stops it.

    `port` 0 takes a free port. `data` None takes a temporary folder, which is removed at the end. After `stop()` or
    `kill()` the broker may `start()` again, with the same port and data. With `secure` there is a second listener with
    TLS, SASL/SCRAM and ACLs (`kafka_security`); whoever uses the first listener is a superuser. `heap` is Java's
    `-Xmx`.
    """

    title = "the broker"
    error = BrokerError

    def __init__(self, port: int = 0, data: Path | None = None, secure: bool = False, heap: str = "1g") -> None:
        """Chooses the ports and the folder, and starts nothing yet."""
        self.cluster_id = make_cluster_id()
        self._heap = heap
        self.port = port or find_free_port()
        self._secure_port = find_free_port() if secure else None
        self._controller_port = find_free_port()
        self._temporary = data is None
        self._folder = data or Path(tempfile.mkdtemp(prefix="kafka-"))

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def secure_bootstrap_servers(self) -> str:
        """The address for clients with TLS and SASL. Raises BrokerError when there is no such listener."""
        if self._secure_port is None:
            raise BrokerError("the broker has no secured listener")
        return f"127.0.0.1:{self._secure_port}"

    @property
    def truststore(self) -> Path:
        """The trust store for clients of the secured listener."""
        return self._folder / "tls" / "truststore.p12"

    def start(self) -> None:
        """Starts the broker and returns when it answers; raises BrokerError when it does not."""
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts the broker's process, and does not wait until it answers; raises BrokerError when it can't."""
        if not BROKER_JARS.is_dir():
            raise BrokerError(f"no Kafka in {BROKER_JARS}: run make install")
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "server.properties"
        settings.write_text(self._properties())
        if not (self._folder / "log" / "meta.properties").exists():
            self._format(settings)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._java(f"-Xmx{self._heap}"), "kafka.Kafka", str(settings)],
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not reach the broker: it is stopped after the job
            )

    def create_topic(self, name: str, partitions: int = 1, config: dict[str, str] | None = None) -> None:
        """Creates a topic unless it exists."""
        create_topics(self.bootstrap_servers, {name: partitions}, config)

    @property
    def _log(self) -> Path:
        return self._folder / "broker.log"

    def _properties(self) -> str:
        listeners = f"PLAINTEXT://{self.bootstrap_servers}"
        security = ""
        if self._secure_port is not None:
            listeners += f",SASL_SSL://{self.secure_bootstrap_servers}"
            keystore = self.truststore.with_name("keystore.p12")
            if not keystore.exists():
                make_stores(keystore.parent)
            security = LISTENER_PROPERTIES.format(keystore=keystore, password=STORE_PASSWORD)
        return security + PROPERTIES.format(
            listeners=listeners,
            controller_port=self._controller_port,
            data=self._folder / "log",
            max_bytes=MAX_MESSAGE_BYTES,
        )

    def _java(self, *options: str) -> list[str]:
        classes = os.pathsep.join(str(jar) for jar in sorted(BROKER_JARS.glob("*.jar")))
        logging = [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
        ]
        # Kafka's own scripts read this variable too.
        wanted = os.environ.get("KAFKA_OPTS", "").split()
        return ["java", *options, *wanted, *logging, "-cp", classes]

    def _format(self, settings: Path) -> None:
        format_ = ["format", "-t", self.cluster_id, "-c", str(settings)]
        command = [*self._java(), "kafka.tools.StorageTool", *format_]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines() or ["it printed nothing"]
            raise BrokerError(f"Kafka could not format {self._folder}: {said[-1]}")

    def wait_until_ready(self) -> None:
        """Returns when the broker answers; raises BrokerError when it ends, or does not in START_TIMEOUT_SECONDS."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        while True:
            process = self.process
            if process is None or process.poll() is not None:
                raise BrokerError(f"Kafka ended while starting; its log: {self._last_words()}")
            try:
                if admin.list_topics(timeout=1).brokers:
                    return
            except KafkaException:
                pass
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"Kafka did not answer on {self.bootstrap_servers} in {START_TIMEOUT_SECONDS:.0f} s")

    def _last_words(self) -> str:
        lines = [line for line in self._log.read_text(errors="replace").splitlines() if " ERROR " in line]
        return lines[-1] if lines else "empty"

    def clean(self) -> None:
        """Stops it, and removes its temporary folder."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)


def parse_topic(text: str) -> tuple[str, int]:
    """Turns `name` or `name:partitions` into a pair; raises argparse.ArgumentTypeError on anything else."""
    name, _, partitions = text.partition(":")
    if not name or (partitions and not partitions.isdecimal()) or partitions == "0":
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME or NAME:PARTITIONS, such as in:2")
    return name, int(partitions or 1)


def run_in_foreground(port: int, data: Path | None, topics: dict[str, int], secure: bool) -> None:
    """Runs a broker until Ctrl-C or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise BrokerError(f"port {port} is taken: stop what listens there, or choose --port") from error
    print("kafka: starting", flush=True)
    with KafkaBroker(port, data, secure) as broker:
        if topics:
            create_topics(broker.bootstrap_servers, topics)
        if secure:
            config = admit_job(
                broker.bootstrap_servers, broker.secure_bootstrap_servers, broker.truststore, list(topics)
            )
            print(f"kafka: TLS and SASL/SCRAM on {broker.secure_bootstrap_servers}: --kafka-config {config}")
        print(
            f"kafka: ready on {broker.bootstrap_servers}, topics {topics or 'none'}; Ctrl-C stops it",
            flush=True,
        )
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("kafka: stopping", flush=True)


def main() -> None:
    """Command line: `run` a broker in the foreground, or create `topics` on any broker."""
    parser = argparse.ArgumentParser(description="A real Kafka broker on this machine, without Docker.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a broker in the foreground until Ctrl-C")
    run.add_argument("--port", type=int, default=9092, help="port on 127.0.0.1 (default: 9092)")
    run.add_argument(
        "--data", type=Path, help="folder to keep topics in (default: a temporary one, removed at the end)"
    )
    run.add_argument(
        "--topic",
        type=parse_topic,
        action="append",
        default=[],
        metavar="NAME[:PARTITIONS]",
        help="create this topic",
    )
    run.add_argument(
        "--secure",
        action="store_true",
        help="add a listener with TLS, SASL/SCRAM and ACLs, and a user who may use the topics given with --topic",
    )
    topics = commands.add_parser("topics", help="create topics on a running broker, unless they are there")
    topics.add_argument("--bootstrap-servers", default="localhost:9092", help="(default: localhost:9092)")
    topics.add_argument("topic", type=parse_topic, nargs="+", metavar="NAME[:PARTITIONS]", help="topics to create")
    args = parser.parse_args()
    try:
        if args.command == "run":
            run_in_foreground(args.port, args.data, dict(args.topic), args.secure)
        else:
            created = create_topics(args.bootstrap_servers, dict(args.topic))
            print(f"kafka: created {', '.join(created) or 'nothing: all topics are there'}")
    except (BrokerError, KafkaException) as error:
        sys.exit(f"kafka_broker: error: {error}")


if __name__ == "__main__":
    main()
