"""Answers as CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# What every answer says of itself: in JSON only.
ORIGIN = {"versions", "note", "method", "timezone", "final_until", "corrections", "united_from"}


def write_sheet(answer: Mapping[str, Any]) -> str:
    """An answer as CSV, with a line of names."""
    rows = list(list_rows(answer))
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: write_value(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def write_value(value: object) -> object:
    """A value as text: true and false as in JSON, objects as JSON, nothing for null."""
    if isinstance(value, bool | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return value


def list_rows(answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of an answer."""
    if "cohorts" in answer:
        for cohort in answer["cohorts"]:
            head = {"cohort": cohort["name"], "users": cohort["unique_users"]}
            for later in cohort["came_again"] or [{"name": None}]:
                yield {**head, **later}
    elif "parts" in answer:
        for part in answer["parts"]:
            yield {"line": "part", **part}
        for line in ("union", "total"):
            yield {"line": line, **{name: value for name, value in answer[line].items() if name != "from_"}}
        yield {"line": "counted_more_than_once", **answer["counted_more_than_once"]}
    elif "both" in answer:
        for line in ("a", "b", "either", "both", "only_a", "only_b"):
            yield {"line": line, **answer[line]}
    elif "days" in answer:
        for point in answer["points"]:
            head = {"day": point["day"], "from": point["from"], "to": point["to"]}
            stickiness = (point["stickiness"] or {}).get("value")
            for number, active in point["active"].items():
                yield {**head, "days": number, **active, "stickiness": stickiness}
    elif "points" in answer:
        yield from answer["points"]
    elif "rejects" in answer:
        yield from answer["rejects"]
    elif "events_in_tables" in answer:
        yield {"what": "in_tables", "events": answer["events_in_tables"]}
        for kind, number in ((answer["job"] or {}).get("events") or {}).items():
            yield {"what": kind, "events": number}
    else:
        yield {name: value for name, value in answer.items() if name not in ORIGIN}
