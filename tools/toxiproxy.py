"""A bad network on this machine: Toxiproxy between clients and a server. Needs Go to build it, once.

    with Toxiproxy(listen=20001, upstream=20002) as network:
        network.add("latency", latency=300, jitter=100)
        network.clear()

Toxiproxy is Shopify's, a Go module. `go install` checks what it downloads against Go's checksum database.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from go_programs import find_go, run_go
from kafka_broker import find_free_port
from packages import CACHE
from servers import Server

VERSION = "v2.12.0"
MODULE = f"github.com/Shopify/toxiproxy/v2/cmd/server@{VERSION}"
FOLDER = CACHE / f"toxiproxy-{VERSION}"
START_SECONDS = 30.0
NAME = "server"  # of the one proxy that an instance has
STREAMS = ("upstream", "downstream")  # from the client to the server, and back


class ToxiproxyError(Exception):
    """Toxiproxy can't be built or started; the message is one line."""


def install_toxiproxy() -> str:
    """Builds Toxiproxy unless it is there; returns its path. Raises ToxiproxyError when that fails, or without Go."""
    program = FOLDER / "server"
    if program.exists():
        return str(program)
    go = find_go("Toxiproxy", "1.23", ToxiproxyError)
    environment = {"GOMAXPROCS": os.environ.get("GOMAXPROCS", "1"), "GOBIN": str(FOLDER)}
    run_go(go, "install", MODULE, error=ToxiproxyError, environment=environment)
    return str(program)


class Toxiproxy(Server):
    """A proxy from a port to another one, both on 127.0.0.1; a context manager that starts it and stops it."""

    title = "Toxiproxy"
    error = ToxiproxyError

    def __init__(self, listen: int, upstream: int, seed: int = 1) -> None:
        """Builds Toxiproxy when it is not there; starts nothing yet. `seed` draws which connections are hit."""
        self._program = install_toxiproxy()
        self._listen, self._upstream, self._seed = listen, upstream, seed
        self._port = find_free_port()

    def add(self, kind: str, toxicity: float = 1.0, streams: tuple[str, ...] = STREAMS, **attributes: int) -> None:
        """Adds a fault of that kind to both directions; `toxicity` is the share of connections that it hits."""
        for stream in streams:
            self._ask(
                "POST",
                f"proxies/{NAME}/toxics",
                {
                    "name": f"{kind}-{stream}",
                    "type": kind,
                    "stream": stream,
                    "toxicity": toxicity,
                    "attributes": attributes,
                },
            )

    def replace(self, kind: str, toxicity: float = 1.0, streams: tuple[str, ...] = STREAMS, **attributes: int) -> None:
        """Adds a fault in place of one of that kind."""
        for toxic in self._ask("GET", f"proxies/{NAME}/toxics", None):
            if toxic["type"] == kind:
                self._ask("DELETE", f"proxies/{NAME}/toxics/{toxic['name']}", None)
        self.add(kind, toxicity, streams, **attributes)

    def clear(self) -> None:
        """Takes all faults away; connections stay."""
        for toxic in self._ask("GET", f"proxies/{NAME}/toxics", None):
            self._ask("DELETE", f"proxies/{NAME}/toxics/{toxic['name']}", None)

    def cut(self) -> None:
        """Closes all connections, and takes new ones."""
        for enabled in (False, True):
            self._ask("POST", f"proxies/{NAME}", {"enabled": enabled})

    def part(self) -> None:
        """Lets nothing through any more, and closes nothing; what was sent is there when `heal` is called."""
        if self.is_running:
            self.pause()

    def heal(self) -> None:
        """Ends `part`."""
        if self.is_running:
            self.resume()

    def start(self) -> None:
        """Starts it with its one proxy; raises ToxiproxyError when it does not answer."""
        command = [self._program, "-host", "127.0.0.1", "-port", str(self._port), "-seed", str(self._seed)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._wait_until_ready()
        proxy = {
            "name": NAME,
            "listen": f"127.0.0.1:{self._listen}",
            "upstream": f"127.0.0.1:{self._upstream}",
            "enabled": True,
        }
        self._ask("POST", "proxies", proxy)

    def clean(self) -> None:
        """Stops it."""
        self.kill()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._ask("GET", "version", None)
                return
            except (urllib.error.URLError, ConnectionError):
                if time.monotonic() > deadline:
                    raise ToxiproxyError(f"Toxiproxy did not answer in {START_SECONDS:.0f} s") from None
                time.sleep(0.05)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            text = answer.read()
        return json.loads(text) if text else None
