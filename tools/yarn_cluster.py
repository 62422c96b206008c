"""Runs Hadoop's own YARN on this machine: a ResourceManager and a NodeManager, Java processes that listen on 127.0.0.1.

Tests use it as a context manager; the first use downloads Hadoop's jars into the project's cache:

    with YarnCluster(folder) as cluster:
        subprocess.run(["spark-submit", "--master", "yarn", …], env={**os.environ, **cluster.environment})
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from install_spark import fetch_jars
from kafka_broker import find_free_port
from packages import YARN_JARS, YARN_PACKAGES
from servers import Started

START_TIMEOUT_SECONDS = 180.0
RESOURCE_MANAGER = "org.apache.hadoop.yarn.server.resourcemanager.ResourceManager"
NODE_MANAGER = "org.apache.hadoop.yarn.server.nodemanager.NodeManager"
# What Hadoop's start scripts give to Java 17.
JAVA_OPTIONS = [
    "-Xmx256m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
]


class YarnError(Exception):
    """YARN can't be started, or is not ready in time; the message is one line."""


class YarnCluster(Started):
    """A ResourceManager and a NodeManager; a context manager that starts both, and stops them and their containers.

    Everything is in `folder`. `settings` are added to yarn-site.xml.
    """

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        """Chooses the ports, writes the configuration, and starts nothing yet."""
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        manager = "yarn.resourcemanager"
        names = ["address", "scheduler.address", "resource-tracker.address", "admin.address", "webapp.address"]
        addresses = {f"{manager}.{name}": f"127.0.0.1:{find_free_port()}" for name in names}
        names = ["address", "localizer.address", "webapp.address"]
        addresses |= {f"yarn.nodemanager.{name}": f"127.0.0.1:{find_free_port()}" for name in names}
        self._web = addresses[f"{manager}.webapp.address"]
        self._conf = folder / "conf"
        self._conf.mkdir(parents=True)
        self._write("core-site.xml", {"fs.defaultFS": "file:///", "hadoop.tmp.dir": str(folder / "tmp")})
        queues = "yarn.scheduler.capacity.root"
        self._write(
            "capacity-scheduler.xml",
            {
                f"{queues}.queues": "default",
                f"{queues}.default.capacity": "100",
                "yarn.scheduler.capacity.maximum-am-resource-percent": "1",
            },
        )
        self._write(
            "yarn-site.xml",
            {
                **addresses,
                f"{manager}.hostname": "127.0.0.1",
                f"{manager}.webapp.cross-origin.enabled": "false",
                "yarn.nodemanager.hostname": "127.0.0.1",
                "yarn.nodemanager.local-dirs": str(folder / "local"),
                "yarn.nodemanager.log-dirs": str(folder / "logs"),
                "yarn.nodemanager.resource.memory-mb": "16384",
                "yarn.nodemanager.resource.cpu-vcores": "4",
                "yarn.nodemanager.vmem-check-enabled": "false",
                # A disk that is nearly full is no reason to refuse containers.
                "yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage": "100",
                "yarn.log-aggregation-enable": "true",
                "yarn.nodemanager.remote-app-log-dir": str(folder / "aggregated"),
                "yarn.nodemanager.env-whitelist": "JAVA_HOME",
                **(settings or {}),
            },
        )

    @property
    def environment(self) -> dict[str, str]:
        """What spark-submit and Hadoop's programs need to find the cluster."""
        # Containers start Java from JAVA_HOME alone.
        home = os.environ.get("JAVA_HOME") or str(Path(shutil.which("java") or "/").resolve().parents[1])
        return {"HADOOP_CONF_DIR": str(self._conf), "YARN_CONF_DIR": str(self._conf), "JAVA_HOME": home}

    def _write(self, name: str, settings: dict[str, str]) -> None:
        rows = [
            f"<property><name>{name}</name><value>{escape(value)}</value></property>"
            for name, value in settings.items()
        ]
        (self._conf / name).write_text("<configuration>\n" + "\n".join(rows) + "\n</configuration>\n")

    def start(self) -> None:
        """Returns when the NodeManager is ready; raises YarnError when one of the two ends, or takes too long."""
        fetch_jars(YARN_PACKAGES, YARN_JARS)
        (self._conf / "log4j.properties").write_text(
            "log4j.rootLogger=INFO,console\nlog4j.appender.console=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.console.target=System.err\nlog4j.appender.console.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.console.layout.ConversionPattern=%d{ISO8601} %p %c: %m%n\n"
        )
        for name in (RESOURCE_MANAGER, NODE_MANAGER):
            with self.log(name).open("wb") as log:
                process = subprocess.Popen(
                    ["java", *JAVA_OPTIONS, "-cp", f"{self._conf}:{YARN_JARS}/*", name],
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self._folder,
                    env={**os.environ, **self.environment},
                    start_new_session=True,
                )
            self._processes.append(process)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self._count_nodes() == 0:
            ended = [each for each in self._processes if each.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise YarnError(f"YARN is not ready: see {self._folder}/*.log")
            time.sleep(0.2)

    def log(self, name: str) -> Path:
        """The log of one of the two."""
        return self._folder / f"{name.rpartition('.')[2]}.log"

    def _count_nodes(self) -> int:
        with suppress(OSError):
            return int(self.ask("metrics")["clusterMetrics"]["activeNodes"])
        return 0

    def ask(self, path: str) -> Any:
        """An answer of the ResourceManager's REST service: `apps/APPLICATION`, for example."""
        with urllib.request.urlopen(f"http://{self._web}/ws/v1/cluster/{path}", timeout=30) as answer:
            return json.load(answer)

    def find_containers(self, program: str = "", word: str = "") -> list[int]:
        """The processes in containers of this cluster that run a program, and have a word in their command line."""
        found = []
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                pid = int(folder.name)
                if (folder / "cwd").readlink().is_relative_to(self._folder / "local"):
                    started, *words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    if program in started.rpartition("/")[2] and word in " ".join(words):
                        found.append(pid)
        return found

    def kill_application(self, application: str) -> None:
        """What `yarn application -kill` does."""
        self._run("ApplicationCLI", "application", "-kill", application)

    def read_logs(self, application: str) -> str:
        """What `yarn logs -applicationId` prints: the logs of all containers of an application that has ended."""
        return self._run("LogsCLI", "-applicationId", application)

    def _run(self, program: str, *arguments: str) -> str:
        # Hadoop's client, as the command `yarn` starts it.
        command = ["java", *JAVA_OPTIONS, "-cp", f"{self._conf}:{YARN_JARS}/*"]
        done = subprocess.run(
            [*command, f"org.apache.hadoop.yarn.client.cli.{program}", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **self.environment},
            check=False,
        )
        if done.returncode != 0:
            raise YarnError(f"{program} {' '.join(arguments)}: {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        return done.stdout

    def clean(self) -> None:
        """Stops both, and what still runs in containers."""
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()
        for pid in self.find_containers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
