"""The machine a benchmark ran on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pyspark


def describe_machine() -> str:
    """Processor, cores and versions, in one line."""
    model = "unknown processor"
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, Python {platform.python_version()}, Spark {pyspark.__version__}"
