"""A folder of small text files that only Spark reaches, as under Spark Connect."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote

from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from uniques.state.folder import explain, is_missing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkFolder:
    """A folder that only Spark reaches: every call is a Spark job, and a file is a folder of text.

    A text gets an end of line where it has none. `create` can't tell two writers apart that come at the same time.
    """

    def __init__(self, spark: SparkSession, location: str) -> None:
        """`location` as Spark takes it."""
        self._spark = spark
        self._location = location.rstrip("/")

    def read(self, name: str) -> str | None:
        """See Folder."""
        path = self._child(name)
        with explain(path, "read"):
            try:
                rows = self._spark.read.text(path, wholetext=True).collect()
            except AnalysisException as error:
                if is_missing(error):
                    return None
                raise
            return "".join(row["value"] for row in rows) if rows else None

    def write(self, name: str, text: str) -> None:
        """See Folder."""
        self._write(self._child(name), [text], "overwrite")

    def create(self, name: str, text: str) -> None:
        """See Folder."""
        if self.read(name) is not None:
            raise FileExistsError(self._child(name))
        self.write(name, text)

    def add(self, text: str) -> None:
        """See Folder."""
        self._write(self._location, [text], "append")

    def list_names(self) -> list[str]:
        """See Folder."""
        with explain(self._location, "read"):
            try:
                # A file may be a folder itself.
                files = self._spark.read.option("recursiveFileLookup", "true").text(self._location).inputFiles()
            except AnalysisException as error:
                if is_missing(error):
                    return []
                raise
        tail = self._location.rpartition("/")[2]
        paths = [unquote(file).split("/") for file in files]
        return sorted({path[-1] if path[-2] == tail else path[-2] for path in paths})

    def delete(self, name: str) -> None:
        """See Folder. Spark has no delete: an empty folder stays, which reads as no file."""
        if self.read(name) is not None:
            self._write(self._child(name), [], "overwrite")

    def make(self) -> None:
        """See Folder."""
        self._write(self._location, [], "append")

    def _child(self, name: str) -> str:
        return f"{self._location}/{name}"

    def _write(self, path: str, texts: list[str], mode: str) -> None:
        # A frame made of Python rows would start a Python worker, which takes seconds when it is the first one.
        lines = F.array(*(F.lit(text.removesuffix("\n")) for text in texts)).cast("array<string>")
        with explain(path, "written"):
            self._spark.range(1).select(F.explode(lines)).coalesce(1).write.mode(mode).text(path)
