"""Delta tables: where they are, how they are made, merged into, and kept small."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

from uniques.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from delta.tables import DeltaTable
    from pyspark.sql import Column, DataFrame, SparkSession

CATALOG_NAME = re.compile(r"\w+(\.\w+){0,2}")

PROPERTIES = {
    # A changed row is marked deleted and written anew; the file around it stays as it is.
    "delta.enableDeletionVectors": "true",
    # Every batch adds a small file; Delta joins them once there are 50.
    "delta.autoOptimize.autoCompact": "true",
    "delta.logRetentionDuration": "interval 7 days",
}
MAINTAINED_AT = "unique_users.maintained_at"
LISTING_TASKS = "spark.sql.sources.parallelPartitionDiscovery.parallelism"


@dataclass(frozen=True)
class Table:
    """A Delta table: `place` is a path or URL, or the name of a table in a catalog; `flag` is what gave it."""

    flag: str
    place: str

    @property
    def is_path(self) -> bool:
        """Whether the place is a path: anything that can't be a name. A folder can be given as `./name`."""
        return not CATALOG_NAME.fullmatch(self.place)

    def open(self, spark: SparkSession) -> DeltaTable:
        """The table, which must exist; raises UsageError, one line, where it does not, or is no Delta table."""
        from delta.tables import DeltaTable
        from pyspark.errors import AnalysisException

        try:
            return DeltaTable.forPath(spark, self.place) if self.is_path else DeltaTable.forName(spark, self.place)
        except AnalysisException as error:
            raise UsageError(f"{self.flag} {self.place}: {str(error).splitlines()[0]}") from error

    def create(
        self, spark: SparkSession, schema: str, properties: Mapping[str, str], partition: Sequence[str] = ()
    ) -> DeltaTable:
        """The table, made where it is not there yet, with a schema in DDL.

        Raises UsageError, one line, when it is there with other `properties`.
        """
        from delta.tables import DeltaTable
        from pyspark.errors import AnalysisException

        builder = DeltaTable.createIfNotExists(spark)
        builder = builder.location(self.place) if self.is_path else builder.tableName(self.place)
        builder = builder.addColumns(spark.createDataFrame([], schema).schema).partitionedBy(*partition)
        for name, value in {**PROPERTIES, **properties, MAINTAINED_AT: describe_now()}.items():
            builder = builder.property(name, value)
        try:
            table = builder.execute()
        except AnalysisException as error:
            raise UsageError(f"{self.flag} {self.place}: {str(error).splitlines()[0]}") from error
        found = read_properties(table)
        differences = [
            f"{name.rsplit('.', 1)[-1]} {found.get(name, 'unset')} (now {value})"
            for name, value in properties.items()
            if found.get(name) != value
        ]
        if differences:
            raise UsageError(
                f"{self.flag} {self.place} was made with {', '.join(differences)}: give the same, another table, or "
                "--rebuild"
            )
        return table

    def sql_name(self) -> str:
        """The table's name in SQL."""
        return f"delta.`{self.place}`" if self.is_path else self.place


def read_properties(table: DeltaTable) -> dict[str, str]:
    """A table's properties."""
    properties: dict[str, str] = table.detail().select("properties").collect()[0][0]
    return properties


def set_property(spark: SparkSession, table: Table, name: str, value: str) -> None:
    """Sets a property of a table."""
    spark.sql(f"ALTER TABLE {table.sql_name()} SET TBLPROPERTIES ('{name}' = '{value}')")


def merge_rows(table: DeltaTable, rows: DataFrame, keys: Sequence[str], update_when: Column, within: Column) -> None:
    """Inserts rows whose `keys` are new, and replaces the others where `update_when` says so (`old.…`, `new.…`).

    `within` narrows down, on `old.…`, the files that can hold the rows.
    """
    match = within
    for key in keys:
        match &= F.col(f"old.{key}") == F.col(f"new.{key}")
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
    # Delta lists a table's folders in as many tasks, 10,000 by default; a table here has six at the most.
    tasks = spark.conf.get(LISTING_TASKS)
    spark.conf.set(LISTING_TASKS, "8")
    opened.vacuum()
    spark.conf.set(LISTING_TASKS, tasks or "")
    set_property(spark, table, MAINTAINED_AT, describe_now())


def describe_now() -> str:
    """The time, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
