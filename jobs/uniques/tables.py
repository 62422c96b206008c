"""Delta tables: where they are, and how they are created, merged into, and kept small."""

from __future__ import annotations

import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError
from pyspark.errors import AnalysisException
from pyspark.sql import functions as F

from uniques.core.sql import quote_name, quote_text
from uniques.errors import UsageError
from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from delta.tables import DeltaTable
    from pyspark.sql import Column, DataFrame, SparkSession

log = logging.getLogger("uniques")

# A part of a table's name: plain, or quoted with backticks, which then stand doubled for themselves.
PART = r"`(?:[^`]|``)+`|[^\s`./:]+"
NAME = re.compile(rf"(?:{PART})(?:\.(?:{PART})){{0,2}}")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")

PROPERTIES = {
    # A changed row is marked as deleted and written to another file; its old file stays.
    "delta.enableDeletionVectors": "true",
    # Every batch adds a small file; Delta joins them when there are 50.
    "delta.autoOptimize.autoCompact": "true",
    "delta.logRetentionDuration": "interval 7 days",
}
MAINTAINED_AT = "unique_users.maintained_at"
LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"


@dataclass(frozen=True)
class Table:
    """A Delta table: `place` is a path or URL, or the name of a table in a catalog; `flag` is the flag that gave it."""

    flag: str
    place: str

    def __post_init__(self) -> None:
        """Raises UsageError, one line, for a place that is neither."""
        if not self.is_path and not NAME.fullmatch(self.place):
            raise UsageError(
                f"{self.flag} {self.place!r} is not allowed: give a folder with a '/', such as ./minutes, or a URL, "
                "or the name of a table: catalog.schema.table, schema.table or table, with backticks around odd parts"
            )

    @property
    def is_path(self) -> bool:
        """Whether the place is a path: it has a `/` or a scheme, outside of backticks."""
        plain = re.sub(r"`(?:[^`]|``)+`", "", self.place)
        return "/" in plain or SCHEME.match(plain) is not None

    @property
    def parts(self) -> list[str]:
        """The parts of a table's name, without quotes."""
        return [
            part[1:-1].replace("``", "`") if part.startswith("`") else part for part in re.findall(PART, self.place)
        ]

    def describe(self) -> str:
        """The place in one spelling: a path as it is, a name with backticks only where it needs them."""
        if self.is_path:
            return self.place
        return ".".join(part if re.fullmatch(r"\w+", part) else quote_name(part) for part in self.parts)

    def identify(self, spark: SparkSession) -> str:
        """The table's name in SQL, each part quoted; of a path the absolute one, as Delta wants it."""
        parts = ["delta", make_absolute(spark, self.place)] if self.is_path else self.parts
        return ".".join(map(quote_name, parts))

    def open(self, spark: SparkSession) -> DeltaTable:
        """The table, which must exist; raises UsageError, one line, where it does not, or is no Delta table."""
        from delta.tables import DeltaTable

        with self._named_errors():
            return DeltaTable.forName(spark, self.identify(spark))

    def exists(self, spark: SparkSession) -> bool:
        """Whether there is a Delta table at that place."""
        try:
            self.open(spark)
        except UsageError:
            return False
        return True

    def create(
        self, spark: SparkSession, schema: str, properties: Mapping[str, str], partition: Sequence[str] = ()
    ) -> DeltaTable:
        """The table, created where it does not exist, with a schema in DDL.

        Raises UsageError, one line, when it exists with other `properties`.
        """
        wanted = {**PROPERTIES, **properties, MAINTAINED_AT: describe_now()}
        partitioned = f"PARTITIONED BY ({', '.join(partition)})" if partition else ""
        with self._named_errors():
            spark.sql(
                f"CREATE TABLE IF NOT EXISTS {self.identify(spark)} ({schema}) USING delta {partitioned} "
                f"TBLPROPERTIES ({list_properties(wanted)})"
            )
        table = self.open(spark)
        found = read_properties(table)
        differences = [
            f"{name.rsplit('.', 1)[-1]} {found.get(name, 'unset')} (now {value})"
            for name, value in properties.items()
            if found.get(name) != value
        ]
        if differences:
            raise UsageError(
                f"{self.flag} {self.describe()} was made with {', '.join(differences)}: give the same, another table, "
                "or --rebuild"
            )
        return table

    def add_column(self, spark: SparkSession, column: str, after: str) -> None:
        """Adds a column in DDL, such as `revision BIGINT`, behind another, where the table does not have it.

        It is null in the rows that are there. Raises UsageError, one line, when it can't be added.
        """
        if column.split()[0] in self.open(spark).toDF().columns:
            return
        with self._named_errors():
            spark.sql(f"ALTER TABLE {self.identify(spark)} ADD COLUMNS ({column} AFTER {after})")
        log.info("%s: added the column %s, which a table of an earlier release lacks", self.describe(), column)

    def replace(
        self, spark: SparkSession, rows: DataFrame, properties: Mapping[str, str], partition: Sequence[str]
    ) -> None:
        """Replaces rows and properties in one commit; creates the table where it does not exist."""
        found = read_properties(self.open(spark)) if self.exists(spark) else {}
        kept = {name: value for name, value in found.items() if name in PROPERTIES or not name.startswith("delta.")}
        lost = sorted(found.keys() - kept.keys())
        wanted = {**PROPERTIES, MAINTAINED_AT: describe_now(), **kept, **properties}
        writer = rows.writeTo(self.identify(spark)).using("delta").partitionedBy(*map(F.col, partition))
        for name, value in wanted.items():
            writer = writer.tableProperty(name, value)
        writer.createOrReplace()
        if lost:
            log.warning("warning: %s has lost the properties %s: set them again", self.describe(), ", ".join(lost))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        """Raises UsageError, one line with the flag, for what Spark says of a place that can't be used."""
        try:
            yield
        except (AnalysisException, Py4JError) as error:
            text = str(error)
            # An unknown catalog reaches Python as Java's exception.
            found = re.search(r"CatalogNotFoundException: (.+)", text)
            if not isinstance(error, AnalysisException) and not found:
                raise
            said = found[1] if found else next((line for line in text.splitlines() if line.strip()), "can't be used")
            raise UsageError(f"{self.flag} {self.describe()}: {said}") from error


def make_absolute(spark: SparkSession, path: str) -> str:
    """An absolute path or URL for one that may be relative to the working directory of Spark's default file system."""
    if path.startswith("/") or SCHEME.match(path):
        return path
    jvm = jvm_of(spark)
    if jvm is None:
        return str(Path(path).absolute())
    folder = jvm.org.apache.hadoop.fs.Path(path)
    system = folder.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    absolute: str = system.makeQualified(folder).toString()
    return absolute


def read_properties(table: DeltaTable) -> dict[str, str]:
    """A table's properties."""
    properties: dict[str, str] = table.detail().select("properties").collect()[0][0]
    return properties


def set_property(spark: SparkSession, table: Table, name: str, value: str) -> None:
    """Sets a property of a table."""
    spark.sql(f"ALTER TABLE {table.identify(spark)} SET TBLPROPERTIES ({list_properties({name: value})})")


def list_properties(properties: Mapping[str, str]) -> str:
    """Properties as SQL lists them: `'name' = 'value', …`."""
    return ", ".join(f"{quote_text(name)} = {quote_text(value)}" for name, value in properties.items())


def merge_rows(table: DeltaTable, rows: DataFrame, keys: Sequence[str], update_when: Column, within: Column) -> None:
    """Inserts rows whose `keys` are new, and replaces the others where `update_when` says so (`old.…`, `new.…`).

    `within` narrows down, on `old.…`, the files that can hold the rows.
    """
    match = within
    for key in keys:
        # A key may be null: a table of an earlier release has no groups.
        match &= F.col(f"old.{key}").eqNullSafe(F.col(f"new.{key}"))
    merge = table.alias("old").merge(rows.alias("new"), match)
    merge.whenMatchedUpdateAll(update_when).whenNotMatchedInsertAll().execute()


def is_maintenance_due(table: DeltaTable, interval: timedelta) -> bool:
    """Whether `maintain` was last called on a table `interval` ago, or never."""
    last = read_properties(table).get(MAINTAINED_AT)
    return last is None or datetime.fromisoformat(last) + interval <= datetime.now(timezone.utc)


def maintain(spark: SparkSession, table: Table) -> None:
    """Joins small files, and removes those that no version of the last 7 days needs."""
    opened = table.open(spark)
    opened.optimize().executeCompaction()
    # Delta lists folders in so many tasks, 10,000 by default; these tables have six folders at most.
    tasks = spark.conf.get(LISTING_TASKS)
    spark.conf.set(LISTING_TASKS, "8")
    opened.vacuum()
    spark.conf.set(LISTING_TASKS, tasks or "")
    set_property(spark, table, MAINTAINED_AT, describe_now())


def describe_now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
