"""Keeps pages up to date: server-sent events, one with each new state."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from unique_users_service.monitoring import ServiceMetrics
    from unique_users_service.service import Service

LIVE_SECONDS, KEEP_ALIVE_SECONDS = 0.25, 15.0


class Wake:
    """Wakes all who look at `/v1/live` when there is a new state."""

    def __init__(self) -> None:
        """`viewers`: how many look."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self.viewers = 0
        self.ended = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Says on which loop they look."""
        self._loop = loop

    def call(self) -> None:
        """Wakes them; from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set)

    def end(self) -> None:
        """Lets them go."""
        self.ended = True
        self._set()

    async def wait(self, seconds: float) -> bool:
        """Whether there was a call within that time."""
        event = self._event
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True

    def _set(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


async def stream(service: Service, wake: Wake, metrics: ServiceMetrics) -> AsyncIterator[bytes]:
    """The events of one viewer. One who reads slowly gets fewer: nothing is queued."""
    wake.viewers += 1
    metrics.viewers.set(wake.viewers)
    try:
        sent = -1
        while not wake.ended:
            number = service.state.number
            if number != sent:
                sent = number
                yield b"event: minutes\ndata: " + service.describe_live() + b"\n\n"
                await asyncio.sleep(LIVE_SECONDS)
            elif not await wake.wait(KEEP_ALIVE_SECONDS):
                yield b": still here\n\n"
    finally:
        wake.viewers -= 1
        metrics.viewers.set(wake.viewers)
