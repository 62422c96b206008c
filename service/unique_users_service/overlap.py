"""How many users two sketches have in common.

|A| + |B| - |A or B| has the errors of three large numbers. The registers of both sketches together say more: where only
one of them saw a user, they differ. This takes the numbers of users only in A, only in B, and in both that make the
pairs of registers most likely: O. Ertl, "New cardinality estimation algorithms for HyperLogLog sketches", 2017,
section 5. Where a tenth of the users is in both, its error is half of that of the difference.

Sketches with few users are sets of coupons, and what these have in common is counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unique_users_service.sketches import (
    Sketch,
    add_coupons,
    estimate_coupons,
    fold_registers,
    sketch_error,
    unite_sketches,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unique_users_service.sketches import Registers

    Floats = NDArray[np.float64]

COUPONS, LIKELIHOOD = "coupons", "hll_joint_likelihood"
VALUES = 64
# A register is at most k with probability exp(-users / registers * SHARE[k]).
SHARE = 2.0 ** -np.arange(VALUES)
SHARE_BELOW = np.concatenate(([np.inf], SHARE[:-1]))
TINY = 1e-300
STEPS, LARGEST_STEP = 40, 1.0
LOG_DIFFERENCE = 1e-3
# Below that share of the smaller set the likelihood is too skewed for an error: it is that at this share.
SMALLEST_SHARE = 0.02


class Estimate(NamedTuple):
    """Users, and one standard error in users."""

    users: float
    error: float


class Overlap(NamedTuple):
    """The users of two sets: in both, only in the first, only in the second; and how that was found."""

    both: Estimate
    only_a: Estimate
    only_b: Estimate
    method: str


def estimate_overlap(a: Sketch, b: Sketch) -> Overlap:
    """What two sketches have in common."""
    if not a.lg_k or not b.lg_k:
        nothing = Estimate(0.0, 0.0)
        sides = [Estimate(each.estimate(), each.estimate() * each.relative_error) for each in (a, b)]
        return Overlap(nothing, sides[0], sides[1], COUPONS)
    lg_k = min(a.lg_k, b.lg_k)
    if a.registers is None and b.registers is None:
        return count_coupons(a, b, lg_k)
    return fit_registers(make_registers(a, lg_k), make_registers(b, lg_k), lg_k)


def count_coupons(a: Sketch, b: Sketch, lg_k: int) -> Overlap:
    """The overlap of sketches with few users."""
    common = len(np.intersect1d(a.coupons, b.coupons, assume_unique=True))
    error = sketch_error(lg_k)
    found = [
        Estimate(users, users * error)
        for users in (
            estimate_coupons(lg_k, common),
            estimate_coupons(lg_k, len(a.coupons) - common),
            estimate_coupons(lg_k, len(b.coupons) - common),
        )
    ]
    return Overlap(found[0], found[1], found[2], COUPONS)


def make_registers(sketch: Sketch, lg_k: int) -> Registers:
    """The registers of a sketch, of that lg_k."""
    if sketch.registers is not None:
        return fold_registers(sketch.registers, lg_k)
    return add_coupons(np.zeros(1 << lg_k, np.uint8), sketch.coupons)


def fit_registers(a: Registers, b: Registers, lg_k: int) -> Overlap:
    """The overlap of sketches with registers."""
    pairs = Pairs(a, b)
    sketches = [Sketch(lg_k, np.empty(0, np.uint32), each) for each in (a, b)]
    users = [max(1, each.estimate()) for each in (*sketches, unite_sketches(sketches))]
    smaller = min(users[:2])
    begin = min(max(users[0] + users[1] - users[2], SMALLEST_SHARE * smaller), 0.98 * smaller)
    found = np.exp(climb(pairs, np.log([max(users[0] - begin, 1.0), max(users[1] - begin, 1.0), begin])))
    both = min(found[2], smaller)
    errors = find_errors(pairs, np.array([*np.maximum(found[:2], 1.0), max(both, SMALLEST_SHARE * smaller)]))
    return Overlap(
        Estimate(float(both), errors[2]),
        Estimate(float(found[0]), errors[0]),
        Estimate(float(found[1]), errors[1]),
        LIKELIHOOD,
    )


class Pairs:
    """How often each value of a register came, by which of the two was larger: all that the likelihood needs."""

    def __init__(self, a: Registers, b: Registers) -> None:
        """`a` and `b` are of one length."""
        self.registers = len(a)
        below, above, equal = a < b, a > b, a == b
        self._counts = [
            np.bincount(values, minlength=VALUES).astype(np.float64)
            for values in (a[below], b[below], a[above], b[above], a[equal])
        ]

    def likelihood(self, users: Floats) -> Floats:
        """The logarithm of the likelihood of each row of users: only in a, only in b, in both."""
        only_a, only_b, both = (users[:, [column]] / self.registers for column in range(3))
        in_a, in_b, all_ = only_a + both, only_b + both, only_a + only_b + both
        total = np.zeros(len(users))
        for rate, counts in zip((in_a, only_b, only_a, in_b), self._counts[:4], strict=True):
            total += log_sum(counts, np.exp(-rate * SHARE) - np.exp(-rate * SHARE_BELOW))
        chance = np.exp(-all_ * SHARE) + np.exp(-all_ * SHARE_BELOW)
        chance -= np.exp(-in_a * SHARE_BELOW - only_b * SHARE) + np.exp(-only_a * SHARE - in_b * SHARE_BELOW)
        return total + log_sum(self._counts[4], chance)


def log_sum(counts: Floats, chances: Floats) -> Floats:
    """The sum of the logarithms of chances, each as often as it came."""
    seen = counts > 0
    total: Floats = np.log(np.maximum(chances[:, seen], TINY)) @ counts[seen]
    return total


# The points around one that give slopes and curvatures in three directions.
AROUND = np.array(
    [[0, 0, 0]]
    + [[sign * (axis == column) for column in range(3)] for axis in range(3) for sign in (1, -1)]
    + [[sign * (column in axes) for column in range(3)] for axes in ((0, 1), (0, 2), (1, 2)) for sign in (1, -1)],
    dtype=np.float64,
)


def find_slopes(values: Floats, step: Floats) -> tuple[Floats, Floats]:
    """Slopes and curvatures out of the values at `AROUND`, which are `step` away."""
    middle, plus, minus = values[0], values[1:7:2], values[2:7:2]
    curvature = np.diag((plus + minus - 2 * middle) / step**2)
    for index, (first, second) in enumerate(((0, 1), (0, 2), (1, 2))):
        mixed = values[7 + 2 * index] + values[8 + 2 * index] + 2 * middle
        mixed -= plus[first] + minus[first] + plus[second] + minus[second]
        curvature[first, second] = curvature[second, first] = mixed / (2 * step[first] * step[second])
    return (plus - minus) / (2 * step), curvature


def climb(pairs: Pairs, logs: Floats) -> Floats:
    """The logarithms of the most likely users, from a first guess. Newton's method; each step must climb."""
    step = np.full(3, LOG_DIFFERENCE)
    for _ in range(STEPS):
        values = pairs.likelihood(np.exp(logs + AROUND * step))
        slopes, curvature = find_slopes(values, step)
        sizes, axes = np.linalg.eigh(-curvature)
        move = axes @ ((axes.T @ slopes) / np.maximum(np.abs(sizes), 1e-3))
        move = np.clip(move, -LARGEST_STEP, LARGEST_STEP)
        tried = logs + move * (0.5 ** np.arange(12))[:, None]
        better = np.flatnonzero(pairs.likelihood(np.exp(tried)) >= values[0])
        if not len(better):
            return logs
        logs = tried[better[0]]
        if np.abs(move).max() * 0.5 ** better[0] < 1e-4:
            return logs
    return logs


def find_errors(pairs: Pairs, users: Floats) -> list[float]:
    """One standard error of each, in users: from how sharply the likelihood falls beside them."""
    step = np.maximum(users * np.array([3e-3, 3e-3, 3e-2]), 0.5)
    step = np.minimum(step, users * 0.5)
    _, curvature = find_slopes(pairs.likelihood(users + AROUND * step), step)
    variances = np.diag(np.linalg.pinv(-curvature))
    # Where it is flat the sketches say nothing: the error is as large as the number.
    return [float(np.sqrt(value)) if value > 0 else float(each) for value, each in zip(variances, users, strict=True)]
