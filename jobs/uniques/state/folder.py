"""What a folder of small text files offers, and what its three kinds share.

`sidecar.open_folder` chooses: a local folder by Python itself, without a Spark job and without a process that Hadoop
starts (`local_folder`); any other one by Hadoop's file system, called in the driver's JVM (`hadoop_folder`); under
Spark Connect, which gives no access to the JVM, by Spark (`spark_folder`). What Spark wrote as text, now or in an
earlier release, is a folder of parts: all three read that as one file.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from py4j.protocol import Py4JJavaError, Py4JNetworkError
from pyspark.errors import AnalysisException, PySparkException

from uniques.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator


FULL = (
    "no space left on the disk of --checkpoint-location: make room, then start the job again; it continues where it was"
)


class Folder(Protocol):
    """A folder; every method raises JobError, one line, when the file system refuses.

    Names that start with `_` or `.` are not seen: they are marks, checksums, and files that are not complete yet.
    """

    def read(self, name: str) -> str | None:
        """The text of a file; None when there is no such file."""

    def write(self, name: str, text: str) -> None:
        """Writes a file, complete or not at all, in place of the one that is there."""

    def create(self, name: str, text: str) -> None:
        """Writes a file that is not there yet; raises FileExistsError when it is."""

    def add(self, text: str) -> None:
        """Writes a file under a name of its own."""

    def list_names(self) -> list[str]:
        """The names of the files, sorted; none where there is no folder."""

    def delete(self, name: str) -> None:
        """Deletes a file; one that is not there is no error."""

    def make(self) -> None:
        """Makes the folder, unless it is there."""


def is_seen(name: str) -> bool:
    """Whether a name is that of a file, as Spark sees it."""
    return not name.startswith(("_", "."))


def is_missing(error: Exception) -> bool:
    """Whether what was to be read does not exist, as Spark or Hadoop says it."""
    if isinstance(error, Py4JJavaError):
        return java_class(error) == "java.io.FileNotFoundException"
    if not isinstance(error, AnalysisException):
        return False
    # Spark 3.5 has the older name only.
    condition = error.getCondition() if hasattr(error, "getCondition") else error.getErrorClass()
    return condition == "PATH_NOT_FOUND"


def java_class(error: Py4JJavaError) -> str:
    """The class of the exception that Java raised."""
    name: str = error.java_exception.getClass().getName()
    return name


@contextmanager
def explain(path: str, done: str) -> Iterator[None]:
    """Turns a refusal into a JobError, one line: rights, a full disk, a store that is busy or away."""
    try:
        yield
    except (Py4JNetworkError, FileExistsError):
        raise
    except OSError as error:
        is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise JobError(f"{path} can't be {done}: {FULL if is_full else error.strerror or error}") from error
    except (PySparkException, Py4JJavaError) as error:
        # Through py4j what Java says comes behind a line about the call.
        said = re.search(r"^: (.+)", str(error), re.MULTILINE)
        raise JobError(f"{path} can't be {done}: {said[1] if said else str(error).splitlines()[0]}") from error
