"""Shows a page that moves, on this machine: `make live`.

It starts an embedded Kafka, generated events at the pace of the clock, `unique_users.py`, `rollup_users.py`, and
`unique-users-service`, prints the address of the page, and runs until Ctrl-C, which stops all of them. Everything lies
in a temporary folder that goes with it.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from generate_events import Settings, generate_events
from kafka_broker import BrokerError, KafkaBroker, find_free_port
from load_events import LoadError, load_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
DEFAULT_PORT = 8050
# So much is there when the page opens: its chart of 30 minutes is full at once.
PAST_SECONDS, MOST_PAST_EVENTS = 40 * 60, 240_000
USERS = 5_000
STOP_SECONDS = 30.0
# Both jobs live on a machine that a person works on.
QUICK = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


class LiveError(Exception):
    """It can't go on; the message is one line."""


class Part:
    """A process of its own, with a log file."""

    def __init__(self, name: str, folder: Path, command: list[str]) -> None:
        """Starts it; Ctrl-C does not reach it, so that all parts end in order."""
        self.name = name
        self.log = folder / f"{name}.log"
        environment = {**os.environ, "SPARK_SUBMIT_OPTS": os.environ.get("SPARK_SUBMIT_OPTS", QUICK)}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def check(self) -> None:
        """Raises LiveError when it has ended."""
        if self._process.poll() is not None:
            lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
            said = lines[-1] if lines else "it said nothing"
            raise LiveError(f"{self.name} ended with status {self._process.returncode}: {said}")

    def stop(self) -> None:
        """Lets it end, or ends it."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def say(text: str) -> None:
    """Prints a line that says what happens now."""
    print(f"live: {text}", flush=True)


def choose_port(wanted: int | None) -> int:
    """The port that was asked for, or the usual one, or a free one where that is taken."""
    if wanted is not None:
        return wanted
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            return find_free_port()
    return DEFAULT_PORT


def run_live(rate: float, port: int, seconds: float | None) -> None:
    """Runs all parts until Ctrl-C, or for so many seconds once the page has numbers; raises LiveError."""
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unique-users-")))
        broker = stack.enter_context(KafkaBroker())
        servers = broker.bootstrap_servers
        say(f"an embedded Kafka runs on {servers}")
        broker.create_topic("in", partitions=2)
        for topic in ("out", "rollups", "rejects"):
            broker.create_topic(topic)
        parts = []

        def start(name: str, command: list[str]) -> None:
            part = Part(name, folder, command)
            parts.append(part)
            stack.callback(part.stop)

        metrics = find_free_port()
        tables = ["--minutes-table", f"{folder}/minutes", "--rollups-table", f"{folder}/rollups"]
        submit = [str(BIN / "spark-submit"), "--conf", "spark.ui.enabled=false"]
        job = ["jobs/unique_users.py", "--bootstrap-servers", servers, "--sketch", "--output-mode", "update"]
        job += [
            "--by",
            "type",
            "--max-groups",
            "8",
            "--rejects-topic",
            "rejects",
            "--metrics-port",
            str(metrics),
            "--trigger",
            "500 milliseconds",
        ]
        start("unique_users", [*submit, *job, "--checkpoint-location", f"{folder}/checkpoint-out"])
        rollups = ["jobs/rollup_users.py", "--bootstrap-servers", servers, *tables, "--trigger", "5 seconds"]
        start("rollup_users", [*submit, *rollups, "--checkpoint-location", f"{folder}/checkpoint-rollups"])
        service = ["--bootstrap-servers", servers, "--rejects-topic", "rejects", "--port", str(port)]
        service += ["--job-metrics", f"http://127.0.0.1:{metrics}/metrics"]
        start("service", [sys.executable, "-m", "unique_users_service.server", *tables, *service])
        ended = threading.Event()
        failures: list[LoadError] = []
        loader = threading.Thread(target=load_events, args=(servers, rate, ended, failures))
        loader.start()
        stack.callback(loader.join)
        stack.callback(ended.set)
        address = f"http://127.0.0.1:{port}"
        say(f"the page is {address} and has numbers in half a minute; Ctrl-C stops everything")
        ready_at: float | None = None
        while seconds is None or ready_at is None or time.monotonic() < ready_at + seconds:
            for part in parts:
                part.check()
            if failures:
                raise LiveError(str(failures[0]))
            if ready_at is None and is_ready(address):
                ready_at = time.monotonic()
                say(f"it moves: {address} ({ready_at - began:.0f} s)")
            time.sleep(0.2)


def is_ready(address: str) -> bool:
    """Whether the service has numbers."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=2) as answer:  # noqa: S310 - http
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def load_events(servers: str, rate: float, ended: threading.Event, failures: list[LoadError]) -> None:
    """Loads events of the last minutes at once, then new ones at the pace of the clock, until `ended` is set."""
    now = int(time.time())
    number = min(int(PAST_SECONDS * rate), MOST_PAST_EVENTS)
    past = Settings(number, now - PAST_SECONDS, number / PAST_SECONDS, USERS, 600, malformed=0.004)

    def take(settings: Settings) -> Iterator[bytes]:
        for event in generate_events(settings):
            if ended.is_set():
                return
            yield event.line

    try:
        load_lines(take(past), servers, "in")
        begin = int(time.time())
        # Late ones correct minutes that are published already.
        live = replace(past, events=10**9, start=begin, rate=rate, late=0.002, late_by=150.0, seed=2)
        load_lines(take(live), servers, "in", rate)
    except LoadError as error:
        if not ended.is_set():
            failures.append(error)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Show a page that moves, with everything that it needs.")
    parser.add_argument("--rate", type=float, default=100.0, help="events a second (default: %(default)s)")
    parser.add_argument("--port", type=int, help=f"port of the page (default: {DEFAULT_PORT}, or a free one)")
    parser.add_argument("--seconds", type=float, help="end so long after the first numbers (default: run until Ctrl-C)")
    args = parser.parse_args()
    if not 1 <= args.rate <= 20_000:
        parser.error("argument --rate: give a number from 1 to 20,000")
    if args.port is not None and not 1 <= args.port <= 65_535:
        parser.error("argument --port: give a port from 1 to 65535")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_live(args.rate, choose_port(args.port), args.seconds)
    except (BrokerError, LiveError, OSError) as error:
        sys.exit(f"live: error: {error}")
    except KeyboardInterrupt:
        say("stopped")


if __name__ == "__main__":
    main()
