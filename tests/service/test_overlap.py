"""Overlaps against sets: of few users and of many, small and large, and as exact as they say."""

from __future__ import annotations

import math
import random

import pytest
from service_tables import make_sketch
from unique_users_service.overlap import COUPONS, LIKELIHOOD, estimate_overlap
from unique_users_service.sketches import NOTHING, Sketch, parse_sketches, unite_sketches


def sketch_of(users: range | list[int], lg_k: int = 12) -> Sketch:
    parsed = parse_sketches([make_sketch((f"u{user}" for user in users), lg_k)])
    coupons = parsed.coupons[parsed.offsets[0] : parsed.offsets[1]]
    return unite_sketches([Sketch(lg_k, coupons, parsed.registers[0])])


@pytest.mark.parametrize(
    ("only_a", "only_b", "both"),
    [(20_000, 20_000, 0), (18_000, 18_000, 2_000), (10_000, 10_000, 10_000), (0, 15_000, 5_000), (20_000, 200, 300)],
)
def test_overlaps_are_within_what_they_say(only_a: int, only_b: int, both: int) -> None:
    within, draws, off = 0, 20, 0.0
    for draw in range(draws):
        begin = 10**7 * draw
        middle = begin + only_a
        a = sketch_of(range(begin, middle + both))
        b = sketch_of(range(middle, middle + both + only_b))
        found = estimate_overlap(a, b)
        assert found.method == LIKELIHOOD
        for estimate, exact in ((found.both, both), (found.only_a, only_a), (found.only_b, only_b)):
            assert abs(estimate.users - exact) <= 3.5 * estimate.error + 1
        within += abs(found.both.users - both) <= 2 * found.both.error
        off += (found.both.users - both) ** 2
    assert within >= 0.8 * draws
    # Half of what |A| + |B| - |A or B| is off by, where a tenth is in both.
    if both == 2_000:
        assert math.sqrt(off / draws) < 0.16 * both


def test_few_users_are_compared_one_by_one() -> None:
    draw = random.Random(1)
    for _ in range(20):
        users = draw.sample(range(10**6), 300)
        found = estimate_overlap(sketch_of(users[:200]), sketch_of(users[150:]))
        assert found.method == COUPONS
        assert round(found.both.users) == 50
        assert round(found.only_a.users) == 150
        assert round(found.only_b.users) == 100


def test_sketches_of_other_sizes_and_of_nobody() -> None:
    found = estimate_overlap(sketch_of(range(12_000), 14), sketch_of(range(6_000, 18_000), 12))
    assert abs(found.both.users - 6_000) <= 3 * found.both.error
    few = estimate_overlap(sketch_of(range(100)), sketch_of(range(50, 20_000)))
    assert abs(few.both.users - 50) <= 3 * few.both.error
    nobody = estimate_overlap(NOTHING, sketch_of(range(100)))
    assert (nobody.both.users, nobody.only_a.users, nobody.only_b.users) == (0, 0, 100)
