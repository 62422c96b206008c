"""What an estimate of a sketch follows from. Needs no Spark."""

from __future__ import annotations

from datasketches import hll_sketch


def registers_of(sketch: bytes) -> list[int]:
    """The registers, or while there are few users the sorted entries, of a sketch: what its estimate follows from."""
    data = bytes(hll_sketch.deserialize(sketch).serialize_compact())
    preamble = 4 * data[0]
    if preamble == 40:
        return list(data[preamble:])
    return sorted(int.from_bytes(data[at : at + 4], "little") for at in range(preamble, len(data), 4))
