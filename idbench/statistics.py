"""Means with honest uncertainty: bootstrap over identities, not over videos.

Videos of one identity are not independent: a face that is hard stays hard under every prompt.
So identities are drawn with replacement, each with all of its videos.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 4_000
LEVEL = 0.95
SEED = 20_250_702
Values = ArrayLike | Sequence[float | None]
"""A value for each sample; None or NaN: unscored."""


@dataclass(frozen=True)
class Estimate:
    """A mean over scored samples.

    Attributes:
        mean: mean of the scored values; None when nothing was scored.
        low, high: bounds of the 95% interval; None with fewer than two clusters.
        n: samples asked for; scored: those with a value; coverage = scored / n in 0..1.
        clusters: independent groups among the scored ones.
    """

    mean: float | None
    low: float | None
    high: float | None
    n: int
    scored: int
    clusters: int

    @property
    def coverage(self) -> float | None:
        return self.scored / self.n if self.n else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both bounds, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def as_dict(self) -> dict[str, Any]:
        """JSON value of everything."""
        return {**asdict(self), "coverage": self.coverage}


def estimate(
    values: Values, clusters: Sequence[Hashable], *, resamples: int = RESAMPLES
) -> Estimate:
    """Mean of `values` and its interval, resampling whole `clusters`.

    The interval is the bias-corrected accelerated bootstrap (Efron 1987) of the ratio of sums over
    clusters, widened for few clusters; the seed is fixed."""
    array = np.asarray(values, np.float64)  # None becomes NaN
    if len(array) != len(clusters):
        raise ValueError("one cluster for each value")
    sums, sizes = _sums(array, clusters)
    if not len(sums):
        return Estimate(None, None, None, len(array), 0, 0)
    mean = float(array[~np.isnan(array)].mean())
    low, high = _interval(sums, sizes, mean, resamples)
    return Estimate(mean, low, high, len(array), int(sizes.sum()), len(sums))


def resampled_means(
    values: Values, clusters: Sequence[Hashable], *, resamples: int = RESAMPLES,
    seed: int = SEED,
) -> np.ndarray:
    """Means of `values` over draws of whole `clusters` with replacement: float64 (resamples,), or
    (0,) without a scored value."""
    sums, sizes = _sums(values, clusters)
    return _resampled(sums, sizes, resamples, seed) if len(sums) else np.zeros(0)


def identity_clusters(identities: Sequence[Sequence[str]]) -> list[str]:
    """A cluster name for each sample from its identities.

    Samples that share an identity, directly or through others, are one cluster. If that joins all
    into one, the set of identities is the cluster instead."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for names in identities:
        for name in names:
            parent[root(name)] = root(names[0])
    joined = [root(names[0]) if names else "" for names in identities]
    if len(set(joined)) > 1:
        return joined
    return ["+".join(sorted(names)) for names in identities]


def sign_flip(
    differences: Values, clusters: Sequence[Hashable], *, resamples: int = RESAMPLES
) -> float | None:
    """Two-sided p-value of "paired differences have mean 0", 0..1, flipping whole clusters.

    All sign patterns are tried if there are at most `resamples` of them, else that many random
    ones. None with fewer than two clusters."""
    sums, _ = _sums(differences, clusters)
    count = len(sums)
    if count < 2:
        return None
    exact = 2**count <= resamples
    if exact:
        signs = 1.0 - 2.0 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)
    else:
        rng = np.random.default_rng(SEED)
        signs = 1.0 - 2.0 * rng.integers(0, 2, (resamples, count))
    observed = abs(sums.sum())
    # A pattern that ties with the observed one counts, whatever the rounding.
    extreme = int((np.abs(signs @ sums) >= observed * (1 - 1e-9) - 1e-12).sum())
    return extreme / len(signs) if exact else (extreme + 1) / (len(signs) + 1)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """`p_values` of one family corrected by Holm (1979), in the same order; None stays None."""
    known = [i for i, p in enumerate(p_values) if p is not None]
    order = sorted(known, key=lambda i: p_values[i])  # type: ignore[arg-type, return-value]
    raw = np.array([p_values[i] for i in order], np.float64)
    stepped = np.minimum(1.0, np.maximum.accumulate(raw * np.arange(len(raw), 0, -1)))
    found: list[float | None] = [None] * len(p_values)
    for i, p in zip(order, stepped.tolist(), strict=True):
        found[i] = p
    return found


def _sums(values: Values, clusters: Sequence[Hashable]) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the scored values of each cluster, float64."""
    array = np.asarray(values, np.float64)
    scored = ~np.isnan(array)
    named = [c for c, known in zip(clusters, scored, strict=True) if known]
    index = {c: i for i, c in enumerate(dict.fromkeys(named))}
    which = np.array([index[c] for c in named], np.int64)
    sums = np.bincount(which, weights=array[scored], minlength=len(index))
    return sums, np.bincount(which, minlength=len(index)).astype(np.float64)


def _interval(
    sums: np.ndarray, sizes: np.ndarray, mean: float, resamples: int
) -> tuple[float | None, float | None]:
    count = len(sums)
    if count < 2:
        return None, None
    if np.ptp(sums / sizes) <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    from scipy.special import ndtr, ndtri, stdtrit

    means = _resampled(sums, sizes, resamples, SEED)
    # Few clusters make a bootstrap interval too short: widened as in Hesterberg, "What teachers
    # should know about the bootstrap" (2015), section 3.3, so that it covers as a t interval.
    z = np.sqrt(count / (count - 1)) * stdtrit(count - 1, (1 + LEVEL) / 2) * np.array([-1.0, 1.0])
    # BCa: bias by how often a resampled mean is smaller, acceleration by the jackknife. Formulas
    # as in scipy.stats.bootstrap, which is too slow for large tables (a test compares the two).
    share = ((means < mean).mean() + (means <= mean).mean()) / 2
    left_out = (sums.sum() - sums) / (sizes.sum() - sizes)
    spread = left_out.mean() - left_out
    scale = (spread**2).sum() ** 1.5
    if 0 < share < 1 and scale > 0:
        bias, acceleration = ndtri(share), (spread**3).sum() / (6 * scale)
        shifted = bias + z
        z = bias + shifted / (1 - acceleration * shifted)
    low, high = np.quantile(means, ndtr(z))
    return float(low), float(high)


def _resampled(sums: np.ndarray, sizes: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Means over `resamples` draws of clusters with replacement: float64 (resamples,)."""
    rng = np.random.default_rng(seed)
    count = len(sums)
    rows = max(1, min(resamples, 2_000_000 // count))  # memory stays flat however many clusters
    found = []
    for first in range(0, resamples, rows):
        drawn = rng.integers(0, count, (min(rows, resamples - first), count))
        found.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(found)


def area_under_curve(positive: ArrayLike, negative: ArrayLike) -> float | None:
    """Area under the ROC curve (0..1), None if either side is empty: the chance that a value of
    `positive` is above one of `negative`, ties counting half. Source: Mann and Whitney (1947)."""
    from scipy.stats import rankdata

    above, below = np.ravel(positive), np.ravel(negative)
    if not len(above) or not len(below):
        return None
    ranks = rankdata(np.concatenate([above, below]))[: len(above)]
    pairs_within = len(above) * (len(above) + 1) / 2
    return float((ranks.sum() - pairs_within) / (len(above) * len(below)))


def true_accept_rate(
    genuine: np.ndarray, impostor: np.ndarray, false_accept_rate: float
) -> tuple[float, float]:
    """Share of genuine pairs above the threshold that accepts this share of impostor pairs (TAR at
    FAR), and the threshold."""
    threshold = float(np.quantile(impostor, 1.0 - false_accept_rate))
    return float(np.mean(genuine > threshold)), threshold
