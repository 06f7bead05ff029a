"""How a person's cosines of single frames become one value: a rule for each protocol, by name.

A rule takes the values of all sampled frames (None: nothing could be measured there; a frame
that was sampled twice comes twice) and the metric's name, and returns a value, or None when
the rule gives none. Each rule is the whole of what its protocol does with them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Values = Sequence[float | None]


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
