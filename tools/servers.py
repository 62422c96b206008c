"""Servers that tests and demos start on this machine: context managers that start them and stop them."""

from __future__ import annotations

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

STOP_TIMEOUT_SECONDS = 20.0
Self = TypeVar("Self", bound="Started")


class Started(ABC):
    """What is started when a `with` block begins, and is gone when it ends, also when the start fails."""

    @abstractmethod
    def start(self) -> None:
        """Starts it; returns when it answers."""

    @abstractmethod
    def clean(self) -> None:
        """Stops it, and removes what it left."""

    def __enter__(self: Self) -> Self:
        """Starts it."""
        try:
            self.start()
        except BaseException:
            self.clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it, and removes what it left."""
        self.clean()


class Server(Started):
    """One process. After `stop()` or `kill()` it may `start()` again; `pause()` lets it hang until `resume()`."""

    # How its errors name it, and their class.
    title: ClassVar[str]
    error: ClassVar[type[Exception]]

    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Process id of the running server; raises its error when it does not run."""
        if self.process is None:
            raise self.error(f"{self.title} is not running")
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether its process is there; a paused one is."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """Lets it shut down; does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kills it with SIGKILL, like a crash."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stops its process where it is, like a machine that hangs: it accepts connections and answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets it go on after `pause`."""
        os.kill(self.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)  # a paused one would not end by SIGTERM
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
