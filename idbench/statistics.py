"""Means with honest uncertainty: bootstrap over identities, not over videos.

Videos of one identity are not independent: a face that is hard stays hard under every prompt.
So identities are drawn with replacement, each with all of its videos.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4_000
LEVEL = 0.95
SEED = 20_250_702


@dataclass(frozen=True)
class Estimate:
    """A mean over scored samples.

    Attributes:
        mean: mean of the scored values; None when nothing was scored.
        low, high: bounds of the 95 % interval; None with fewer than two clusters.
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


def estimate(
    values: Sequence[float | None], clusters: Sequence[Hashable], *,
    resamples: int = RESAMPLES, seed: int = SEED,
) -> Estimate:
    """Mean of `values` (None: unscored) and its interval, resampling whole `clusters`.

    The interval is scipy's bias-corrected accelerated bootstrap (Efron 1987) of the ratio of
    sums over clusters, widened for few clusters, with a fixed seed: the same values give the
    same interval.
    """
    if len(values) != len(clusters):
        raise ValueError("one cluster for each value")
    pairs = [(v, c) for v, c in zip(values, clusters, strict=True) if v is not None]
    if not pairs:
        return Estimate(None, None, None, len(values), 0, 0)
    array = np.array([v for v, _ in pairs], np.float64)
    index = {c: i for i, c in enumerate(dict.fromkeys(c for _, c in pairs))}
    which = np.array([index[c] for _, c in pairs])
    sums = np.bincount(which, weights=array, minlength=len(index))
    sizes = np.bincount(which, minlength=len(index)).astype(np.float64)
    mean = float(array.mean())
    low, high = _interval(sums, sizes, mean, resamples, seed)
    return Estimate(mean, low, high, len(values), len(array), len(index))


def difference(
    first: Sequence[float | None], second: Sequence[float | None], clusters: Sequence[Hashable],
    *, resamples: int = RESAMPLES, seed: int = SEED,
) -> Estimate:
    """Mean of first - second over the samples that both have scored, paired, with interval."""
    paired = [
        None if a is None or b is None else a - b for a, b in zip(first, second, strict=True)
    ]
    return estimate(paired, clusters, resamples=resamples, seed=seed)


def identity_clusters(identities: Sequence[Sequence[str]]) -> list[str]:
    """A cluster name for each sample from its identities.

    Samples that share an identity, directly or through others, are one cluster. Where that
    joins all into one (every pair drawn from the same few people), the set of identities is
    the cluster: the best that such a design allows.
    """
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


def _interval(
    sums: np.ndarray, sizes: np.ndarray, mean: float, resamples: int, seed: int
) -> tuple[float | None, float | None]:
    if len(sums) < 2:
        return None, None
    ratios = sums / sizes
    if np.ptp(ratios) <= 1e-12 * max(1.0, abs(mean)):
        return mean, mean
    import warnings

    from scipy.stats import bootstrap, norm, t

    # Few clusters make a bootstrap interval too short: widened as in Hesterberg, "What teachers
    # should know about the bootstrap" (2015), section 3.3, so that it covers as a t interval.
    count = len(sums)
    tail = norm.cdf(-np.sqrt(count / (count - 1)) * t.ppf((1 + LEVEL) / 2, count - 1))

    def ratio(s: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return s.sum(axis=axis) / n.sum(axis=axis)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for method in ("BCa", "percentile"):
            found = bootstrap(
                (sums, sizes), ratio, paired=True, vectorized=True, n_resamples=resamples,
                confidence_level=1 - 2 * float(tail), method=method,
                rng=np.random.default_rng(seed),
            ).confidence_interval
            # BCa has no answer when nearly all clusters are equal.
            if np.isfinite(found.low) and np.isfinite(found.high):
                return float(found.low), float(found.high)
    return None, None
