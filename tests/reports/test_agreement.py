"""Agreement and Bradley-Terry against published examples and an independent maximiser."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from idbench.reports.voter_agreement import (
    bradley_terry,
    bradley_terry_interval,
    counts,
    fleiss_kappa,
    krippendorff_alpha,
    raw_agreement,
)

# The worked example of the article "Fleiss' kappa": 10 subjects, 14 raters, 5 categories.
FLEISS = np.array([
    [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
], float)
# Krippendorff (2011), example C: four observers, twelve units, with missing data.
KRIPPENDORFF = [
    [1, 1, 1], [2, 2, 3, 2], [3, 3, 3, 3], [3, 3, 3, 3], [2, 2, 2, 2], [1, 2, 3, 4],
    [4, 4, 4, 4], [1, 1, 2, 1], [2, 2, 2, 2], [5, 5, 5], [1, 1], [3],
]


def test_fleiss_kappa_of_the_worked_example() -> None:
    assert fleiss_kappa(FLEISS) == pytest.approx(0.210, abs=5e-4)


def test_krippendorffs_alpha_of_his_own_example() -> None:
    assert krippendorff_alpha(counts(KRIPPENDORFF)) == pytest.approx(0.743, abs=5e-4)


@pytest.mark.parametrize("measure", [fleiss_kappa, krippendorff_alpha])
def test_perfect_agreement_is_one_and_random_votes_are_near_zero(measure) -> None:
    assert measure(counts([["a"] * 3, ["b"] * 3])) == pytest.approx(1)
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 2, (4000, 3)).tolist()
    assert abs(measure(counts(votes))) < 0.03


def test_what_cannot_be_said_is_not_said() -> None:
    single, constant = counts([["a"], ["b"]]), counts([["a", "a"], ["a", "a"]])
    assert fleiss_kappa(single) is krippendorff_alpha(single) is raw_agreement(single) is None
    assert fleiss_kappa(constant) is krippendorff_alpha(constant) is None
    assert raw_agreement(constant) == 1
    assert fleiss_kappa(counts([])) is None


def test_raw_agreement_counts_pairs_of_votes() -> None:
    assert raw_agreement(counts([["a", "a", "b"], ["b", "b"]])) == pytest.approx(2 / 4)


def _loss(logs: np.ndarray, wins: np.ndarray) -> float:
    difference = logs[:, None] - logs[None, :]
    real = (wins * np.logaddexp(0, -difference)).sum()
    average = 0.5 * (np.logaddexp(0, -logs) + np.logaddexp(0, logs)).sum()
    return real + average


def test_strengths_are_those_of_a_general_maximiser() -> None:
    wins = np.array([[0, 8, 5.5, 9], [2, 0, 3, 6], [4.5, 7, 0, 8], [1, 4, 2, 0]])
    found = minimize(_loss, np.zeros(4), args=(wins,), tol=1e-12).x
    assert bradley_terry(wins) == pytest.approx(found - found.mean(), abs=1e-4)


def test_strengths_are_recovered_with_intervals_that_cover_them() -> None:
    true = np.array([0.8, 0.1, -0.9])
    rng = np.random.default_rng(3)
    hits = 0
    for _ in range(60):
        chance = 1 / (1 + np.exp(true[None, :] - true[:, None]))
        wins = np.triu(rng.binomial(6, chance, (40, 3, 3)), 1).astype(float)
        wins += np.swapaxes(np.triu(6 - wins, 1), 1, 2)
        strengths, low, high = bradley_terry_interval(wins, 300, 0)
        hits += int(((low <= true) & (true <= high)).sum())
        assert strengths == pytest.approx(true, abs=0.5)
    assert 0.88 <= hits / 180 <= 1


def test_strengths_of_many_votes_have_converged() -> None:
    """Each system always beats those after it: who wins is as far up as who loses is down."""
    found = bradley_terry(np.triu(np.full((4, 4), 1e5), 1))
    assert found == pytest.approx(-found[::-1], abs=1e-6) and found[0] > 10


def test_who_never_lost_is_strongest_and_finite() -> None:
    wins = np.array([[0, 5, 5], [0, 0, 3], [0, 2, 0.0]])
    found = bradley_terry(wins)
    assert np.isfinite(found).all() and found.argmax() == 0
    assert np.isnan(bradley_terry_interval(wins[None], 10, 0)[1]).all()
