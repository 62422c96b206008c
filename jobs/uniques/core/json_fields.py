"""Reads fields of a JSON object, as text, with Spark's own parser."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pyspark.sql import functions as F
from pyspark.sql.types import DataType, StringType, StructField, StructType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column

    from uniques.core.fields import Field

# By default Spark also accepts single quotes and NaN, which are not JSON.
STRICT_JSON = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
# Where Spark says that a text is no object of the schema. No field may have that name.
MALFORMED = "malformed"


class Parsed(NamedTuple):
    """What Spark's parser makes of a text: `columns` STRUCT, one a schema, and where in them each field is."""

    columns: dict[str, Column]
    values: dict[Field, Column]
    is_object: Column


def parse_fields(text: Column, fields: Sequence[Field]) -> Parsed:
    """Plans the parse of a STRING: `columns` are to be added to a frame before the rest is used.

    A field that is missing, or is behind something that is no object, is null. What is no string is its JSON text.
    `is_object` BOOLEAN: whether the text is a JSON object; null for null.
    """
    trees: list[dict[str, object]] = []
    places: dict[Field, int] = {}
    for field in fields:
        places[field] = next((at for at, tree in enumerate(trees) if fits(tree, field)), len(trees))
        if places[field] == len(trees):
            trees.append({})
        insert(trees[places[field]], field)
    trees = trees or [{}]
    malformed = MALFORMED
    while any(malformed == name.lower() for tree in trees for name in tree):
        malformed += "_"
    options = {**STRICT_JSON, "columnNameOfCorruptRecord": malformed}
    columns = {
        f"event_{at}": F.from_json(
            text, StructType([*make_schema(tree).fields, StructField(malformed, StringType())]), options
        )
        for at, tree in enumerate(trees)
    }
    values = {}
    for field, at in places.items():
        value = F.col(f"event_{at}")
        for name in field.names:
            value = value.getField(name)
        values[field] = value
    first = F.col("event_0")
    well_formed = first.getField(malformed).isNull() & first.isNotNull()
    if any(isinstance(inner, dict) for inner in trees[0].values()):
        # A string where the schema has an object is malformed to Spark, and good JSON. All other fields are read.
        plain = StructType([StructField("any", StringType()), StructField(malformed, StringType())])
        again = F.from_json(text, plain, options)
        well_formed = F.when(well_formed, True).otherwise(again.getField(malformed).isNull() & again.isNotNull())
    return Parsed(columns, values, F.when(text.isNotNull(), well_formed))


def fits(tree: dict[str, object], field: Field) -> bool:
    """Whether a schema can have the field too: Spark takes no name both for a text and an object.

    Nor can it tell names apart that differ in capitals only.
    """
    node: object = tree
    for name in field.names:
        if not isinstance(node, dict):
            return False
        if name not in node:
            return name.lower() not in {other.lower() for other in node}
        node = node[name]
    return node is None


def insert(tree: dict[str, object], field: Field) -> None:
    """Adds a field that fits: name -> the names in it, None for a text."""
    *objects, last = field.names
    node = tree
    for name in objects:
        inner = node.setdefault(name, {})
        node = inner if isinstance(inner, dict) else {}
    node.setdefault(last, None)


def make_schema(tree: dict[str, object]) -> StructType:
    """The schema of a tree of names: every leaf a STRING."""

    def type_of(inner: object) -> DataType:
        return make_schema(inner) if isinstance(inner, dict) else StringType()

    return StructType([StructField(name, type_of(inner)) for name, inner in tree.items()])
