"""The workflows run actions that nobody can change behind their names."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

GITHUB = Path(__file__).resolve().parents[2] / ".github"
PINNED = re.compile(r"^[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")


def test_every_action_is_pinned_by_its_commit_with_the_version_behind_it() -> None:
    used = [
        line.partition("uses:")[2].strip()
        for workflow in sorted((GITHUB / "workflows").glob("*.y*ml"))
        for line in workflow.read_text().splitlines()
        if re.match(r"\s*(- )?uses:", line)
    ]
    assert used
    assert [action for action in used if not PINNED.match(action)] == []


def test_dependabot_watches_them() -> None:
    updates = yaml.safe_load((GITHUB / "dependabot.yml").read_text())["updates"]
    assert "github-actions" in {update["package-ecosystem"] for update in updates}
