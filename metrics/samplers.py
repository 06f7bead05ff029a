"""Frame samplers by name: which frames of a video a protocol looks at.

A sampler takes the number of frames of the video and how many are wanted, and returns indices,
ascending; an index may come several times, then its frame counts as often in a mean. An empty
tuple means that the video cannot be sampled so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Sampler = Callable[[int, int], tuple[int, ...]]


@lru_cache
def linspace(count: int, wanted: int) -> tuple[int, ...]:
    """`linspace(0, count - 1, wanted)` cut to whole numbers: a short video repeats frames. Source:
    the evaluation scripts of ConsisID (16), OpenS2V (32) and Ingredients (24)."""
    if count < 1:
        return ()
    return tuple(int(i) for i in np.linspace(0, count - 1, wanted).astype(int))


def linspace_unique(count: int, wanted: int) -> tuple[int, ...]:
    """As `linspace`, but each index once: a short video is read whole, with equal weights."""
    return tuple(dict.fromkeys(linspace(count, wanted)))


@lru_cache
def middle_of_intervals(count: int, wanted: int) -> tuple[int, ...]:
    """The middle frame of each of `wanted` equal intervals. A shorter video is read whole and its
    last frame repeated, since the network has a fixed number of temporal positions. Source:
    VBench."""
    if count < 1:
        return ()
    used = min(wanted, count)
    edges = np.linspace(0, count, used + 1).astype(int)
    middle = [int((a + b - 1) // 2) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return tuple(middle + [count - 1] * (wanted - used))


def first_strides(count: int, wanted: int) -> tuple[int, ...]:
    """`frames[::count // wanted][:wanted]`; empty for a shorter video. Up to half of the video is
    never read (of 15 frames, 8 wanted: the first 8). Source: the ViCLIP demo of InternVideo."""
    if count < wanted:
        return ()
    return tuple(range(0, count, count // wanted))[:wanted]


def every_frame(count: int, wanted: int) -> tuple[int, ...]:
    """All frames, however many are wanted. Source: VBench-2.0's Human Identity."""
    return tuple(range(count))


SAMPLERS: dict[str, Sampler] = {
    "linspace-unique": linspace_unique, "linspace": linspace, "every-frame": every_frame,
    "middle-of-intervals": middle_of_intervals, "first-strides": first_strides,
}
