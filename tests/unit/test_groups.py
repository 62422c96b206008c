"""Groups of a window: names up to a limit, all others as one, and parts that unite to the total."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter as Tally
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from datasketches import hll_sketch, hll_union, tgt_hll_type
from sketch_registers import registers_of
from uniques.core.counts import Counter, count_unique_users, make_records
from uniques.core.events import accept_events, parse_events
from uniques.core.fields import EventShape, parse_fields
from uniques.decoder import send_decoder
from uniques.grouping import send_grouper

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = 1468244340  # of a minute
Event = tuple[int, str, Any, Any]  # seconds after T, user, country, app


def shape_of(*breakdowns: str) -> EventShape:
    return EventShape(breakdowns=tuple(parse_fields(breakdown) for breakdown in breakdowns))


def count(
    spark: SparkSession, events: list[Event], breakdowns: list[str], counter: Counter, max_groups: int = 1_000
) -> DataFrame:
    """The records of the events, in four partitions; an event without a country or an app lacks the field."""
    lines = []
    for second, uid, country, app in events:
        event = {"ts": T + second, "uid": uid, "geo": {"country": country}, "app": app}
        lines.append((bytearray(json.dumps({k: v for k, v in event.items() if v is not None}).encode()),))
    shape = shape_of(*breakdowns)
    raw = spark.createDataFrame(lines, "value BINARY").repartition(4)
    accepted = accept_events(parse_events(raw, shape=shape, decode=send_decoder(spark, shape)))
    counts = count_unique_users(accepted, 60, counter, send_grouper(spark, shape, counter, max_groups))
    return make_records(counts, counter, final=True, revision=0)


def read(records: DataFrame) -> dict[str, dict[str, Any]]:
    rows = records.collect()
    assert len({row.key for row in rows}) == len(rows)
    return {row.key: json.loads(row.value) for row in rows}


def key_of(second: int, group: dict[str, Any] | None = None, other: bool = False) -> str:
    start = f"2016-07-11T13:{39 + second // 60:02}:00Z"
    text = "" if group is None else " " + json.dumps(group, separators=(",", ":"), ensure_ascii=False)
    return start + text + (" other" if other else "")


def test_each_breakdown_has_its_groups_beside_the_total(spark: SparkSession) -> None:
    events: list[Event] = [
        (0, "a", "CH", "web"),
        (1, "a", "CH", "ios"),
        (2, "b", "CH", "web"),
        (3, "c", None, "web"),
        (4, "d", "", None),
        (60, "a", 'Z"ü', "web"),
    ]
    found = read(count(spark, events, ["geo.country", "app,geo.country"], Counter("exact")))
    exact = {
        key_of(0): (4, 5),
        key_of(0, {"geo.country": "CH"}): (2, 3),
        key_of(0, {"geo.country": None}): (1, 1),
        key_of(0, {"geo.country": ""}): (1, 1),
        key_of(0, {"app": "web", "geo.country": "CH"}): (2, 2),
        key_of(0, {"app": "ios", "geo.country": "CH"}): (1, 1),
        key_of(0, {"app": "web", "geo.country": None}): (1, 1),
        key_of(0, {"app": None, "geo.country": ""}): (1, 1),
        key_of(60): (1, 1),
        key_of(60, {"geo.country": 'Z"ü'}): (1, 1),
        key_of(60, {"app": "web", "geo.country": 'Z"ü'}): (1, 1),
    }
    assert {key: (value["unique_users"], value["events"]) for key, value in found.items()} == exact
    assert found[key_of(0, {"geo.country": None})]["group"] == {"geo.country": None}
    assert "group" not in found[key_of(0)]
    assert all("other" not in value for value in found.values())
    assert {(value["counter"], value["relative_error"]) for value in found.values()} == {("exact", 0.0)}


def test_a_group_is_counted_by_a_sketch_that_unites_and_says_its_error(spark: SparkSession) -> None:
    events: list[Event] = [(n % 60, f"u{n % 3_000}", f"c{n % 7}", "web") for n in range(9_000)]
    found = read(count(spark, events, ["app"], Counter("approx_count_distinct", 0.05, 12)))
    total, web = found[key_of(0)], found[key_of(0, {"app": "web"})]
    assert (total["counter"], total["relative_error"]) == ("approx_count_distinct", 0.0489)
    assert (web["counter"], web["relative_error"]) == ("hll_sketch", 0.0162)
    assert web["events"] == 9_000
    assert abs(web["unique_users"] / 3_000 - 1) < 3 * 0.0162
    assert "sketch" not in web


@pytest.mark.parametrize("counter", ["hll_sketch", "approx_count_distinct", "exact"])
def test_the_largest_keep_their_names_and_the_parts_unite_to_the_total(spark: SparkSession, counter: str) -> None:
    draw = random.Random(1)
    countries = [f"c{min(int(draw.expovariate(0.05)), 199)}" for _ in range(20_000)]
    events: list[Event] = [(n % 60, f"u{draw.randrange(5_000)}", country, None) for n, country in enumerate(countries)]
    found = read(count(spark, events, ["geo.country"], Counter(counter, with_sketch=True), max_groups=10))
    sizes = Tally(countries)
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))[:10]
    groups = [value for value in found.values() if "group" in value]
    named = {value["group"]["geo.country"]: value for value in groups if "other" not in value}
    assert {name: value["events"] for name, value in named.items()} == {name: sizes[name] for name in largest}
    other = found[key_of(0, {"geo.country": None}, other=True)]
    assert other["other"] is True
    assert other["events"] == 20_000 - sum(sizes[name] for name in largest)
    union = hll_union(12)
    for value in (*named.values(), other):
        union.update(hll_sketch.deserialize(decode(value["sketch"])))
    united = union.get_result(tgt_hll_type.HLL_8).serialize_updatable()
    assert registers_of(united) == registers_of(decode(found[key_of(0)]["sketch"]))
    if counter == "exact":
        users = defaultdict(set)
        for (_, uid, country, _), name in zip(events, countries, strict=True):
            users[name if name in largest else None].add(uid)
            assert country == name
        assert {name: value["unique_users"] for name, value in named.items()} == {n: len(users[n]) for n in largest}
        assert other["unique_users"] == len(users[None])


def decode(text: str) -> bytes:
    return base64.b64decode(text)


def test_long_values_are_cut(spark: SparkSession) -> None:
    found = read(count(spark, [(0, "a", "x" * 1_000, None)], ["geo.country"], Counter("exact")))
    assert key_of(0, {"geo.country": "x" * 256}) in found


def test_without_a_breakdown_nothing_changes(spark: SparkSession) -> None:
    assert send_grouper(spark, shape_of(), Counter(), 10) is None
    found = read(count(spark, [(0, "a", "CH", None)], [], Counter("exact")))
    assert list(found) == [key_of(0)]
