"""Rows of a store of states as bytes, without the stretches that are zero: leads that nobody sends, lists that wait.

A packed row is a bit for each block of 64 bytes, and the blocks that are not zero, in order.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dsp.kernel import kernel

WORD: Final = 8
"""Bytes of a word."""
_BLOCK: Final = 8
_BITS: Final = 64


@kernel
def _squeeze(row: Any, out: Any) -> int:
    blocks: int = (row.size + _BLOCK - 1) // _BLOCK
    used: int = (blocks + _BITS - 1) // _BITS
    for i in range(used):
        out[i] = np.uint64(0)
    for block in range(blocks):
        begin, end = block * _BLOCK, min(row.size, (block + 1) * _BLOCK)
        any_bit = np.uint64(0)
        for i in range(begin, end):
            any_bit |= row[i]
        if any_bit != np.uint64(0):
            out[block // _BITS] |= np.uint64(1) << np.uint64(block % _BITS)
            for i in range(begin, end):
                out[used] = row[i]
                used += 1
    return used


@kernel
def _restore(packed: Any, row: Any) -> bool:
    blocks: int = (row.size + _BLOCK - 1) // _BLOCK
    used: int = (blocks + _BITS - 1) // _BITS
    if packed.size < used:
        return False
    for block in range(blocks):
        begin, end = block * _BLOCK, min(row.size, (block + 1) * _BLOCK)
        if packed[block // _BITS] >> np.uint64(block % _BITS) & np.uint64(1):
            if used + end - begin > packed.size:
                return False
            for i in range(begin, end):
                row[i] = packed[used]
                used += 1
        else:
            for i in range(begin, end):
                row[i] = np.uint64(0)
    return bool(used == packed.size)


def squeeze(row: NDArray[np.uint64]) -> bytes:
    """Pack a row.

    Parameters
    ----------
    row : ndarray of uint64, shape (words,)
        The words of a state.

    Returns
    -------
    bytes
        For `restore`.
    """
    out = np.empty(row.size + row.size // (_BLOCK * _BITS) + 1, np.uint64)
    return out[: _squeeze(row, out)].tobytes()


def restore(packed: bytes, row: NDArray[np.uint64]) -> None:
    """Write what `squeeze` packed back into a row.

    Parameters
    ----------
    packed : bytes
        Of `squeeze`.
    row : ndarray of uint64, shape (words,)
        Changed.

    Raises
    ------
    ValueError
        If it was not packed from a row of this length; the row is undefined then.
    """
    if len(packed) % WORD or not _restore(np.frombuffer(packed, np.uint64), row):
        raise ValueError(f"not the packed state of {row.size * WORD} bytes")
