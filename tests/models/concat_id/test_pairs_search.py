"""Pairs: the search for partners, and the outputs made of them."""

from __future__ import annotations

import importlib.util
import random
import sys
import types

import numpy as np
import pandas as pd
import pytest
from pair_world import PairWorld

from idbench.errors import UserError
from idbench.models.concat_id.pairs import (
    partners,
    people,
    stages,
)
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.picture_hash import are_copies


def world(seed: int = 0, identities: int = 30, each: int = 4, groups: tuple[int, ...] = ()):
    """People of random identities at random closeness; `groups` are videos of several people."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(identities, 32))
    rows = [(i,) for i in range(identities) for _ in range(each)]
    rows += [tuple(rng.choice(identities, size, replace=False)) for size in groups]
    who = np.array([i for row in rows for i in row])
    vectors = base[who] + rng.normal(size=(len(who), 32)) * rng.uniform(0.1, 0.9, (len(who), 1))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    made = people._empty(len(who), 32)
    made.vectors[:] = vectors
    made.video[:] = np.repeat(np.arange(1, len(rows) + 1), [len(r) for r in rows])
    made.group[:] = np.repeat([len(r) for r in rows], [len(r) for r in rows])
    made.person[:] = [k for r in rows for k in range(len(r))]
    made.keys[:] = [people.person_key(f"v{v}", p) for v, p in
                    zip(made.video, made.person, strict=True)]
    made.share[:] = rng.uniform(0.01, 1.0, len(who))
    made.flow[:], made.motion[:] = rng.uniform(size=(2, len(who)))
    made.aesthetic[:] = np.nan
    made.garment[:] = rng.random(len(who)) < 0.5
    return made, who


def found(made, settings=PairSettings()):  # noqa: B008
    return partners.find_partners(made, partners.requests(made, settings), settings)[0]


def naive(made, row, interval, usable):
    """Partners of one person by the definition, one by one."""
    low, high = interval
    cosines = (made.vectors.astype(float) @ made.vectors[row].astype(float)).round(6)
    return {
        j: float(cosines[j]) for j in range(len(made))
        if usable[j] and made.video[j] != made.video[row] and low <= cosines[j] < high
    }


def test_every_pair_over_the_threshold_is_found_and_no_other(monkeypatch) -> None:
    made, _ = world(groups=(2, 3, 2))
    monkeypatch.setattr(partners, "QUERY_BLOCK", 17)
    monkeypatch.setattr(partners, "BASE_BLOCK", 13)
    monkeypatch.setattr(partners, "_RECHECK", 5)
    got = {
        (int(i), int(j)): float(c)
        for block in partners.similar_people(made.vectors, made.video, 0.6, 10**6)
        for i, j, c in zip(block.rows, block.columns, block.cosines, strict=True)
    }
    anyone = np.ones(len(made), bool)
    wanted = {(i, j): c for i in range(len(made))
              for j, c in naive(made, i, (0.6, 2.0), anyone).items()}
    assert got == pytest.approx(wanted, abs=2e-6) and got.keys() == wanted.keys()


def test_stage_2_takes_a_partner_in_the_range_and_stage_3_the_least_similar() -> None:
    made, _ = world(groups=(2, 2))
    best = found(made)
    single = made.group == 1
    limits = single & (made.share >= 0.04) & (made.share <= 0.9)
    drawn = 0
    for row in range(len(made)):
        near = naive(made, row, (0.7, 0.9), single)
        close = naive(made, row, (0.9, 0.99), limits)
        if single[row] and near:
            assert int(best["cross"].partner[row]) in near
            drawn += int(best["cross"].partner[row]) != min(near, key=near.get)
        else:
            assert best["cross"].partner[row] == -1
        if limits[row] and close:
            assert best["tradeoff"].cosine[row] == pytest.approx(min(close.values()), abs=1e-9)
        else:
            assert best["tradeoff"].partner[row] == -1
    assert drawn > 10  # a random one, not the nearest


def test_choices_do_not_depend_on_blocks_or_order(monkeypatch) -> None:
    made, _ = world()
    first = found(made)
    monkeypatch.setattr(partners, "QUERY_BLOCK", 7)
    monkeypatch.setattr(partners, "BASE_BLOCK", 11)
    second = found(made)
    for name in first:
        assert (first[name].partner == second[name].partner).all()
    other = found(made, PairSettings(seed=1))
    assert (first["cross"].partner != other["cross"].partner).any()
    assert (first["tradeoff"].partner == other["tradeoff"].partner).all()


def test_random_partners_are_uniform() -> None:
    keys = np.array([people.person_key(f"v{i}", 0) for i in range(20_001)], np.uint64)
    rows = np.repeat(np.arange(20_000) + 1, 4)
    columns = np.tile(np.array([0, 1, 2, 3]), 20_000)
    order = partners.random_order(keys, rows, columns, 0).reshape(-1, 4)
    shares = np.bincount(order.argmin(1), minlength=4) / 20_000
    assert np.abs(shares - 0.25).max() < 0.02


def test_beyond_the_limit_faiss_is_asked_for(monkeypatch) -> None:
    made, _ = world()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'idbench\[faiss\]'"):
        list(partners.similar_people(made.vectors, made.video, 0.7, 50))


def pairs_of(made, limit: int) -> set[tuple[int, int]]:
    return {
        (int(i), int(j))
        for block in partners.similar_people(made.vectors, made.video, 0.7, limit)
        for i, j in zip(block.rows, block.columns, strict=True)
    }


def test_faiss_finds_what_the_exact_search_finds() -> None:
    pytest.importorskip("faiss")
    made, _ = world(identities=500)
    exact, approximate = pairs_of(made, 10**6), pairs_of(made, 10)
    assert approximate <= exact
    assert len(approximate) >= 0.97 * len(exact)


def test_faiss_and_exact_search_give_the_same_neighbours_of_a_small_set() -> None:
    """So few people that FAISS looks into all its cells: then it misses nobody."""
    pytest.importorskip("faiss")
    made, _ = world(identities=100)
    assert len(made) <= 39 * 16
    assert pairs_of(made, 10**6) == pairs_of(made, 10)
    chosen = []
    for limit in (10**6, 10):
        chosen_settings = PairSettings(exact_limit=limit)
        best, _ = partners.find_partners(
            made, partners.requests(made, chosen_settings), chosen_settings
        )
        chosen.append(best)
    for name, exact in chosen[0].items():
        # Nobody asks for partners of several people: each is alone in a video.
        assert (exact.partner >= 0).any() or name not in ("cross", "tradeoff"), name
        np.testing.assert_array_equal(chosen[1][name].partner, exact.partner, name)
        np.testing.assert_array_equal(chosen[1][name].cosine, exact.cosine, name)


def test_pairs_are_the_same_by_faiss_and_by_the_exact_search(tmp_path) -> None:
    pytest.importorskip("faiss")
    made = PairWorld(tmp_path)
    rng = random.Random(0)
    for identity in range(12):
        for take in range(4):
            made.add(f"{identity}/{take}.mp4", identity, each={"cosine": rng.uniform(0.85, 0.999)})
    for out, settings in (("exact", {}), ("faiss", {"exact_limit": 1})):
        made.build(out, settings=settings)
    for name in ("cross", "tradeoff"):
        exact, found = (pd.read_parquet(tmp_path / out / f"{name}.parquet").to_json()
                        for out in ("exact", "faiss"))
        assert found == exact and exact != "{}"


def test_faiss_is_used_beyond_the_limit(monkeypatch) -> None:
    """The calls that are made to FAISS, on a stand-in that searches exactly."""

    class Index:
        def __init__(self, width: int, name: str, metric: int) -> None:
            assert name == "IVF3,Flat" and metric == 0
            self.rows = np.zeros((0, width), np.float32)
            self.trained, self.nprobe = False, 1

        def train(self, x: np.ndarray) -> None:
            self.trained = True

        def add(self, x: np.ndarray) -> None:
            assert self.trained
            self.rows = np.concatenate([self.rows, x])

        def range_search(self, x: np.ndarray, low: float):
            rows, columns = np.nonzero(x @ self.rows.T > low)
            limits = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(x)))])
            return limits.astype(np.uint64), np.zeros(len(rows), np.float32), columns

    stand_in = types.ModuleType("faiss")
    stand_in.index_factory, stand_in.METRIC_INNER_PRODUCT = Index, 0  # type: ignore[attr-defined]
    stand_in.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    monkeypatch.setitem(sys.modules, "faiss", stand_in)
    made, _ = world()
    assert pairs_of(made, 10) == pairs_of(made, 10**6)


def test_stage_3_ranks_by_what_moves_and_keeps_the_best() -> None:
    made, _ = world()
    best = found(made)
    every = stages.tradeoff(made, best["tradeoff"], PairSettings())
    few = stages.tradeoff(made, best["tradeoff"], PairSettings(tradeoff_kept=3))
    assert len(few.targets) == 3 and (few.targets == every.targets[:3]).all()
    assert (np.diff(every.score) <= 0).all()
    first, last = every.targets[0, 0], every.targets[-1, 0]
    assert made.flow[first] + made.motion[first] > made.flow[last] + made.motion[last]
    made.aesthetic[:] = np.where(np.arange(len(made)) == last, 10.0, 1.0)
    made.flow[:] = made.motion[:] = 1.0
    assert stages.tradeoff(made, best["tradeoff"], PairSettings()).targets[0, 0] == last
    for output in (every, few):
        assert output.candidates == len(output.targets) + sum(output.dropped.values())


def test_ranking_averages_ranks_and_puts_unknown_in_the_middle() -> None:
    ranks = stages.ranking([np.array([1.0, 2.0, np.nan]), np.array([10.0, 1000.0, 100.0])])
    assert ranks.tolist() == pytest.approx([(0.25 + 1 / 6) / 2, (0.75 + 5 / 6) / 2, 0.5])


def test_multi_identity_needs_two_crossed_references() -> None:
    made, who = world(groups=(2,) * 20 + (3,) * 20)
    settings = PairSettings(multi=(0.7, 0.97))
    best = found(made, settings)
    for size in (2, 3):
        output = stages.cross_of_several(made, best["multi"], size, settings)
        assert len(output.targets) > 3
        assert output.candidates == 20 == len(output.targets) + sum(output.dropped.values())
        crossed = output.partners != stages.OWN
        assert (crossed.sum(1) >= 2).all()
        assert (np.diff(made.person[output.targets], axis=1) == 1).all()  # left to right
        assert (made.video[output.targets] != made.video[output.partners])[crossed].all()
        for row in output.partners:
            assert len({p for p in row if p >= 0}) == (row >= 0).sum()
    assert (stages.cross_of_several(made, best["multi"], 3, settings).partners == stages.OWN).any()
    # The setting is that of three people; of two both are crossed whatever it says.
    one = PairSettings(multi=(0.7, 0.97), multi_crossed=1)
    best["multi"].partner[made.of_group(2)[0, 0]] = -1
    two = stages.cross_of_several(made, best["multi"], 2, one)
    assert len(two.targets) and (two.partners != stages.OWN).all()
    crossed = (stages.cross_of_several(made, best["multi"], 3, one).partners != stages.OWN).sum(1)
    assert crossed.min() == 1


def test_one_partner_for_two_people_is_a_conflict() -> None:
    together = np.array([[7, 7, 8], [1, 2, 3], [-1, -1, 5]])
    cosines = np.array([[0.9, 0.95, 0.9], [0.9, 0.9, 0.9], [np.nan, np.nan, 0.9]])
    assert stages._drop_shared(together, cosines) == 1
    assert together.tolist() == [[-1, 7, 8], [1, 2, 3], [-1, -1, 5]]


def test_try_on_needs_the_garment() -> None:
    made, _ = world()
    settings = PairSettings(multi=(0.6, 0.97))
    output = stages.with_subject(made, found(made, settings)["tryon"], "garment")
    assert len(output.targets) > 3 and made.garment[output.targets].all()
    assert output.subjects == ("garment",)
    assert output.candidates == len(output.targets) + sum(output.dropped.values())


def test_the_ends_of_every_range() -> None:
    best = partners.Best(3, (0.7, 0.9), smallest=False)
    found = partners.Similar(np.arange(3), np.array([1, 2, 0]), np.array([0.7, 0.9, 0.8]))
    best.add(found, np.ones(3, np.uint64))
    assert best.partner.tolist() == [1, -1, 0], "the lower end is included, the upper is not"
    everyone = people._empty(4, 2)
    everyone.group[:], everyone.video[:] = 1, range(4)
    everyone.share[:] = [0.04, 0.9, 0.0399, 0.901]
    assert partners.requests(everyone, PairSettings())["tradeoff"].rows.tolist() == [
        True, True, False, False]
    best = partners.Best(4, (0.9, 0.99), smallest=True)
    best.partner[:], best.cosine[:] = [1, 0, 3, 2], 0.95
    assert stages.tradeoff(everyone, best, PairSettings()).targets.tolist() == [[0], [1]]


def test_pairs_at_the_limit_are_found_and_counted_once() -> None:
    everyone = people._empty(3, 2)
    everyone.vectors[:] = [[1, 0], [0.8, 0.6], [0.6, 0.8]]  # cosines 0.8, 0.6 and 0.96
    everyone.group[:], everyone.video[:] = 1, range(3)
    (found,) = partners.similar_people(everyone.vectors, everyone.video, 0.8, 10)
    assert sorted(found.cosines.tolist()) == [0.8, 0.8, 0.96, 0.96]
    wanted = partners.requests(everyone, PairSettings())
    _, seen = partners.find_partners(everyone, wanted, PairSettings())
    assert int(seen.above.sum()) == 2 and seen.pairs == 3


def test_most_frames_make_a_copy() -> None:
    first, second = np.random.default_rng(0).integers(0, 256, (2, 1, 5, 32)).astype(np.uint8)
    for shared in range(6):
        second[0, :shared] = first[0, :shared]
        assert are_copies(first, second).tolist() == [shared >= 3]
