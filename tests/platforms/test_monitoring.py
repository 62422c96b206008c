"""Dashboard, alerts and Prometheus settings: through their vendors' own checkers, and on a running job."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from generate_events import Settings, generate_events
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from kafka_broker import find_free_port
from load_events import load_lines
from monitoring import MONITORING, read_dashboard, read_expressions
from support import ROOT, SPARK_SUBMIT, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kafka_broker import KafkaBroker

DEADLINE_SECONDS = 90.0
# The settings of this checkout, whatever is linked into the installed Spark.
MY_CONF = {"SPARK_CONF_DIR": str(ROOT / "conf"), "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}
needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("prometheus")), reason="no prometheus and promtool on PATH"
)


def promtool(*arguments: str | Path) -> None:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_promtool_accepts_settings_rules_and_every_panel(tmp_path: Path) -> None:
    promtool("check", "config", MONITORING / "prometheus.yml")
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(read_expressions())]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", tmp_path / "panels.yml")


@needs_prometheus
def test_each_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", ROOT / "tests" / "platforms" / "alerts_test.yml")
    tested = yaml.safe_load((ROOT / "tests" / "platforms" / "alerts_test.yml").read_text())["tests"]
    fired = {case["alertname"] for test in tested for case in test["alert_rule_test"] if case["exp_alerts"]}
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    assert fired == {rule["alert"] for rule in group["rules"]}


def test_grafanas_own_types_know_every_field_of_the_dashboard() -> None:
    plugins.register_default_plugins()
    written = read_dashboard()
    understood = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    assert_contains(understood, written)
    assert len({panel["id"] for panel in written["panels"]}) == len(written["panels"])


def assert_contains(whole: Any, part: Any, path: str = "") -> None:
    """Whatever is in `part` is in `whole`, at the same place."""
    if isinstance(part, dict):
        for name, value in part.items():
            assert name in whole, f"{path}/{name} is unknown"
            assert_contains(whole[name], value, f"{path}/{name}")
    elif isinstance(part, list):
        assert len(whole) == len(part), path
        for index, value in enumerate(part):
            assert_contains(whole[index], value, f"{path}/{index}")
    else:
        assert whole == part, path


@needs_prometheus
def test_every_panel_and_rule_finds_its_metrics_in_a_running_job(
    broker: KafkaBroker, new_topic: Callable[..., str], tmp_path: Path
) -> None:
    source, sink = new_topic("in", 2), new_topic("out")
    start = int(time.time()) - 150
    events = generate_events(Settings(events=6_000, rate=40, size=200, users=500, malformed=0.02, start=start))
    load_lines((event.line for event in events), broker.bootstrap_servers, source)
    metrics, ui, web = find_free_port(), find_free_port(), find_free_port()
    job = subprocess.Popen(
        [
            *(str(SPARK_SUBMIT), "--conf", f"spark.ui.port={ui}", str(ROOT / "jobs" / "unique_users.py")),
            *("--bootstrap-servers", broker.bootstrap_servers, "--input-topic", source, "--output-topic", sink),
            *("--checkpoint-location", str(tmp_path / "checkpoint"), "--max-offsets-per-trigger", "500"),
            *("--max-future", "1 hour", "--metrics-port", f"127.0.0.1:{metrics}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**plain_environment(), **MY_CONF},
        start_new_session=True,
    )
    settings = (MONITORING / "prometheus.yml").read_text()
    settings = settings.replace("unique-users:9108", f"127.0.0.1:{metrics}").replace(
        "unique-users:4040", f"127.0.0.1:{ui}"
    )
    (tmp_path / "prometheus.yml").write_text(settings.replace(": 5s", ": 1s"))
    shutil.copy(MONITORING / "alerts.yml", tmp_path)
    prometheus = subprocess.Popen(
        [
            *("prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb"),
            f"--web.listen-address=127.0.0.1:{web}",
        ],
        stderr=subprocess.DEVNULL,
    )
    panels = read_expressions()[: sum(len(panel["targets"]) for panel in read_dashboard()["panels"])]
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        silent = panels
        while silent and time.monotonic() < deadline:
            time.sleep(2)
            silent = [text for text in silent if not query(web, text)]
        assert silent == []
    finally:
        prometheus.terminate()
        prometheus.wait()
        os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def query(port: int, expression: str) -> list[Any]:
    """What Prometheus answers; nothing as long as it is not up."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            result: list[Any] = json.load(answer)["data"]["result"]
            return result
    except OSError:
        return []
