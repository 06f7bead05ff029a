"""A perceptual hash of pictures, by which copies are found."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 16
BYTES = SIDE * SIDE // 8
NEAR = 32
"""Bits of 256 in which a picture and its copy (re-encoded, resized, brighter) differ at most."""


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
