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
# What Hadoop's file system for S3 is asked for, and others ignore: to write a file on the condition that there is none,
# which the store itself decides; and to ask nothing before it writes a file in place of another.
CONDITIONAL = "fs.option.create.conditional.overwrite"
CONDITIONAL_ENABLED = "fs.s3a.create.conditional.enabled"  # what a user sets to false for a store without it
UNCHECKED = "fs.s3a.create.performance"
TAKEN = ("FileAlreadyExistsException", "RemoteFileChangedException")


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
                parts = [self._files.getFileStatus(path)]
                if parts[0].isDirectory():
                    parts = [part for part in self._files.listStatus(path) if is_seen(part.getPath().getName())]
            except Py4JJavaError as error:
                if is_missing(error):
                    return None
                raise
            content = b"".join(self._read_bytes(part) for part in parts)
            return content.decode(errors="replace") if parts else None

    def read_bytes(self, name: str) -> bytes:
        """The content of a file, compared with its checksum, where there is one; raises what Java raises."""
        return self._read_bytes(self._files.getFileStatus(self._child(name)))

    def write(self, name: str, text: str) -> None:
        """See Folder."""
        path = self._child(name)
        with explain(str(path), "written"):
            if self.scheme in OBJECT_STORES:
                if self._files.exists(path) and self._files.getFileStatus(path).isDirectory():
                    self._files.delete(path, True)
                self._replace(path, text)
                return
            complete = self._child(f".{uuid.uuid4().hex}.tmp")
            self._create(complete, text)
            self._files.delete(path, True)  # a rename replaces nothing
            if not self._files.rename(complete, path):
                self._files.delete(complete, False)
                raise JobError(f"{path} can't be written: the file system does not rename")

    def create(self, name: str, text: str) -> None:
        """See Folder. After a crash in the middle the file may be there and empty, but not in an object store.

        An object store without conditional writes may let two write a file at once.
        """
        path = self._child(name)
        with explain(str(path), "written"):
            try:
                self._create(path, text)
            except Py4JJavaError as error:
                if not java_class(error).endswith(TAKEN):
                    raise
                # A store whose answer was lost took the file, and refuses it when Hadoop sends it again.
                if self.scheme not in OBJECT_STORES or self.read(name) != text:
                    raise FileExistsError(str(path)) from error

    def add(self, text: str) -> None:
        """See Folder."""
        name = f"{uuid.uuid4().hex}.txt"
        if self.scheme not in OBJECT_STORES:
            self.write(name, text)
            return
        path = self._child(name)
        with explain(str(path), "written"):
            self._replace(path, text)

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

    def _read_bytes(self, status: Any) -> bytes:
        # With what is known of the file, S3 is not asked for it again.
        opening = self._files.openFile(status.getPath()).withFileStatus(status).build()
        stream = self._jvm.org.apache.hadoop.util.functional.FutureIO.awaitFuture(opening)
        try:
            return bytes(self._jvm.org.apache.commons.io.IOUtils.toByteArray(stream))
        finally:
            stream.close()

    def _replace(self, path: Any, text: str) -> None:
        fill(self._files.createFile(path).overwrite(True).recursive().opt(UNCHECKED, "true").build(), text)

    def _create(self, path: Any, text: str) -> None:
        if self.scheme in OBJECT_STORES and self._files.getConf().getBoolean(CONDITIONAL_ENABLED, True):
            fill(self._files.createFile(path).overwrite(False).recursive().opt(CONDITIONAL, "true").build(), text)
        else:
            fill(self._files.create(path, False), text)


def fill(stream: Any, text: str) -> None:
    """Writes a text into a stream that was opened for it, and closes the stream."""
    try:
        stream.write(text.encode())
    finally:
        stream.close()
