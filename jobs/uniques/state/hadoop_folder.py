"""A folder of small text files on any file system that Hadoop knows, by Hadoop in the driver's JVM."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JJavaError

from uniques.errors import JobError
from uniques.state.folder import explain, is_missing, is_seen, java_class

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Here a file is seen once it is complete, and a rename would copy it.
OBJECT_STORES = {"s3", "s3a", "s3n", "gs", "oss", "obs", "cosn"}


class HadoopFolder:
    """A folder on any file system that Hadoop knows."""

    def __init__(self, spark: SparkSession, jvm: Any, location: str) -> None:
        """Raises what Java raises when there is no such file system, or it can't be reached."""
        self._jvm = jvm
        path = self._jvm.org.apache.hadoop.fs.Path(location)
        self._files: Any = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
        self._path: Any = self._files.makeQualified(path)
        self.scheme: str = self._files.getUri().getScheme()

    def uri(self) -> str:
        """The path with its scheme, encoded as Spark keeps it."""
        uri: str = self._path.toUri().toString()
        return uri

    def local_path(self) -> Path:
        """The path without its scheme."""
        return Path(self._path.toUri().getPath())

    def read(self, name: str) -> str | None:
        """See Folder."""
        path = self._child(name)
        with explain(str(path), "read"):
            try:
                parts = [path]
                if self._files.getFileStatus(path).isDirectory():
                    statuses = self._files.listStatus(path)
                    parts = [status.getPath() for status in statuses if is_seen(status.getPath().getName())]
            except Py4JJavaError as error:
                if is_missing(error):
                    return None
                raise
            content = b"".join(self._read_bytes(part) for part in parts)
            return content.decode(errors="replace") if parts else None

    def read_bytes(self, name: str) -> bytes:
        """The content of a file, compared with its checksum, where there is one; raises what Java raises."""
        return self._read_bytes(self._child(name))

    def write(self, name: str, text: str) -> None:
        """See Folder."""
        path = self._child(name)
        with explain(str(path), "written"):
            if self.scheme in OBJECT_STORES:
                if self._files.exists(path) and self._files.getFileStatus(path).isDirectory():
                    self._files.delete(path, True)
                self._write(path, text, overwrite=True)
                return
            complete = self._child(f".{uuid.uuid4().hex}.tmp")
            self._write(complete, text, overwrite=False)
            self._files.delete(path, True)  # a rename replaces nothing
            if not self._files.rename(complete, path):
                self._files.delete(complete, False)
                raise JobError(f"{path} can't be written: the file system does not rename")

    def create(self, name: str, text: str) -> None:
        """See Folder. After a crash in the middle the file may be there and empty, but not in an object store.

        Whether it is there is asked of the file system, where an object store may answer both of two at once.
        """
        path = self._child(name)
        with explain(str(path), "written"):
            try:
                self._write(path, text, overwrite=False)
            except Py4JJavaError as error:
                if "FileAlreadyExists" in java_class(error):
                    raise FileExistsError(str(path)) from error
                raise

    def add(self, text: str) -> None:
        """See Folder."""
        self.write(f"{uuid.uuid4().hex}.txt", text)

    def list_names(self) -> list[str]:
        """See Folder."""
        with explain(str(self._path), "read"):
            try:
                names = [status.getPath().getName() for status in self._files.listStatus(self._path)]
            except Py4JJavaError as error:
                if is_missing(error):
                    return []
                raise
            return sorted(name for name in names if is_seen(name))

    def delete(self, name: str) -> None:
        """See Folder."""
        path = self._child(name)
        with explain(str(path), "deleted"):
            self._files.delete(path, True)

    def make(self) -> None:
        """See Folder."""
        with explain(str(self._path), "made"):
            self._files.mkdirs(self._path)

    def _child(self, name: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(self._path, name)

    def _read_bytes(self, path: Any) -> bytes:
        stream = self._files.open(path)
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def _write(self, path: Any, text: str, *, overwrite: bool) -> None:
        stream = self._files.create(path, overwrite)
        try:
            stream.write(text.encode())
        finally:
            stream.close()
