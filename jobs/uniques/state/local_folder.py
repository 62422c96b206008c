"""A folder of small text files on a disk of the driver, by Python itself."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uniques.state.folder import explain, is_seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class LocalFolder:
    """A folder on a disk of the driver."""

    def __init__(self, path: Path) -> None:
        """`path` need not exist."""
        self._path = path

    def read(self, name: str) -> str | None:
        """See Folder."""
        path = self._path / name
        with explain(str(path), "read"):
            try:
                return path.read_bytes().decode(errors="replace")
            except FileNotFoundError:
                return None
            except IsADirectoryError:
                parts = [part.read_bytes() for part in sorted(path.iterdir()) if is_seen(part.name)]
                return b"".join(parts).decode(errors="replace") if parts else None

    def write(self, name: str, text: str) -> None:
        """See Folder."""
        path = self._path / name
        with explain(str(path), "written"), self._completed(text) as complete:
            if path.is_dir():
                shutil.rmtree(path)
            complete.replace(path)

    def create(self, name: str, text: str) -> None:
        """See Folder; of two that create the same file at once, one gets the error."""
        path = self._path / name
        with explain(str(path), "written"), self._completed(text) as complete:
            try:
                os.link(complete, path)  # unlike a rename it never replaces
            except FileExistsError:
                raise
            except OSError:  # some file systems have no links
                with path.open("xb") as file:
                    file.write(text.encode())

    def add(self, text: str) -> None:
        """See Folder."""
        self.write(f"{uuid.uuid4().hex}.txt", text)

    def list_names(self) -> list[str]:
        """See Folder."""
        with explain(str(self._path), "read"):
            try:
                return sorted(name for name in (path.name for path in self._path.iterdir()) if is_seen(name))
            except FileNotFoundError:
                return []

    def delete(self, name: str) -> None:
        """See Folder."""
        path = self._path / name
        with explain(str(path), "deleted"):
            try:
                path.unlink(missing_ok=True)
            except (IsADirectoryError, PermissionError):
                if not path.is_dir():
                    raise
                shutil.rmtree(path)

    def make(self) -> None:
        """See Folder."""
        with explain(str(self._path), "made"):
            self._path.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def _completed(self, text: str) -> Iterator[Path]:
        """A file with the text, on the disk already, that is not seen; deleted in the end, if it is still there."""
        path = self._path / f".{uuid.uuid4().hex}.tmp"
        try:
            file = path.open("xb")
        except FileNotFoundError:
            self._path.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        try:
            with file:
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())  # a power cut must not leave an empty file under the final name
            yield path
        finally:
            path.unlink(missing_ok=True)
