"""The condition of `--where`: which fields it is about, and that it can do nothing else.

Spark's own SQL parser reads it, so it needs a driver whose JVM Python can reach. Only operators and functions from a
list may occur: none of them asks a clock, reads a file, calls other code, or fails for what a field holds. An event
that can't be converted is no reason to end a stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import functions as F
from pyspark.sql.types import BooleanType

from uniques.core.fields import Field, Filter, make_field
from uniques.errors import UsageError
from uniques.jvm import jvm_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession

# fmt: off
OPERATORS = frozenset((
    "And", "Or", "Not", "EqualTo", "EqualNullSafe", "LessThan", "LessThanOrEqual", "GreaterThan",
    "GreaterThanOrEqual", "In", "IsNull", "IsNotNull", "Like", "ILike", "RLike", "LikeAny", "LikeAll",
    "NotLikeAny", "NotLikeAll", "CaseWhen", "Cast", "Literal", "Add", "Subtract", "Multiply", "Divide",
    "IntegralDivide", "Remainder", "UnaryMinus", "UnaryPositive", "Concat", "StringLocate", "UnresolvedAttribute",
))
# fmt: on
# fmt: off
FUNCTIONS = (
    "abs", "ascii", "between", "bigint", "boolean", "btrim", "cast", "ceil", "ceiling", "char_length", "coalesce",
    "concat", "concat_ws", "contains", "crc32", "date", "day", "dayofweek", "decimal", "double", "endswith",
    "float", "floor", "get_json_object", "greatest", "hour", "if", "ifnull", "ilike", "instr", "int", "isnotnull",
    "isnull", "least", "left", "length", "like", "locate", "lower", "ltrim", "md5", "minute", "mod", "month",
    "nullif", "nvl", "nvl2", "pmod", "position", "regexp", "regexp_extract", "regexp_like", "regexp_replace",
    "replace", "reverse", "right", "rlike", "round", "rtrim", "sha2", "sign", "smallint", "startswith", "string",
    "substr", "substring", "substring_index", "timestamp", "tinyint", "translate", "trim", "try_to_timestamp",
    "upper", "xxhash64", "year",
)
# fmt: on
# What they look for must stand in the condition: from a field it could be no pattern, and end the query.
WITH_PATTERN = frozenset(
    ("Like", "ILike", "RLike", "like", "ilike", "rlike", "regexp", "regexp_like", "regexp_extract", "regexp_replace")
)
EXAMPLE = "\"type = 'view' AND coalesce(bot, 'false') <> 'true'\""


def read_filter(spark: SparkSession, text: str) -> Filter:
    """The condition of an SQL text over fields named by path, all of them strings.

    Raises UsageError, one line, for anything else.
    """
    jvm = jvm_of(spark)
    if jvm is None:
        raise UsageError("--where needs a classic Spark driver: Spark Connect gives no access to its SQL parser")
    try:
        tree = spark._jsparkSession.sessionState().sqlParser().parseExpression(text)
    except (PySparkException, Py4JError) as error:
        raise refuse(text, first_line(error)) from error
    places: set[tuple[int, int, Field]] = set()  # Spark 3.5 has the field of BETWEEN twice
    for node in list_nodes(tree):
        check_node(text, node)
        if node.nodeName() == "UnresolvedAttribute":
            try:
                field = make_field(list_sequence(node.nameParts()))
            except ValueError as error:
                raise refuse(text, f"{error} is no field of a record") from error
            origin = node.origin()
            places.add((origin.startIndex().get(), origin.stopIndex().get() + 1, field))
    found = cut(text, sorted(places))
    check_condition(spark, text, found)
    return found


def cut(text: str, places: list[tuple[int, int, Field]]) -> Filter:
    """Cuts the fields out of a condition; `places` say from where to where each stands."""
    pieces, at = [], 0
    for start, end, _ in places:
        pieces.append(text[at:start])
        at = end
    return Filter((*pieces, text[at:]), tuple(field for _, _, field in places))


def check_node(text: str, node: Any) -> None:
    """Raises UsageError when a node of the expression is not on the lists."""
    name = node.nodeName()
    if name == "UnresolvedFunction":
        name = ".".join(list_sequence(node.nameParts())).lower()
        if name not in FUNCTIONS:
            raise refuse(text, f"the function {name} is not allowed")
    elif name not in OPERATORS:
        raise refuse(text, f"{name} is not allowed")
    children = node.children()
    if name in WITH_PATTERN and children.size() > 1 and children.apply(1).nodeName() != "Literal":
        raise refuse(text, f"the pattern of {name.lower()} must be a text")


def check_condition(spark: SparkSession, text: str, found: Filter) -> None:
    """Raises UsageError when Spark can't evaluate it, or it is not true or false."""
    columns = [f"c{at}" for at in range(len(found.fields))]
    names = ["any", *columns]
    # A row in the text of a query, which Spark evaluates on the driver, without a job.
    values = ", ".join("'1'" for _ in names)
    row = spark.sql(f"SELECT * FROM VALUES ({values}) AS row({', '.join(names)})")  # noqa: S608  # our own names
    try:
        tried = row.select(F.expr(found.sql(columns)).alias("holds"))
        if not isinstance(tried.schema["holds"].dataType, BooleanType):
            raise refuse(text, "it is not true or false")
        tried.collect()
    except (PySparkException, Py4JError) as error:
        raise refuse(text, first_line(error)) from error


def list_nodes(tree: Any) -> Iterator[Any]:
    """The nodes of a Catalyst expression, from its root."""
    yield tree
    for child in list_sequence(tree.children()):
        yield from list_nodes(child)


def list_sequence(items: Any) -> list[Any]:
    """A Scala sequence as a list."""
    return [items.apply(at) for at in range(items.size())]


def first_line(error: Exception) -> str:
    """What an error of Spark says, in a line without its class."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].partition(" SQLSTATE:")[0].rstrip(". ") if lines else "Spark can't read it"


def refuse(text: str, why: str) -> UsageError:
    """The error for a condition that can't be used."""
    return UsageError(f"--where {text!r}: {why}; give an SQL condition over fields of the event, such as {EXAMPLE}")
