"""The positions of the entries that a matrix keeps, in few bytes: gaps, Huffman coded.

If every entry is kept with the same probability, the gaps between kept entries follow a geometric distribution, and
coding them one by one loses almost nothing against log2 C(n, k) bits. A gap is written as one byte, after one byte 255
for every 255 entries it skips; zlib's Huffman coder does the rest. Its search for repeats, which costs time and finds
none, is off.
"""

from __future__ import annotations

import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["decode", "encode"]

Positions = npt.NDArray[np.int64]
_ESCAPE = 255


def encode(positions: Positions) -> bytes:
    """Code positions, ascending integers from 0 on."""
    gaps = np.diff(positions, prepend=-1) - 1
    escapes, last = np.divmod(gaps, _ESCAPE)
    code = np.full(len(gaps) + int(escapes.sum()), _ESCAPE, dtype=np.uint8)
    code[np.cumsum(escapes + 1) - 1] = last
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_HUFFMAN_ONLY)
    return coder.compress(code.tobytes()) + coder.flush()


def decode(data: bytes, count: int, size: int) -> Positions:
    """The `count` positions, below `size`, that `encode` coded.

    Memory is bounded by `count` and `size`, whatever `data` holds.

    Raises:
        ValueError: `data` is not the code of as many positions, or has one at or after `size`.
    """
    most = count + size // _ESCAPE
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        code = np.frombuffer(decoder.decompress(data, most + 1), dtype=np.uint8)  # 0 would mean without limit
    except zlib.error as error:
        raise ValueError(f"its positions cannot be decoded ({error})") from error
    if len(code) > most or not decoder.eof or decoder.unused_data:
        raise ValueError(f"its positions are not the code of {count:,} of {size:,} entries")
    last = code != _ESCAPE  # of the bytes of a gap
    ends = np.flatnonzero(last)
    if len(ends) != count or (len(code) and not last[-1]):
        raise ValueError(f"it has positions of {len(ends):,} entries and values of {count:,}")
    found: Positions = (np.cumsum(code + last.astype(np.uint8), dtype=np.int64) - 1)[ends]
    if count and found[-1] >= size:
        raise ValueError(f"it has a position after its {size:,} entries")
    return found
