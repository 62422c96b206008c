"""Go, where it is there: it builds the programs that the optional suites need."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def find_go(what: str, version: str, error: type[Exception]) -> str:
    """The path of Go, `version` or newer, which builds `what`; raises `error`, one line, when there is none."""
    found = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if found is None:
        raise error(f"Go is not there, which builds {what}: install Go {version} or newer (https://go.dev/dl)")
    return found


def run_go(
    go: str,
    *arguments: str,
    error: type[Exception],
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> str:
    """What a command of Go's prints; raises `error` with the last line of what it says when it fails."""
    done = subprocess.run(
        [go, *arguments],
        cwd=folder,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [done.stdout.strip() or "it printed nothing"]
        raise error(f"go {' '.join(arguments[:2])} failed: {said[-1]}")
    return done.stdout
