"""Means and intervals: against a plain bootstrap, against simulation, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idbench.statistics import difference, estimate, identity_clusters


def simulated(rng: np.random.Generator, people: int, videos: int) -> tuple[list[float], list[int]]:
    """Values around 0.4 with as much spread between people as within."""
    values = 0.4 + rng.normal(0, 0.1, (people, 1)) + rng.normal(0, 0.1, (people, videos))
    return values.ravel().tolist(), np.repeat(np.arange(people), videos).tolist()


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    for people in (8, 24):
        hits = 0
        for _ in range(150):
            found = estimate(*simulated(rng, people, 4), resamples=2000)
            assert found.low is not None and found.high is not None
            hits += found.low <= 0.4 <= found.high
        assert 0.89 <= hits / 150 <= 0.99


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
    found = difference(first, second, people)
    assert found.low is not None and found.low > 0
    assert width(found) < 0.2 * width(estimate(first, people))
    assert difference([0.5, None], [0.1, 0.2], ["a", "b"]).scored == 1


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
