"""The job under its highest steady load for 20 minutes: `make bench-soak`.

Finds the highest rate first, in steps: the job holds a rate when, at the end of a step, less than five seconds of the
stream are in the last batch or behind it. Generator, broker and job share this machine. Then it runs four fifths of
that rate and looks every few seconds at the memory of the job's two processes, the rows of its state, its backlog, and
the size and number of files of its checkpoint. Steady means: the last quarter looks like the second one.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kafka_broker import KafkaBroker
from machine import describe_machine
from uniques.times import parse_progress_time

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SPARK_SUBMIT = Path(sys.executable).parent / "spark-submit"
STEP_SECONDS = 30
SAMPLE_SECONDS = 5
# A batch that takes longer brings more; one that can't keep up grows and grows.
HELD_SECONDS = 5
HELD_SHARE = 0.95
# The topic keeps a few minutes only: 20 minutes of it would fill a disk.
RETENTION = {"retention.bytes": str(2 * 1024**3), "segment.bytes": str(256 * 1024**2)}


@dataclass(frozen=True)
class Sample:
    """The job at one moment; sizes in MB."""

    seconds: float
    memory_mb: float
    state_rows: int
    backlog: int  # events of the last batch and behind it
    checkpoint_mb: float
    checkpoint_files: int


def read_memory(group: int) -> float:
    """Resident memory of all processes of a process group, MB."""
    kilobytes = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if os.getpgid(int(status.parent.name)) == group:
                found = re.search(r"VmRSS:\s+(\d+)", status.read_text())
                kilobytes += int(found[1]) if found else 0
    return kilobytes / 1024


def measure_folder(folder: Path) -> tuple[float, int]:
    """Size in MB and number of the files in a folder."""
    sizes = []
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                sizes.append((Path(path) / name).stat().st_size)
    return sum(sizes) / 1e6, len(sizes)


def read_batches(log: Path) -> list[dict[str, str]]:
    """The job's progress lines as `name=value`, and `time`, ISO 8601."""
    lines = [line.split(" |")[0].split() for line in log.read_text().splitlines() if " batch=" in line]
    return [dict(pair.split("=", 1) for pair in [f"time={words[0]}", *words[2:]]) for words in lines]


def read_rate(log: Path, seconds: float) -> float:
    """Events a second that the job read in the last seconds."""
    batches = read_batches(log)
    times = [parse_progress_time(batch["time"]) for batch in batches]
    since = max(times, default=0.0) - seconds
    return sum(int(batch["events"]) for batch, at in zip(batches, times, strict=True) if at > since) / seconds


def count_backlog(batch: dict[str, str]) -> int:
    """Events that a batch read, and those it left."""
    return int(batch.get("events", 0)) + int(batch.get("lag", 0))


def look_at(job: subprocess.Popen[bytes], log: Path, checkpoint: Path, started: float) -> Sample:
    """A sample of the running job."""
    batch = (read_batches(log) or [{}])[-1]
    size, files = measure_folder(checkpoint)
    return Sample(
        round(time.monotonic() - started, 1),
        round(read_memory(os.getpgid(job.pid))),
        int(batch.get("open_windows", 0)),
        count_backlog(batch),
        round(size, 2),
        files,
    )


@contextmanager
def loading(servers: str, rate: int, seconds: float, seed: int) -> Iterator[None]:
    """Generated events of 2 kB and of now, loaded at that rate meanwhile."""
    tools = ROOT / "tools"
    start, number = int(time.time()), int(rate * (seconds + 10))
    generate = [sys.executable, str(tools / "generate_events.py"), "--rate", str(rate), "--start", str(start)]
    generate += ["--events", str(number), "--seed", str(seed)]
    load = [sys.executable, str(tools / "load_events.py"), "--bootstrap-servers", servers, "--rate", str(rate)]
    with (
        subprocess.Popen(generate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as generator,
        subprocess.Popen(load, stdin=generator.stdout, stderr=subprocess.DEVNULL) as loader,
    ):
        try:
            yield
        finally:
            generator.terminate()
            loader.terminate()


def warm_up(servers: str, log: Path, rate: int) -> None:
    """Returns when the job has been running for a step."""
    with loading(servers, rate, 10 * STEP_SECONDS, rate):
        deadline = time.monotonic() + 8 * STEP_SECONDS
        while not read_batches(log) and time.monotonic() < deadline:
            time.sleep(1)
        time.sleep(STEP_SECONDS)


def find_rate(servers: str, log: Path, first: int, step: int) -> int:
    """The highest rate, events a second, in steps from `first`, that generator, broker and job hold."""
    rate = first
    while True:
        with loading(servers, rate, STEP_SECONDS, rate):
            time.sleep(STEP_SECONDS)
            backlog = count_backlog((read_batches(log) or [{}])[-1])
            read = read_rate(log, STEP_SECONDS / 2)
        held = backlog < HELD_SECONDS * rate and read > HELD_SHARE * rate
        print(f"rate {rate:,}/s: {'held' if held else 'not held'}, {read:,.0f}/s read, backlog {backlog:,}", flush=True)
        if not held:
            return rate - step
        rate += step


def print_report(samples: list[Sample], rate: int) -> None:
    """A line a figure: the second quarter beside the last, and the largest."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    print(f"{'':<24} {'2nd quarter':>12} {'last quarter':>12} {'largest':>12}")
    for name in ("memory_mb", "state_rows", "backlog", "checkpoint_mb", "checkpoint_files"):
        values = [[getattr(sample, name) for sample in part] for part in (early, late, samples)]
        print(
            f"{name.replace('_', ' '):<24} {statistics.median(values[0]):>12,.1f} "
            f"{statistics.median(values[1]):>12,.1f} {max(values[2]):>12,.1f}"
        )
    print(f"backlog at the end: {samples[-1].backlog / rate:.2f} s of the stream")


def draw(samples: list[Sample], rate: int, file: Path) -> None:
    """The samples over time, a panel each."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "unique-users"
    from matplotlib import pyplot

    minutes = [sample.seconds / 60 for sample in samples]
    names = {
        "memory_mb": "memory of the job, MB",
        "state_rows": "rows of state",
        "backlog": "backlog, events",
        "checkpoint_mb": "checkpoint, MB",
        "checkpoint_files": "checkpoint, files",
    }
    figure, panels = pyplot.subplots(len(names), 1, sharex=True, figsize=(8, 9), layout="constrained")
    for panel, (name, label) in zip(panels, names.items(), strict=True):
        values = [getattr(sample, name) for sample in samples]
        panel.plot(minutes, values, linewidth=1)
        panel.set_ylabel(label, fontsize=8)
        panel.set_ylim(0, 1.15 * max(values))
        panel.grid(alpha=0.3)
    panels[0].set_title(f"{rate:,} events/s of 2 kB")
    panels[-1].set_xlabel("minutes")
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    """Runs the soak and prints what it saw; status 1 when the job ended or fell behind."""
    parser = argparse.ArgumentParser(description="The job under its highest steady load.")
    parser.add_argument("--minutes", type=float, default=20, help="(default: %(default)s)")
    parser.add_argument("--rate", type=int, help="events a second (default: four fifths of the highest it holds)")
    parser.add_argument("--first-rate", type=int, default=10_000, help="of the search (default: %(default)s)")
    parser.add_argument("--step", type=int, default=5_000, help="of the search (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, SVG")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "soak.json", metavar="FILE", help="(%(default)s)")
    parser.add_argument("job", nargs="*", help="more flags for the job, behind --")
    args = parser.parse_args()
    print(f"machine: {describe_machine()}", flush=True)
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="soak-") as folder:
        servers = broker.bootstrap_servers
        broker.create_topic("in", 2, RETENTION)
        broker.create_topic("out")
        log, checkpoint = Path(folder) / "job.log", Path(folder) / "checkpoint"
        command = [str(SPARK_SUBMIT), "--conf", "spark.ui.enabled=false", str(ROOT / "jobs" / "unique_users.py")]
        command += ["--bootstrap-servers", servers, "--checkpoint-location", str(checkpoint), *args.job]
        with log.open("wb") as stderr:
            job = subprocess.Popen(command, stderr=stderr, stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            warm_up(servers, log, args.rate or args.first_rate)
            rate = args.rate or find_rate(servers, log, args.first_rate, args.step) * 4 // 5
            if rate <= 0:
                sys.exit("soak: error: the job does not hold the first rate: give a lower --first-rate")
            print(f"load: {rate:,} events/s of 2 kB, 2 partitions, {args.minutes:g} minutes", flush=True)
            samples: list[Sample] = []
            with loading(servers, rate, args.minutes * 60, 0):
                started = time.monotonic()
                while time.monotonic() - started < args.minutes * 60 and job.poll() is None:
                    time.sleep(SAMPLE_SECONDS)
                    samples.append(look_at(job, log, checkpoint, started))
            read = read_rate(log, args.minutes * 45)
            if job.poll() is not None:
                sys.exit(f"soak: error: the job ended: {log.read_text().splitlines()[-1]}")
        finally:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
    print(f"read in the last three quarters: {read:,.0f} events/s")
    print_report(samples, rate)
    args.json.parent.mkdir(parents=True, exist_ok=True)
    report = {"machine": describe_machine(), "rate": rate, "samples": [asdict(sample) for sample in samples]}
    args.json.write_text(json.dumps(report) + "\n")
    if args.plot:
        draw(samples, rate, args.plot)
    if samples[-1].backlog > HELD_SECONDS * rate:
        sys.exit("soak: the job fell behind")


if __name__ == "__main__":
    main()
