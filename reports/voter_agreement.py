"""Agreement between voters, and Bradley-Terry strengths of systems from paired comparisons."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from scipy.special import expit

from idbench.statistics import LEVEL

ITERATIONS = 200
TOLERANCE = 1e-9


def counts(ratings: Sequence[Sequence[Hashable]]) -> np.ndarray:
    """(units, categories) how often each category was given to each unit."""
    names = list(dict.fromkeys(category for of in ratings for category in of))
    counted = [[of.count(name) for name in names] for of in ratings]
    return np.array(counted, np.float64).reshape(len(ratings), len(names))


def raw_agreement(table: np.ndarray) -> float | None:
    """Share 0..1 of pairs of votes on one unit that agree; None where no unit has two votes."""
    votes = table.sum(1)
    pairs = (votes * (votes - 1)).sum()
    return float((table * (table - 1)).sum() / pairs) if pairs else None


def fleiss_kappa(table: np.ndarray) -> float | None:
    """Fleiss' kappa (1971): agreement beyond chance, at most 1, 0 as by chance.

    Units with fewer votes than the most voted ones are left out, as the formula asks for one number
    of votes. None without any, with one vote, or if every vote names one category."""
    votes = table.sum(1)
    most = votes.max() if len(votes) else 0
    if most < 2:
        return None
    full = table[votes == most]
    observed = float(((full * (full - 1)).sum(1) / (most * (most - 1))).mean())
    expected = float(((full.sum(0) / full.sum()) ** 2).sum())
    return None if expected >= 1 - 1e-12 else (observed - expected) / (1 - expected)


def krippendorff_alpha(table: np.ndarray) -> float | None:
    """Krippendorff's alpha for nominal data (2011), which allows missing votes: 1 - observed /
    expected disagreement. None if no unit has two votes, or those all name one category."""
    pairable = table[table.sum(1) >= 2]
    if not len(pairable):
        return None
    votes = pairable.sum(1)
    total = votes.sum()
    within = pairable / (votes - 1)[:, None]
    disagree = float((within * (votes[:, None] - pairable)).sum()) / total
    by_category = pairable.sum(0)
    expected = float((by_category * (total - by_category)).sum()) / (total * (total - 1))
    return None if expected <= 1e-12 else 1 - disagree / expected


def bradley_terry(wins: np.ndarray) -> np.ndarray:
    """Log strengths (..., systems) of mean 0 from wins (..., systems, systems).

    `wins[..., i, j]` counts how often i was preferred to j; a tie is half a win of each. Maximum
    likelihood by Newton's method, with half a won and half a lost comparison of each system with
    an average one added, so that every strength is finite."""
    wins = np.asarray(wins, np.float64)
    compared = wins + np.swapaxes(wins, -1, -2)
    won = wins.sum(-1) + 0.5
    logs: np.ndarray = np.zeros(wins.shape[:-1])
    for _ in range(ITERATIONS):
        # Probabilities that i wins against j, and against the average system, of log strength 0.
        against, average = expit(logs[..., :, None] - logs[..., None, :]), expit(logs)
        gradient = won - (compared * against).sum(-1) - average
        weight = compared * against * (1 - against)
        diagonal = weight.sum(-1) + average * (1 - average)
        hessian = diagonal[..., None] * np.eye(logs.shape[-1]) - weight
        step = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        # Shorter far from the maximum, where the quadratic approximation does not hold.
        logs = logs + np.clip(step, -1.0, 1.0)
        if not step.size or np.abs(step).max() < TOLERANCE:
            break
    return logs - logs.mean(-1, keepdims=True)


def bradley_terry_interval(
    wins: np.ndarray, resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log strengths, and the bounds of their 95% percentile interval, each (systems,), resampling
    clusters of wins (clusters, systems, systems); with fewer than two clusters the bounds are
    NaN."""
    wins = np.asarray(wins, np.float64)
    found = bradley_terry(wins.sum(0))
    number = len(wins)
    if number < 2:
        return found, np.full_like(found, np.nan), np.full_like(found, np.nan)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(number, np.full(number, 1 / number), size=resamples)
    strengths = bradley_terry(np.einsum("bc,cij->bij", drawn, wins))
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(strengths, [tail, 1 - tail], axis=0)
    return found, low, high
