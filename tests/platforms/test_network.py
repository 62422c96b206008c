"""Who can reach what: Spark's web UI, the driver, and the traffic between driver and executors, in real sessions."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from support import ROOT, plain_environment

if TYPE_CHECKING:
    from collections.abc import Iterator


# Linux answers on all of 127.0.0.0/8: a second address for a driver that others must reach.
OTHER = "127.0.0.2"

# Counts on executors, says where it listens, and waits.
PROGRAM = """\
import json, sys
from pyspark.sql import SparkSession
session = SparkSession.builder.config(map=json.loads(sys.argv[1])).getOrCreate()
count = session.range(1000).repartition(3).count()
conf = session.sparkContext.getConf()
ui = int(session.sparkContext.uiWebUrl.rpartition(":")[2])
print(json.dumps({"count": count, "ui": ui, "driver": int(conf.get("spark.driver.port")),
                  "kill": conf.get("spark.ui.killEnabled")}), flush=True)
sys.stdin.read()
session.stop()
"""


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts a session with the files of `conf/`, these settings and this environment; returns what it says."""
    started: list[subprocess.Popen[str]] = []

    def start(settings: dict[str, str], **environment: str) -> dict[str, Any]:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, json.dumps({"spark.ui.port": "0", **settings})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**plain_environment(), "SPARK_CONF_DIR": str(ROOT / "conf"), **environment},
        )
        started.append(process)
        assert process.stdout is not None
        said: dict[str, Any] = json.loads(process.stdout.readline())
        return said

    yield start
    for process in started:
        process.communicate("")


def listening_addresses(port: int) -> set[str]:
    """The IPv4 addresses, as the kernel lists them, on which something listens on `port`."""
    found = set()
    for table in ("tcp", "tcp6"):
        with open(f"/proc/net/{table}") as lines:  # noqa: PTH123 - the kernel's, not a file of the project
            for line in lines.readlines()[1:]:
                address, state = line.split()[1], line.split()[3]
                host, _, number = address.partition(":")
                if state == "0A" and int(number, 16) == port:
                    # The last four bytes are the IPv4 address, in the byte order of the machine.
                    found.add(".".join(str(byte) for byte in reversed(bytes.fromhex(host[-8:]))))
    return found


def kubernetes_settings() -> dict[str, str]:
    """What conf/spark-application.yaml says about Spark's own traffic and its UI."""
    settings: dict[str, str] = yaml.safe_load((ROOT / "conf" / "spark-application.yaml").read_text())["spec"][
        "sparkConf"
    ]
    about = ("spark.authenticate", "spark.network.", "spark.io.", "spark.ui.")
    return {name: value for name, value in settings.items() if name.startswith(about)}


@pytest.mark.timeout(300)
def test_the_ui_is_on_loopback_while_the_driver_is_where_executors_reach_it(start: Any) -> None:
    settings = {
        **kubernetes_settings(),
        # A worker and an executor in processes of their own. Kubernetes makes the secret itself.
        "spark.master": "local-cluster[1,1,1024]",
        "spark.executor.memory": "512m",
        "spark.authenticate.secret": "of this test",
        "spark.driver.host": OTHER,
        "spark.driver.bindAddress": OTHER,
    }
    said = start(settings, SPARK_LOCAL_IP="127.0.0.1")
    assert said["count"] == 1000
    assert listening_addresses(said["ui"]) == {"127.0.0.1"}
    assert listening_addresses(said["driver"]) == {OTHER}


def test_the_ui_of_our_settings_is_on_loopback_and_kills_no_job(start: Any) -> None:
    said = start({"spark.master": "local[1]"}, SPARK_LOCAL_IP="127.0.0.1")
    assert listening_addresses(said["ui"]) == {"127.0.0.1"}
    assert said["kill"] == "false"


def test_without_that_setting_spark_listens_on_every_interface(start: Any) -> None:
    # Why the image and make install set SPARK_LOCAL_IP: spark.driver.bindAddress does not reach the UI.
    said = start({"spark.master": "local[1]", "spark.driver.bindAddress": "127.0.0.1"})
    assert listening_addresses(said["ui"]) == {"0.0.0.0"}
    assert listening_addresses(said["driver"]) == {"127.0.0.1"}
