"""The documentation as readers get it: the notebook runs, and the site needs nobody else's server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from render_notebook import execute_notebook, render_notebook
from support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)  # the notebook starts Spark in a process of its own


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The executed notebook as Markdown, and the folder of its pictures."""
    folder = tmp_path_factory.mktemp("notebook")
    return render_notebook(execute_notebook(), folder), folder


@pytest.fixture(scope="module")
def site(notebook: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; what MkDocs warns of is an error."""
    text, folder = notebook
    (folder / "notebook.md").write_text(text)
    target = tmp_path_factory.mktemp("site")
    built = build_site(folder, target)
    assert built.returncode == 0, built.stderr
    return target


def build_site(notebook: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """Builds the site into a folder, with the notebook from another."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)]
    command += ["--config-file", str(ROOT / "docs" / "site" / "mkdocs.yml")]
    environment = {**os.environ, "NOTEBOOK": str(notebook), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_notebook_counts_and_draws(notebook: tuple[str, Path]) -> None:
    text, folder = notebook
    # ann and ben in the first minute, ann and cid in the second: three in both.
    assert re.search(r"\|2016-07-11 13:39:00\|2016-07-11 13:40:00\|2 +\|3 +\|", text)
    assert re.search(r"\|2016-07-11 13:40:00\|2016-07-11 13:41:00\|2 +\|2 +\|", text)
    assert re.search(r"\| +4\| +3\|", text)
    assert {"bad_ts", "missing_uid", "not_json"} <= set(re.findall(r"\|(\w+) *\|$", text, re.MULTILINE))
    pictures = re.findall(r"!\[Plot\]\((.+)\)", text)
    assert len(pictures) == 5
    assert all((folder / picture).read_text().lstrip().startswith("<?xml") for picture in pictures)


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text()
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(\S+)", text)
        loaded += re.findall(r"<link\b[^>]*rel=\"?(?:stylesheet|icon|preconnect|preload)\b[^>]*", text)
        assert not [tag for tag in loaded if "//" in tag], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", style.read_text()), style


def test_the_search_finds_every_page(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {document["location"].partition("#")[0] for document in index["docs"]}
    assert {str(page.relative_to(site)) for page in site.rglob("*.html")} - {"404.html"} <= found


def test_the_report_and_the_changelog_are_shown_as_they_are(site: Path) -> None:
    assert "Core time an event" in (site / "performance" / "report.html").read_text()
    assert (site / "performance" / "plots" / "throughput.svg").exists()
    assert "Keep a Changelog" in (site / "develop" / "changelog.html").read_text()


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    (tmp_path / "notebook.md").write_text("# Notebook\n\n[gone](gone.md), [no anchor](demo.md#nowhere)\n")
    built = build_site(tmp_path, tmp_path / "site")
    assert built.returncode != 0
    assert "'gone.md'" in built.stderr
    assert "'demo.md#nowhere'" in built.stderr
