"""Whether the job in this container is healthy: exit status 0, or 1 with one line that says why not.

Health follows what was started:

- The process of the job must run. It must not be a zombie, and not be stopped by a signal.
- A stream that was started with `--metrics-port` must answer there, and its query must have shown a sign of life within
  HEALTH_MAX_SILENCE_SECONDS (environment; default 1800). A batch that ends and a trigger that finds no new records are
  signs of life. So a batch may take half an hour before the container is unhealthy.
- For `--backfill`, `--input` and the modes of the rollup job that end by themselves only the process is checked: their
  query runs for a part of the time, or there is none.
- A container that runs no job, such as an executor or a shell, is healthy.
"""

from __future__ import annotations

import http.client
import os
import re
import sys
import time
import urllib.request
from itertools import pairwise
from pathlib import Path

HOME = Path("/opt/unique-users")
JOBS = ("unique_users", "rollup_users")
SIGN = re.compile(r"^(?:unique|rollup)_users_last_progress_timestamp_seconds (\S+)$", re.MULTILINE)
# Modes without a query, or with a query for a part of the time.
NO_QUERY = {"--backfill", "--input", "--show", "--between", "--rebuild"}
# The second field of /proc/PID/stat, the name, may hold spaces and parentheses; the state follows its last one.
STATE = re.compile(r".*\) (\S)", re.DOTALL)
NOT_RUNNING = {"Z", "X", "T", "t"}
MAX_SILENCE_SECONDS = 1800.0
ANSWER_SECONDS = 4.0


def list_processes() -> list[list[str]]:
    """The command lines of all processes that can run."""
    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = STATE.match((folder / "stat").read_text(errors="replace"))
            command = (folder / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").split("\0")
        except OSError:  # it has ended
            continue
        if state and state[1] not in NOT_RUNNING and command != [""]:
            processes.append(command)
    return processes


def was_job_started(processes: list[list[str]], home: Path) -> bool:
    """Whether a process says that this container was asked for a job: the entrypoint's arguments, or the script."""
    scripts = {f"{home}/jobs/{job}.py" for job in JOBS}
    names = {job.replace("_", "-") for job in JOBS}
    for command in processes:
        if scripts & set(command):
            return True
        for entrypoint, argument in pairwise(command):
            if entrypoint == f"{home}/entrypoint.sh" and argument in names:
                return True
    return False


def find_flags(processes: list[list[str]], home: Path) -> list[str] | None:
    """The flags of the running job; None when no Python process runs it."""
    scripts = {f"{home}/jobs/{job}.py" for job in JOBS}
    for command in processes:
        # The Java process that starts it names the script too, later in its command line.
        if len(command) > 1 and command[1] in scripts and Path(command[0]).name.startswith("python"):
            return command[2:]
    return None


def find_metrics_url(flags: list[str]) -> str | None:
    """Where the job serves its metrics, seen from inside the container; None when it does not."""
    for flag, value in pairwise([*flags, ""]):
        name, equals, given = flag.partition("=")
        if name == "--metrics-port":
            host, _, port = (given if equals else value).rpartition(":")
            # An address that stands for every interface can't be connected to.
            host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
            return f"http://{host}:{port}/metrics"
    return None


def find_problem(home: Path, max_silence_seconds: float) -> str | None:
    """Why the job whose files are in `home` is not healthy, in one line; None when it is."""
    processes = list_processes()
    if not was_job_started(processes, home):
        return None
    flags = find_flags(processes, home)
    if flags is None:
        return "no process of the job runs"
    url = find_metrics_url(flags)
    if url is None or NO_QUERY & {flag.partition("=")[0] for flag in flags}:
        return None
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 - http only
            sign = SIGN.search(answer.read().decode())
    except (OSError, http.client.HTTPException) as error:
        return f"{url} does not answer: {error}"
    if sign is None:
        return f"{url} does not say when the query last made progress"
    silence = time.time() - float(sign[1])
    if silence > max_silence_seconds:
        return f"no batch ended for {silence:.0f} s; allowed are {max_silence_seconds:.0f} s"
    return None


def main() -> None:
    """Ends with status 1 and one line when the job is not healthy."""
    given = os.environ.get("HEALTH_MAX_SILENCE_SECONDS", str(MAX_SILENCE_SECONDS))
    try:
        max_silence_seconds = float(given)
    except ValueError:
        sys.exit(f"unhealthy: HEALTH_MAX_SILENCE_SECONDS={given!r} is not allowed: give a number of seconds")
    problem = find_problem(HOME, max_silence_seconds)
    if problem:
        sys.exit(f"unhealthy: {problem}")


if __name__ == "__main__":
    main()
