"""A perceptual hash of pictures, by which copies are found, and near-copies of videos by it.

The hash survives encoding, size and brightness. A near-copy of a video (re-encoded, resized or cut
anew) shows the same frames.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SIDE = 16
BYTES = SIDE * SIDE // 8
NEAR = 32
"""Bits of 256 in which a picture and its copy (re-encoded, resized, brighter) differ at most."""
PRINTS = 5
"""Frames of a video that are compared, spread evenly over it."""
_CHUNK = 2048


def difference_hash(image: np.ndarray) -> np.ndarray:
    """uint8 (BYTES,) of uint8 RGB (h, w, 3).

    A bit says whether a pixel of the shrunk grey picture is darker than its right neighbour.
    Source: N. Krawetz, Kind of Like That (2013), with 16x16 bits in place of 8x8.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SIDE + 1, SIDE), interpolation=cv2.INTER_AREA).astype(np.int16)
    return np.packbits(small[:, 1:] > small[:, :-1])


def differing_bits(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Number of bits in which hashes (..., BYTES) differ, of the broadcast shape."""
    return np.unpackbits(first ^ second, axis=-1).sum(-1, dtype=np.int16)


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
