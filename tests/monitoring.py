"""What the dashboard and the alerts in docker/monitoring/ ask Prometheus for."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from support import ROOT

MONITORING = ROOT / "docker" / "monitoring"
# A name that is no function (no parenthesis follows), no label, no keyword and no string.
METRIC = re.compile(r"\b(?:up|[a-z]+(?:_[A-Za-z0-9]+)+)\b(?!\s*\()")


def read_dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    dashboard: dict[str, Any] = json.loads((MONITORING / "dashboards" / "unique_users.json").read_text())
    return dashboard


def read_rules() -> list[dict[str, Any]]:
    """The alert rules."""
    (group,) = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def read_expressions() -> list[str]:
    """PromQL of all panels and rules, with Grafana's variables as they are when it asks."""
    panels = [target["expr"] for panel in read_dashboard()["panels"] for target in panel["targets"]]
    texts = panels + [rule["expr"] for rule in read_rules()]
    return [text.replace("$__rate_interval", "1m").replace("$job", "unique-users") for text in texts]
