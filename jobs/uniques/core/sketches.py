"""Apache DataSketches HLL sketches as Spark makes them: their error, and what their bytes say.

A sketch of 2^lg_k registers stands for a set of users. A union takes the maximum of each register: it adds no error,
its order does not matter, and a second union with the same sketch changes nothing. Strings are hashed as UTF-8 by
MurmurHash3 (x64, 128 bits, seed 9001), as in other DataSketches libraries, so sketches of the same strings that were
made elsewhere can be united with these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pyspark.sql import functions as F

if TYPE_CHECKING:
    from pyspark.sql import Column


def sketch_error(lg_k: int) -> float:
    """One standard error of an estimate from a sketch of 2^lg_k registers, relative to the count.

    sqrt(3 ln 2 - 1) / sqrt(2^lg_k), about 1.04 / sqrt(2^lg_k): Flajolet, Fusy, Gandouet, Meunier, "HyperLogLog", 2007.
    The smaller error that DataSketches gives for sketches that were never united (0.833 / sqrt(2^lg_k)) does not hold
    here: Spark unites already while it aggregates. Below about 2^lg_k / 10 users estimates are nearly exact.
    """
    return math.sqrt((3 * math.log(2) - 1) / 2**lg_k)


def normalize_sketch(sketch: Column) -> Column:
    """A BINARY column of sketches whose estimates depend on their registers alone.

    Before its first union a sketch uses the HIP estimator, which depends on the order of the users. A union with itself
    changes no register, and switches to the estimator that does not depend on it.
    """
    return F.hll_union(sketch, sketch)


def read_byte(sketch: Column, index: int) -> Column:
    """A byte of a BINARY column as INT, 0 to 255; null where there is none."""
    return F.conv(F.hex(F.substring(sketch, index + 1, 1)), 16, 10).cast("int")


def read_lg_k(sketch: Column) -> Column:
    """The lg_k, INT, of a BINARY column of sketches."""
    return read_byte(sketch, 3)


def sketch_error_of(sketch: Column) -> Column:
    """`sketch_error` of a BINARY column of sketches, DOUBLE."""
    return F.sqrt(F.lit(3 * math.log(2) - 1) / F.pow(F.lit(2), read_lg_k(sketch)))


def is_sketch(sketch: Column) -> Column:
    """Whether a BINARY column holds a complete HLL sketch that Spark can unite; false for null.

    Anything else ends a query that unites it. Bytes: 0 length of the preamble in INTs, 1 format version, 2 family
    (7 = HLL), 3 lg_k, 4 lg of a list's room, 5 flags (8 = compact, 32 of no use here), 6 or 8-11 number of
    entries of a list or set, 7 mode (bits 0-1: 0 list, 1 set, 2 HLL) and type (bits 2-3: 0 HLL_4, 1 HLL_6, 2 HLL_8);
    after the preamble the entries of 4 bytes, or the registers. Source: `PreambleUtil` of datasketches-java.
    """
    mode = read_byte(sketch, 7).bitwiseAND(3)
    type_ = F.shiftright(read_byte(sketch, 7), 2).bitwiseAND(3)
    registers = F.pow(F.lit(2), read_lg_k(sketch))
    compact = read_byte(sketch, 5).bitwiseAND(8) == 8
    entries = F.when(mode == 0, read_byte(sketch, 6)).otherwise(
        F.conv(F.hex(F.reverse(F.substring(sketch, 9, 4))), 16, 10).cast("bigint")
    )
    room = F.when(compact, entries).otherwise(F.pow(F.lit(2), read_byte(sketch, 4)))
    preamble = F.when(mode == 0, 2).when(mode == 1, 3).when(mode == 2, 10)
    content = (
        F.when(mode != 2, 4 * room)
        .when(type_ == 2, registers)
        .when(type_ == 1, registers * 3 / 4 + 1)
        .when(type_ == 0, registers / 2)
    )
    whole = (
        (read_byte(sketch, 0) == preamble)
        & (read_byte(sketch, 1) == 1)
        & (read_byte(sketch, 2) == 7)
        & read_lg_k(sketch).between(4, 21)
        & (F.length(sketch) >= 4 * preamble + content)
        & ((mode == 2) | (entries <= room))
        & (read_byte(sketch, 5) < 32)
    )
    return F.coalesce(whole, F.lit(False))
