"""Answers questions about unique users over HTTP, and shows them on a page: `unique-users-service`.

unique-users-service --minutes-table tables/minutes --rollups-table tables/rollups
unique-users-service --bootstrap-servers localhost:9092 --job-metrics http://127.0.0.1:9108/metrics

curl 'http://127.0.0.1:8050/v1/unique-users?from=2016-07-11T13:39&to=2016-07-12'
"""

from __future__ import annotations

import logging
import socket
import sys
from typing import TYPE_CHECKING, NoReturn

import uvicorn
from uniques.errors import EXIT_FAILED, EXIT_USAGE
from uvicorn.protocols.http.h11_impl import H11Protocol

from unique_users_service.api import make_app
from unique_users_service.flags import parse_service
from unique_users_service.service import Service

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

log = logging.getLogger("unique_users_service")

NAME = "unique-users-service"
# How long a request may take to come in. Slow ones would else hold connections for ever.
REQUEST_SECONDS = 10.0
MOST_CONNECTIONS = 1_000


class ImpatientProtocol(H11Protocol):
    """HTTP that ends a connection when a request does not come in within REQUEST_SECONDS."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """A part of a request came in."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        elif self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)


def main(argv: Sequence[str] | None = None) -> None:
    """Checks the flags, then serves until it is stopped; exit status 0, 1 for a failure, 2 for a wrong flag."""
    settings = parse_service(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {NAME}: %(message)s")
    host, port = settings.address
    try:
        service = Service(settings)
    except ValueError as error:
        fail(EXIT_USAGE, f"argument --kafka-config: {error}")
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        fail(EXIT_FAILED, f"argument --port: {host}:{port} can't be listened on: {error.strerror or error}")
    config = uvicorn.Config(
        make_app(service),
        http=ImpatientProtocol,
        ws="none",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    shown = f"[{host}]" if ":" in host else host
    log.info("http://%s:%s", shown, listener.getsockname()[1])
    with listener:
        uvicorn.Server(config).run([listener])


def fail(status: int, text: str) -> NoReturn:
    """Ends with one line."""
    sys.stderr.write(f"{NAME}: error: {text}\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
