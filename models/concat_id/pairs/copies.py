"""Near-copies of a clip: re-encoded, resized or cut anew, they show the same frames.

A near-copy must not be the partner of a clip: its reference would be the clip itself. Frames are
compared by a difference hash, which survives encoding, size and brightness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from idbench.picture_hash import BYTES, NEAR, difference_hash, differing_bits

PRINTS = 5
"""Frames of a video that are compared, spread evenly over it."""
_CHUNK = 2048


def frame_print(image: np.ndarray) -> str:
    """The difference hash of uint8 RGB (h, w, 3) as hexadecimal text."""
    return difference_hash(image).tobytes().hex()


def as_array(prints: Sequence[str]) -> np.ndarray:
    """uint8 (PRINTS, BYTES) of a video's prints, the last repeated; of none: zeros."""
    if not prints:
        return np.zeros((PRINTS, BYTES), np.uint8)
    rows = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in prints[:PRINTS]]
    return np.stack([*rows, *rows[-1:] * (PRINTS - len(rows))])


def are_copies(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which of m pairs of videos, uint8 (m, PRINTS, BYTES) each, are near-copies: most frames of
    either one are nearly a frame of the other. Without prints (all zeros) they never are."""
    found = np.zeros(len(first), bool)
    for start in range(0, len(first), _CHUNK):
        part = slice(start, start + _CHUNK)
        a, b = first[part], second[part]
        near = differing_bits(a[:, :, None], b[:, None]) <= NEAR
        shared = np.maximum(near.any(2).sum(1), near.any(1).sum(1))
        known = a.any((1, 2)) & b.any((1, 2))
        found[part] = known & (2 * shared > PRINTS)
    return found
