"""Apache DataSketches HLL sketches as arrays: read, united and estimated, many at once.

A sketch with few users is a set of coupons, UINT32: 26 bits of address, 6 bits of value. One with more users has 2^lg_k
registers, UINT8. A union takes each coupon once, and the maximum of each register. The address of a register is the low
end of the coupon's, so that registers of a larger lg_k fold into those of a smaller one.

Estimates are those of datasketches for united sketches: they depend on coupons and registers alone.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from datasketches import hll_sketch, hll_union, tgt_hll_type

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Registers = NDArray[np.uint8]
    Coupons = NDArray[np.uint32]

# Bytes of a sketch: 0 length of the preamble in INTs, 1 format version, 2 family, 3 lg_k, 5 flags, 7 mode and type.
HLL_FAMILY, FORMAT_VERSION = 7, 1
LIST, SET, REGISTERS = 0, 1, 2
HLL_8 = 2
COMPACT, OUT_OF_ORDER = 8, 16
ADDRESS_BITS = 26
MIN_LG_K, MAX_LG_K = 4, 21
INVERSE_POWERS = 2.0 ** -np.arange(64)
EMPTY: Coupons = np.empty(0, np.uint32)


def sketch_error(lg_k: int) -> float:
    """One standard error of an estimate from 2^lg_k registers, relative to it; as `core.sketches` has it."""
    return math.sqrt((3 * math.log(2) - 1) / 2**lg_k)


class Parsed(NamedTuple):
    """Sketches as they were read: the lg_k of each; coupons of all, those of sketch i at `offsets[i:i + 2]`; registers.

    `registers[i]` is None where a sketch has coupons. What is no sketch has lg_k 0, and is empty.
    """

    lg_k: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    coupons: Coupons
    registers: list[Registers | None]


def parse_sketches(sketches: Sequence[bytes]) -> Parsed:
    """Reads sketches in DataSketches' format, of any mode and type."""
    number = len(sketches)
    lengths = np.fromiter(map(len, sketches), np.int64, number)
    data = np.frombuffer(b"".join([*sketches, bytes(12)]), np.uint8)
    begins = np.cumsum(lengths) - lengths
    # The first 12 bytes of each; those beyond its end are of the next, and not looked at.
    head = data[begins[:, None] + np.arange(12)]
    lg_k, mode, kind = head[:, 3].copy(), head[:, 7] & 3, head[:, 7] >> 2 & 3
    preamble = np.select([mode == LIST, mode == SET, mode == REGISTERS], [8, 12, 40], 1 << 40)
    entries = np.where(mode == LIST, head[:, 6], head[:, 8:12].copy().view("<u4")[:, 0])
    places = np.where(head[:, 5] & COMPACT, entries, 1 << (head[:, 4] & 31).astype(np.int64))
    size = 1 << (lg_k & 31).astype(np.int64)
    dense = np.select([kind == 0, kind == 1], [size // 2, size * 3 // 4 + 1], size)
    complete = (lengths >= 8) & (head[:, 1] == FORMAT_VERSION) & (head[:, 2] == HLL_FAMILY) & (kind <= HLL_8)
    complete &= (lg_k >= MIN_LG_K) & (lg_k <= MAX_LG_K) & (4 * head[:, 0].astype(np.int64) == preamble)
    complete &= lengths >= preamble + np.where(mode == REGISTERS, dense, 4 * places)
    complete &= (mode == REGISTERS) | (lengths % 4 == 0)
    lg_k[~complete] = 0
    registers: list[Registers | None] = [None] * number
    for index in np.flatnonzero(complete & (mode == REGISTERS)).tolist():
        registers[index] = read_registers(sketches[index])
    few = np.flatnonzero(complete & (mode != REGISTERS))
    if len(few) == number:
        words = data[:-12].view("<u4")
    else:
        words = np.frombuffer(b"".join([sketches[index] for index in few.tolist()]), "<u4")
    first = np.cumsum(lengths[few] // 4) - lengths[few] // 4 + preamble[few] // 4
    counts = places[few]
    ends = np.cumsum(counts)
    found = words[np.repeat(first - ends + counts, counts) + np.arange(ends[-1] if len(few) else 0)]
    taken = found != 0
    before = np.concatenate(([0], np.cumsum(taken)))
    kept = np.zeros(number, np.int64)
    kept[few] = before[ends] - before[ends - counts]
    return Parsed(lg_k, np.concatenate(([0], np.cumsum(kept))), found[taken], registers)


def read_registers(data: bytes) -> Registers:
    """The registers of a sketch that has them."""
    if data[7] >> 2 & 3 != HLL_8:
        union = hll_union(data[3])
        union.update(hll_sketch.deserialize(data))
        data = bytes(union.get_result(tgt_hll_type.HLL_8).serialize_updatable())
    return np.frombuffer(data, np.uint8, 1 << data[3], 40).copy()


def fold_registers(registers: Registers, lg_k: int) -> Registers:
    """Registers of the same users in a sketch of a smaller lg_k, or the same."""
    if len(registers) == 1 << lg_k:
        return registers
    folded: Registers = registers.reshape(-1, 1 << lg_k).max(axis=0)
    return folded


def max_coupons(lg_k: int) -> int:
    """The most coupons of a sketch; with more it has registers."""
    return 3 << (lg_k - 5) if lg_k >= 8 else 7


@dataclass(frozen=True)
class Sketch:
    """A union: `coupons` without a duplicate, or `registers`. `lg_k` 0: of nothing."""

    lg_k: int
    coupons: Coupons
    registers: Registers | None

    def estimate(self) -> int:
        """The unique users, rounded as Spark rounds."""
        if self.registers is None:
            return estimate_coupons(self.lg_k, len(self.coupons)) if self.lg_k else 0
        return math.floor(estimate_registers(self.registers) + 0.5)

    @property
    def relative_error(self) -> float:
        """One standard error relative to the estimate; 0 of nothing."""
        return sketch_error(self.lg_k) if self.lg_k else 0.0

    @property
    def nbytes(self) -> int:
        """About its size in memory."""
        return 200 + (self.coupons.nbytes if self.registers is None else self.registers.nbytes)


NOTHING = Sketch(0, EMPTY, None)


def unite(lg_k: int, coupons: Sequence[Coupons], registers: Sequence[Registers]) -> Sketch:
    """Unites coupons and registers of sketches, the smallest lg_k of which is `lg_k`; 0: there are none."""
    if not lg_k:
        return NOTHING
    joined = coupons[0] if len(coupons) == 1 else np.concatenate(coupons) if coupons else EMPTY
    if not registers:
        added = add_coupons(np.zeros(1 << lg_k, np.uint8), joined) if len(joined) > max_coupons(lg_k) else None
        # As many registers are set as there are coupons, or fewer.
        if added is None or np.count_nonzero(added) <= max_coupons(lg_k):
            unique = np.unique(joined)
            if len(unique) <= max_coupons(lg_k):
                return Sketch(lg_k, unique, None)
        return Sketch(lg_k, EMPTY, added)
    folded = [fold_registers(each, lg_k) for each in registers]
    united: Registers = folded[0] if len(folded) == 1 else np.maximum.reduce(folded)
    return Sketch(lg_k, EMPTY, add_coupons(united.copy(), joined) if len(joined) else united)


def unite_sketches(sketches: Sequence[Sketch]) -> Sketch:
    """The union of sketches."""
    filled = [each for each in sketches if each.lg_k]
    return unite(
        min((each.lg_k for each in filled), default=0),
        [each.coupons for each in filled if each.registers is None],
        [each.registers for each in filled if each.registers is not None],
    )


def add_coupons(registers: Registers, coupons: Coupons) -> Registers:
    """Adds coupons to registers, in place."""
    slots = coupons & np.uint32(len(registers) - 1)
    np.maximum.at(registers, slots, (coupons >> np.uint32(ADDRESS_BITS)).astype(np.uint8))
    return registers


def estimate_registers(registers: Registers) -> float:
    """What datasketches estimates for registers that came by a union."""
    estimate: float = hll_sketch.deserialize(write_registers(registers)).get_estimate()
    return estimate


@lru_cache(maxsize=1 << 16)
def estimate_coupons(lg_k: int, number: int) -> int:
    """What datasketches estimates for that many coupons: it follows from their number alone."""
    coupons = np.arange(number, dtype=np.uint32) | np.uint32(1 << ADDRESS_BITS)
    estimate: float = hll_sketch.deserialize(write_coupons(lg_k, coupons)).get_estimate()
    return math.floor(estimate + 0.5)


def serialize(sketch: Sketch) -> bytes:
    """A sketch in DataSketches' format, compact."""
    if sketch.registers is not None:
        return write_registers(sketch.registers)
    return write_coupons(sketch.lg_k, sketch.coupons)


def write_registers(registers: Registers) -> bytes:
    """A sketch with registers, as after a union."""
    counts = np.bincount(registers, minlength=64)
    weights = counts * INVERSE_POWERS
    lg_k = len(registers).bit_length() - 1
    head = bytes([10, FORMAT_VERSION, HLL_FAMILY, lg_k, 0, COMPACT | OUT_OF_ORDER, 0, REGISTERS | HLL_8 << 2])
    sums = struct.pack("<dddII", 0.0, float(weights[:32].sum()), float(weights[32:].sum()), int(counts[0]), 0)
    return head + sums + registers.tobytes()


def write_coupons(lg_k: int, coupons: Coupons) -> bytes:
    """A sketch with coupons, no more than `max_coupons`."""
    number, entries = len(coupons), coupons.astype("<u4").tobytes()
    if number < 8:
        return bytes([2, FORMAT_VERSION, HLL_FAMILY, lg_k, 3, COMPACT, number, LIST | HLL_8 << 2]) + entries
    room = max(5, (number * 4 // 3).bit_length())
    head = bytes([3, FORMAT_VERSION, HLL_FAMILY, lg_k, room, COMPACT, 0, SET | HLL_8 << 2])
    return head + number.to_bytes(4, "little") + entries
