"""What MkDocs does to the pages here beyond its own: files from elsewhere in the project become part of the site.

- A page may include a file: what stands between `<!-- include PATH -->` and `<!-- end -->`, a link for readers on the
  forge, is replaced by the file, without its first heading. PATH is relative to the project.
- The plots of `benchmarks/` and of the executed notebook are added; links to them are turned to where they are then.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# Where `tools/render_notebook.py` leaves it; tests have a folder of their own.
NOTEBOOK = Path(os.environ.get("NOTEBOOK", ROOT / "build" / "notebook"))
INCLUDE = re.compile(r"<!-- include (\S+) -->.*?<!-- end -->", re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the plots of the benchmarks and of the notebook."""
    added = {f"performance/{path.name}": path for path in (ROOT / "benchmarks").glob("*.svg")}
    added |= {f"performance/plots/{path.name}": path for path in (ROOT / "benchmarks" / "plots").glob("*.svg")}
    added |= {f"start/{path.name}": path for path in NOTEBOOK.glob("*.svg")}
    for uri, path in added.items():
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Includes files, and turns links to plots."""
    included = INCLUDE.sub(lambda found: read_body(found[1]), markdown)
    plots = posixpath.relpath("performance", posixpath.dirname(page.file.src_uri) or ".")
    return included.replace("](../../benchmarks/", f"]({plots}/")


def read_body(name: str) -> str:
    """A Markdown file of the project without its first heading; raises PluginError, one line, when it is missing."""
    path = NOTEBOOK / "notebook.md" if name == "build/notebook/notebook.md" else ROOT / name
    if not path.exists():
        raise PluginError(f"{name} is missing: build the site with `make docs`, which makes it")
    return re.sub(r"\A# .*\n+", "", path.read_text())
