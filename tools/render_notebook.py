"""Executes the notebook of the documentation, and writes it with its output for the site: `make docs`.

Reads docs/start/notebook.py (jupytext's percent format), writes build/notebook/notebook.md and a file for each picture.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "start" / "notebook.py"
FOLDER = ROOT / "build" / "notebook"
TIMEOUT_SECONDS = 300


def main() -> None:
    """Command line."""
    argparse.ArgumentParser(description="Executes the notebook, and writes build/notebook/.").parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    for old in FOLDER.iterdir():
        old.unlink()
    (FOLDER / "notebook.md").write_text(render_notebook(execute_notebook(), FOLDER))


def execute_notebook(path: Path = NOTEBOOK) -> Any:
    """The notebook with the output of every cell; raises CellExecutionError when one fails."""
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=TIMEOUT_SECONDS, resources={"metadata": {"path": str(ROOT)}}).execute()
    return notebook


def render_notebook(notebook: Any, folder: Path) -> str:
    """An executed notebook as Markdown; pictures are written into the folder."""
    parts = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        else:
            parts.append(f"```python\n{cell.source}\n```")
            parts += render_outputs(cell.outputs, folder, f"notebook-{number}")
    return "\n\n".join(parts) + "\n"


def render_outputs(outputs: list[Any], folder: Path, name: str) -> list[str]:
    """What a cell printed or drew; what it wrote to standard error is left out, because Spark warns there."""
    parts = []
    for number, output in enumerate(outputs):
        data = output.get("data", {})
        if output.get("name") == "stdout":
            parts.append(f"```text\n{output.text.strip()}\n```")
        elif "image/svg+xml" in data:
            picture = folder / f"{name}-{number}.svg"
            picture.write_text(data["image/svg+xml"])
            parts.append(f"![Plot]({picture.name})")
        elif "text/plain" in data:
            parts.append(f"```text\n{data['text/plain']}\n```")
    return parts


if __name__ == "__main__":
    main()
