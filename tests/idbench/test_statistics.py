"""Means and intervals: against a plain bootstrap, against simulation, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from idbench.statistics import (
    area_under_curve,
    estimate,
    holm,
    identity_clusters,
    resampled_means,
    sign_flip,
    true_accept_rate,
)


def simulated(rng: np.random.Generator, people: int, videos: int) -> tuple[list[float], list[int]]:
    """Values around 0.4 with as much spread between people as within."""
    values = 0.4 + rng.normal(0, 0.1, (people, 1)) + rng.normal(0, 0.1, (people, videos))
    return values.ravel().tolist(), np.repeat(np.arange(people), videos).tolist()


@pytest.mark.parametrize("people", [8, 24])
def test_intervals_cover_the_truth_as_often_as_they_say(people: int) -> None:
    """Nominal 95 % covers 93 to 97 % with clustered data; the naive interval does not."""
    rng = np.random.default_rng(0)
    trials, hits, naive_hits = 1000, 0, 0
    for _ in range(trials):
        values, who = simulated(rng, people, 6)
        found = estimate(values, who, resamples=2000)
        assert found.low is not None and found.high is not None
        hits += found.low <= 0.4 <= found.high
        error = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
        naive_hits += abs(np.mean(values) - 0.4) <= error
    assert 0.93 <= hits / trials <= 0.97
    assert naive_hits / trials < 0.85


def test_the_interval_is_that_of_scipy() -> None:
    values, people = simulated(np.random.default_rng(2), 40, 3)
    skewed = np.exp(4 * np.array(values))
    found = estimate(skewed.tolist(), people, resamples=20_000)
    sums = skewed.reshape(40, 3).sum(axis=1)
    tail = stats.norm.cdf(-np.sqrt(40 / 39) * stats.t.ppf(0.975, 39))
    expected = stats.bootstrap(
        (sums / 3,), np.mean, n_resamples=20_000, confidence_level=1 - 2 * tail, method="BCa",
        rng=np.random.default_rng(9),
    ).confidence_interval
    size = expected.high - expected.low
    assert found.low == pytest.approx(expected.low, abs=0.02 * size)
    assert found.high == pytest.approx(expected.high, abs=0.02 * size)


@pytest.mark.parametrize("people", [5, 9])
def test_few_people_widen_the_interval_as_student_does(people: int) -> None:
    """Symmetric values have no bias and no acceleration: what is left is the widening."""
    values = np.linspace(-1.0, 1.0, people).tolist()
    found = estimate(values, range(people), resamples=100_000)
    means = resampled_means(values, range(people), resamples=100_000, seed=1)
    tail = stats.norm.cdf(-np.sqrt(people / (people - 1)) * stats.t.ppf(0.975, people - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    assert found.low == pytest.approx(low, abs=0.04) and found.high == pytest.approx(high, abs=0.04)


def test_sign_flips_are_those_of_scipy() -> None:
    rng = np.random.default_rng(6)
    for people in (7, 30):
        values = rng.normal(0.25, 0.5, people)
        expected = stats.permutation_test(
            (values, np.zeros(people)), lambda a, b, axis: (a - b).mean(axis=axis),
            permutation_type="samples", vectorized=True, n_resamples=20_000,
            rng=np.random.default_rng(1),
        ).pvalue
        found = sign_flip(values.tolist(), range(people), resamples=20_000)
        assert found == pytest.approx(expected, abs=1e-12 if people == 7 else 0.01)
    assert sign_flip([0.1, 0.2], ["a", "a"]) is None
    # Ten equal differences of one person are one observation, not ten.
    assert sign_flip([0.1] * 10 + [0.2] * 10, [0] * 10 + [1] * 10) == 0.5


def test_sign_flips_find_nothing_where_nothing_is() -> None:
    rng = np.random.default_rng(7)
    found = [sign_flip(rng.normal(size=12).tolist(), range(12), resamples=2000)
             for _ in range(400)]
    assert 0.02 <= np.mean([p <= 0.05 for p in found if p is not None]) <= 0.08


def test_holm_steps_down_and_never_below_the_one_before() -> None:
    assert holm([0.01, 0.04, 0.03, None]) == pytest.approx([0.03, 0.06, 0.06, None])
    assert holm([0.6, 0.7]) == [1.0, 1.0] and holm([]) == []


def test_videos_of_one_person_are_not_independent() -> None:
    values, people = simulated(np.random.default_rng(1), 12, 10)
    clustered = estimate(values, people)
    naive = estimate(values, range(len(values)))
    assert clustered.mean == naive.mean
    assert width(clustered) > 1.5 * width(naive)


def width(found: object) -> float:
    return found.high - found.low  # type: ignore[attr-defined]


def test_agrees_with_a_plain_numpy_bootstrap_of_clusters() -> None:
    values, people = simulated(np.random.default_rng(2), 40, 3)
    array = np.array(values).reshape(40, 3)
    rng = np.random.default_rng(3)
    means = [array[rng.integers(0, 40, 40)].mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    found = estimate(values, people)
    assert found.low == pytest.approx(low, abs=0.1 * (high - low))
    assert found.high == pytest.approx(high, abs=0.1 * (high - low))


def test_same_values_give_the_same_interval() -> None:
    values, people = simulated(np.random.default_rng(4), 10, 3)
    assert estimate(values, people) == estimate(values, people)


def test_unscored_leave_the_mean_and_count_in_coverage() -> None:
    found = estimate([0.2, None, 0.4, None], ["a", "a", "b", "c"])
    assert found.mean == pytest.approx(0.3)
    assert (found.n, found.scored, found.coverage, found.clusters) == (4, 2, 0.5, 2)
    nothing = estimate([None, None], ["a", "b"])
    assert (nothing.mean, nothing.low, nothing.coverage) == (None, None, 0.0)
    assert estimate([], []).coverage is None


def test_one_person_has_a_mean_and_no_interval() -> None:
    found = estimate([0.2, 0.4], ["a", "a"])
    assert found.mean == pytest.approx(0.3) and found.low is None and found.high is None


def test_paired_difference_is_sharper_than_two_means() -> None:
    rng = np.random.default_rng(5)
    first, people = simulated(rng, 12, 4)
    second = [v - 0.02 + rng.normal(0, 0.005) for v in first]
    found = estimate(np.subtract(first, second), people)
    assert found.low is not None and found.low > 0
    assert width(found) < 0.2 * width(estimate(first, people))
    assert estimate([0.4, None], ["a", "b"]).scored == 1


def test_samples_that_share_people_are_one_cluster() -> None:
    assert len(set(identity_clusters([("a",), ("a",), ("b",)]))) == 2
    chain = identity_clusters([("a", "b"), ("b", "c"), ("d", "e"), ("e", "d")])
    assert chain[0] == chain[1] != chain[2] == chain[3]
    # All connected: the pairs themselves are the clusters.
    ring = identity_clusters([("a", "b"), ("b", "c"), ("c", "a"), ("b", "a")])
    assert len(set(ring)) == 3 and ring[0] == ring[3]


@settings(max_examples=40, deadline=None)
@given(st.lists(
    st.tuples(st.one_of(st.none(), st.floats(-2, 2)), st.integers(0, 5)), min_size=1, max_size=30
))
def test_interval_holds_the_mean_of_anything(rows: list[tuple[float | None, int]]) -> None:
    found = estimate([v for v, _ in rows], [c for _, c in rows], resamples=2000)
    if found.low is not None and found.high is not None and found.mean is not None:
        assert np.isfinite([found.low, found.high]).all()
        assert found.low - 1e-9 <= found.high
        values = [v for v, _ in rows if v is not None]
        assert min(values) - 1e-9 <= found.low and found.high <= max(values) + 1e-9


def test_resampled_means_draw_whole_clusters() -> None:
    values: list[float | None] = [0.0, 0.1, None, 1.0, 1.1, None]
    people = ["a", "a", "a", "b", "b", "c"]
    means = resampled_means(values, people, resamples=4000, seed=0)
    # Two people have a value: both drawn twice, or one of each, whatever c has not.
    assert sorted({round(float(m), 6) for m in means}) == [0.05, 0.55, 1.05]
    assert np.mean(np.isclose(means, 0.55)) == pytest.approx(0.5, abs=0.05)
    again = resampled_means(values, people, resamples=4000, seed=0)
    np.testing.assert_array_equal(again, means)
    assert resampled_means([None], ["a"], resamples=5).shape == (0,)


def test_true_accept_rate() -> None:
    impostor = np.linspace(-1, 0.5, 10_001)
    rate, threshold = true_accept_rate(np.array([0.4, 0.49, 0.499, 0.9]), impostor, 1e-3)
    assert rate == 0.5 and threshold == pytest.approx(0.4985, abs=1e-3)


@given(*[st.lists(st.integers(-3, 3), min_size=1, max_size=8) for _ in range(2)])
def test_the_area_under_the_curve_counts_pairs_and_ties(above: list[int], below: list[int]) -> None:
    pairs = [(a > b) + 0.5 * (a == b) for a in above for b in below]
    assert area_under_curve(above, below) == pytest.approx(np.mean(pairs))


def test_the_area_under_the_curve_of_nothing_is_unknown() -> None:
    assert area_under_curve([], [1.0]) is None and area_under_curve([1.0], []) is None
