"""`make live`: everything together, from an event to the page, and Ctrl-C."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from support import ROOT, find_group, plain_environment, wait_until


@pytest.mark.slow
def test_one_command_shows_a_page_that_moves_and_stops_with_ctrl_c(tmp_path: Path) -> None:
    log = tmp_path / "live.log"
    environment = {**plain_environment(), "TMPDIR": str(tmp_path), "PYTHONPATH": f"{ROOT}/service:{ROOT}/jobs"}
    with log.open("wb") as out:
        live = subprocess.Popen(
            [sys.executable, "tools/run_live.py", "--rate", "50"],
            cwd=ROOT,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        wait_until(lambda: "it moves" in log.read_text(), lambda: live.poll() is None)
        address = re.findall(r"it moves: (\S+)", log.read_text())[0]

        def newest() -> int:
            answer = httpx.get(f"{address}/v1/accounting", timeout=30).json()
            return int((answer["job"] or {"events": {"read": 0}})["events"]["read"])

        wait_until(lambda: newest() > 0, lambda: live.poll() is None)
        before = newest()
        wait_until(lambda: newest() > before, lambda: live.poll() is None)
        with httpx.stream("GET", f"{address}/v1/live", timeout=60) as stream:
            lines = (line for line in stream.iter_lines() if line.startswith("data: "))
            assert next(lines) != next(lines)
        folders = list(tmp_path.glob("unique-users-*"))
        assert len(folders) == 1
    finally:
        os.kill(live.pid, signal.SIGINT)
        status = live.wait(120)
    assert status == 0
    assert log.read_text().rstrip().endswith("live: stopped")
    deadline = time.monotonic() + 30
    while find_group(live.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not list(tmp_path.glob("unique-users-*"))
    assert not [line for line in list_commands() if str(tmp_path) in line]


def list_commands() -> list[str]:
    """The command lines of all processes."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue
    return found
