"""What protocols mean by a sampler, and by a rule: which frames are looked at, and how their values
become one.

A sampler takes the number of frames of the video and how many are wanted, and returns indices,
ascending; an index may come several times, then its frame counts as often in a mean. An empty
tuple means that the video cannot be sampled so.

A rule takes the values of a person's cosines in all sampled frames (None: nothing could be measured
there; a frame that was sampled twice comes twice) and the metric's name, and returns a value, or
None when the rule gives none. Each rule is the whole of what its protocol does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Sampler = Callable[[int, int], tuple[int, ...]]
Values = Sequence[float | None]


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


@dataclass(frozen=True)
class Rule:
    """A rule. `value`: from the frames' values and the metric's name; `nothing`: why that is None
    (None: the reason that all frames share, or that the person was not found); `fills_with_zero`:
    whether it is 0.0 where nothing was measured."""

    value: Callable[[Values, str], float | None]
    nothing: str | None = None
    fills_with_zero: bool = False


def mean_of_scored(values: Values, metric: str) -> float | None:
    """The mean over the frames that have a value; None without one."""
    scored = [v for v in values if v is not None]
    return float(np.mean(scored)) if scored else None


def consisid(values: Values, metric: str) -> float:
    """ConsisID's: negatives count as 0, frames without a face are skipped, nothing left is 0.0."""
    return mean_of_scored([max(0.0, v) for v in values if v is not None], metric) or 0.0


def opens2v(values: Values, metric: str) -> float:
    """OpenS2V's: as ConsisID's, but CurSim also loses its frames of 0. The script means to drop
    them for ArcSim too, but compares the list with 0, which is never equal."""
    if metric == "cursim":
        values = [v for v in values if v is not None and v > 0.0]
    return consisid(values, metric)


def ingredients(values: Values, metric: str) -> float | None:
    """Ingredients': the mean over all frames, no clamp; a frame without a face stops the script."""
    return None if any(v is None for v in values) else mean_of_scored(values, metric)


def maximum_of_pairs(cosines: np.ndarray) -> float | None:
    """Ingredients' value of a frame: the best pair of a reference and one of the two largest faces,
    of cosines (faces, references), largest face first. One person who is met well hides another who
    is missing: that is the published rule."""
    pairs = np.asarray(cosines)[:2]
    return float(pairs.max()) if pairs.size else None


RULES: dict[str, Rule] = {
    "mean-of-scored": Rule(mean_of_scored),
    "consisid": Rule(consisid, fills_with_zero=True),
    "opens2v": Rule(opens2v, fills_with_zero=True),
    "ingredients": Rule(
        ingredients, "a frame has no face, at which the published script stops without a value"
    ),
}
