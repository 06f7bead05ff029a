"""What Stage III ranks by: aesthetic score, optical flow, motion.

Optical flow and motion are measured while a video is read (`frames.movement`). The aesthetic
score comes from outside, either as a file of finished scores or as a function:

    def score(frame):       # uint8 RGB (h, w, 3)
        return 5.3          # higher is better; the mean over the sampled frames is used
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from scipy.stats import rankdata

from idbench.errors import UserError

Scorer = Callable[[np.ndarray], float]


class Mean:
    """A running mean that is None before the first value."""

    def __init__(self) -> None:
        self._total, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """One more value."""
        self._total += float(value)
        self._count += 1

    def value(self) -> float | None:
        """The mean so far."""
        return round(self._total / self._count, 6) if self._count else None


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of those that are not None, or None."""
    mean = Mean()
    for value in values:
        if value is not None:
            mean.add(value)
    return mean.value()


def load_scorer(address: str) -> Scorer:
    """The function at `module:function`.

    Raises:
        UserError: it cannot be imported, or is no function.
    """
    module, _, attribute = address.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The aesthetic scorer {address!r} cannot be loaded ({error}); give module:function "
            "or a CSV or JSON lines file with video and score."
        ) from error
    if not callable(found):
        raise UserError(f"The aesthetic scorer {address!r} is no function; name one.")
    return found


def ranking(scores: Sequence[np.ndarray]) -> np.ndarray:
    """One value in 0..1 for each of n pairs, higher is better.

    The paper names the three scores and not their weights. Their scales differ, so each one is
    replaced by its rank among the pairs (ties share the mean rank) and the ranks are averaged.

    Args:
        scores: arrays (n,), NaN where a pair has no such score: it then ranks in the middle.
    """
    if not scores or not len(scores[0]):
        return np.zeros(0 if not scores else len(scores[0]))
    total = np.zeros(len(scores[0]))
    for values in scores:
        known = np.isfinite(values)
        ranks = np.full(len(values), 0.5)
        if known.any():
            ranks[known] = (rankdata(values[known]) - 0.5) / known.sum()
        total += ranks
    return total / len(scores)
