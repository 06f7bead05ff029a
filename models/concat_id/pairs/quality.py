"""The scores that Stage III ranks by: aesthetic score, optical flow, motion.

Optical flow and motion are measured while a video is read (`frames.movement`). The aesthetic
score comes from the user, either as a file of scores or as a function:

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


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are not None, or None where there is none."""
    known = [float(value) for value in values if value is not None]
    return round(sum(known) / len(known), 6) if known else None


def load_scorer(address: str) -> Scorer:
    """The function at `module:function`. Raises UserError: it cannot be imported, or is no
    function."""
    module, _, attribute = address.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"The aesthetic scorer {address!r} cannot be loaded ({error}); use module:function "
            "or a CSV or JSON lines file with video and score."
        ) from error
    if not callable(found):
        raise UserError(f"The aesthetic scorer {address!r} is not a function; pass one.")
    return found


def ranking(scores: Sequence[np.ndarray]) -> np.ndarray:
    """One value in 0..1 for each of n pairs, higher is better, from scores (n,), NaN: ranks in the
    middle.

    The paper names the three scores but not their weights. Their scales differ, so each is replaced
    by its rank among the pairs (ties share the mean rank) and the ranks are averaged."""
    total = np.zeros(len(scores[0]))
    for values in scores:
        known = np.isfinite(values)
        ranks = np.full(len(values), 0.5)
        if known.any():
            ranks[known] = (rankdata(values[known]) - 0.5) / known.sum()
        total += ranks
    return total / len(scores)
