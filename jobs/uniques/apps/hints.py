"""What to look at when most records of a run were rejected."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uniques.state.accounting import Accounting

NO_JSON = "events are JSON objects, one a record; --rejects-topic TOPIC keeps the rejected ones for a look"

# Reject reason -> what it may mean, and the flag that helps.
HINTS = {
    "tombstone": "the records have no value; is --input-topic the right topic?",
    "unknown_schema": "the schema registry has no schema of their ids for this --format; is --schema-registry "
    "the right one?",
    "bad_bytes": "they are not in --format; values with the id of a schema need --schema-registry, those without "
    "--schema",
    "invalid_utf8": NO_JSON,
    "not_an_object": NO_JSON,
    "not_json": NO_JSON,
    "missing_ts": "an event needs a time in --time-field, ts by default",
    "bad_ts": "--time-format says how an event writes its time: a number, ISO 8601, or a pattern",
    "missing_uid": "an event needs a user in --user-field, uid by default, not empty",
    "ts_in_future": "events are ahead of their arrival in Kafka; --max-future sets how far they may be",
    "ts_too_old": "events are behind their arrival in Kafka; --max-age sets how far they may be",
    "outside_range": "the events are outside the times of --start-time and --end-time",
}


def explain_rejects(accounting: Accounting) -> str | None:
    """One line about the most frequent reason, when more than half of the records read were rejected; else None.

    Filtered events are not asked about.
    """
    rejected = sum(accounting.rejected.values())
    if 2 * rejected <= accounting.read - accounting.filtered:
        return None
    reason, number = accounting.rejected.most_common(1)[0]
    return f"{rejected} of {accounting.read} records were rejected, {number} of them as {reason}: {HINTS[reason]}"
