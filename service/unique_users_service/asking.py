"""Runs questions on a few threads, and keeps their answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

from fastapi import Request, Response

from unique_users_service.errors import BusyError, UnavailableError
from unique_users_service.sheets import write_sheet
from unique_users_service.state import ANSWER_BY

if TYPE_CHECKING:
    from collections.abc import Callable

    from unique_users_service.service import Service
    from unique_users_service.state import State

Compute: TypeAlias = "Callable[[State], dict[str, Any]]"

WORKERS = 4
CACHED, CACHED_BYTES = 2_000, 32 << 20
ANSWER_SECONDS = 20.0


class Asker:
    """Answers questions on a few threads, and keeps answers for as long as the state is the same."""

    def __init__(self, service: Service) -> None:
        """`waiting`: questions that are not answered yet."""
        self._service = service
        self._pool = ThreadPoolExecutor(WORKERS, "questions")
        self._answers: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._bytes = 0
        self.waiting = 0

    async def ask(self, request: Request, format_: str | None, compute: Compute, keep: bool = True) -> Response:
        """The answer to a request; raises BusyError where too many wait."""
        as_csv = format_ == "csv" or (format_ is None and "text/csv" in request.headers.get("accept", ""))
        state = self._service.state
        place = (state.number, f"{request.url.path}?{request.url.query}#{as_csv}")
        body = self._answers.get(place) if keep else None
        if body is None:
            if keep and not self._service.is_caught_up:
                raise UnavailableError("the newest records are still being read: ask again in a second")
            if self.waiting >= self._service.settings.questions:
                raise BusyError(f"{self.waiting} questions are being answered: ask again in a second")
            self.waiting += 1
            try:
                loop = asyncio.get_running_loop()
                body = await loop.run_in_executor(self._pool, answer, compute, state, as_csv)
            finally:
                self.waiting -= 1
            if keep:
                self._keep(place, body)
        return Response(body, media_type="text/csv; charset=utf-8" if as_csv else "application/json")

    def close(self) -> None:
        """Ends the threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep(self, place: tuple[int, str], body: bytes) -> None:
        if place not in self._answers:
            self._answers[place] = body
            self._bytes += len(body)
        while len(self._answers) > CACHED or self._bytes > CACHED_BYTES:
            self._bytes -= len(self._answers.popitem(last=False)[1])


def answer(compute: Compute, state: State, as_csv: bool) -> bytes:
    """The text of an answer."""
    ANSWER_BY.set(time.monotonic() + ANSWER_SECONDS)
    found = compute(state)
    return (write_sheet(found) if as_csv else json.dumps(found, ensure_ascii=False, separators=(",", ":"))).encode()
