"""The JVM behind the driver, where Python can reach it, and the Java functions that the jobs give to Spark."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import uuid
import zipfile
from contextlib import contextmanager
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from py4j.java_gateway import JavaClass
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException

from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pyspark.sql import SparkSession

# What it raises where a driver takes no Java function. py4j takes a class that it may not load for a package, and a
# package can't be called: hence TypeError.
JAVA_ERRORS = (Py4JError, PySparkException, TypeError, OSError)
NAMES = "_uniques_names"  # where a gateway keeps its JavaNames


class JavaNames:
    """The names of a JVM: `names.java.util.HashMap` is a class, which the JVM is asked for once.

    A part in lower case is taken for a package. py4j asks the JVM for every part each time, and for a package, which is
    no class, the JVM searches all its jars in vain.
    """

    def __init__(self, jvm: Any, package: str = "") -> None:
        """`jvm` is py4j's view; `package` ends with a dot, where it is not the root."""
        self._jvm = jvm
        self._package = package

    def __getattr__(self, name: str) -> Any:
        """The class or package; py4j's own object, which can't be called, for a class that is not there."""
        if name.startswith("__"):
            raise AttributeError(name)
        if name[:1].islower():
            found: Any = JavaNames(self._jvm, f"{self._package}{name}.")
        else:
            found = getattr(self._jvm, self._package + name)
            if not isinstance(found, JavaClass):
                return found
        setattr(self, name, found)
        return found


def gateway_of(spark: SparkSession) -> Any | None:
    """The py4j gateway to the JVM that Python drives, or None under Spark Connect, where there is none."""
    return getattr(getattr(spark, "_sc", None), "_gateway", None)


def jvm_of(spark: SparkSession) -> Any | None:
    """The JVM that Python drives, as its JavaNames, one for each JVM; None under Spark Connect, where there is none."""
    gateway = gateway_of(spark)
    if gateway is None:
        return None
    # py4j takes an attribute that a gateway does not have for a method of its entry point.
    kept = vars(gateway)
    if NAMES not in kept:
        kept[NAMES] = JavaNames(gateway.jvm)
    return kept[NAMES]


def require_jvm(spark: SparkSession, flag: str) -> Any:
    """The same; raises UsageError, one line that names `flag`, where there is none for its Java function."""
    jvm = jvm_of(spark)
    if jvm is None:
        raise UsageError(f"{flag} needs a classic Spark driver: Spark Connect takes no Java function")
    return jvm


def list_items(collection: Any) -> list[Any]:
    """The items of a Java collection.

    A loop over one ends with a Java exception, which PySpark compares with each kind that it knows: forty questions to
    the JVM.
    """
    return list(collection.toArray())


@contextmanager
def java_function(spark: SparkSession, flag: str) -> Iterator[Any]:
    """The JVM, to make a Java function in; raises UsageError, one line that names `flag`, where Spark takes none."""
    jvm = require_jvm(spark, flag)
    try:
        yield jvm
    except JAVA_ERRORS as error:
        raise UsageError(f"{flag}: this Spark takes no Java function: {first_lines(error)}") from error


def register_function(spark: SparkSession, function: Any) -> str:
    """Gives a Java function a name in the session."""
    name = f"uniques_{uuid.uuid4().hex}"
    spark._jsparkSession.udf().register(name, function)
    return name


def compile_java(jvm: Any, source: str) -> Any:
    """Spark's own Janino with the compiled `source`: `getBytecodes()`, and `getClassLoader()` with its classes."""
    compiler = jvm.org.codehaus.janino.SimpleCompiler()
    compiler.setParentClassLoader(jvm.java.lang.Thread.currentThread().getContextClassLoader())
    compiler.cook(source)
    return compiler


def send_class(spark: SparkSession, jvm: Any, source: str) -> None:
    """Compiles a Java file of this package, once, and has Spark send it to its executors; raises JAVA_ERRORS."""
    add_jar(spark, jvm, source)
    # Spark makes the class known to the thread that added it only; the batches of a stream run on another.
    jvm.java.lang.Thread.currentThread().setContextClassLoader(spark._jsparkSession.sharedState().jarClassLoader())


@lru_cache
def add_jar(spark: SparkSession, jvm: Any, source: str) -> None:
    """Compiles a Java file of this package, and has Spark send it to its executors."""
    compiled = compile_java(jvm, resources.files(__package__).joinpath(source).read_text(encoding="utf-8"))
    folder = Path(tempfile.mkdtemp(prefix="uniques-"))
    # Executors fetch the jar whenever they start, so it stays until the job ends.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Spark accepts no two jars of the same name.
    jar = folder / f"{folder.name}.jar"
    with zipfile.ZipFile(jar, "w") as archive:
        for entry in list_items(compiled.getBytecodes().entrySet()):
            archive.writestr(entry.getKey().replace(".", "/") + ".class", bytes(entry.getValue()))
    spark.sql(f"ADD JAR '{jar}'")


def make_list(jvm: Any, items: Iterable[Any]) -> Any:
    """A Java list, whatever py4j makes of Python's."""
    found = jvm.java.util.ArrayList()
    for item in items:
        found.add(item)
    return found


def first_lines(error: BaseException) -> str:
    """What a JVM's error says, without its trace, in one line."""
    return " ".join(str(error).split("\n\tat ")[0].splitlines()[:2])
