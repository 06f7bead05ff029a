"""Similar people in other videos, and of them the partners for every output, in one pass.

The search is in exact blocks up to a limit, by FAISS beyond it. Both find pairs of people of
different videos whose cosine is at least a threshold, with the same cosines to six decimals. Exact
blocks find all of them. FAISS searches an inverted file and may miss a few in a hundred near the
threshold, more with a lower threshold.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.settings import PairSettings, Range
from idbench.picture_hash import are_copies

QUERY_BLOCK = 1024
BASE_BLOCK = 8192
_RECHECK = 16_384
"""Pairs whose exact cosine is computed at a time."""
_SLACK = 1e-4
"""float32 products may fall this much below the true cosine."""
BIN = 0.01
"""Width of a bar of the histograms."""
SAMPLED_PAIRS = 200_000


@dataclass(frozen=True)
class Similar:
    """Pairs of people, k of them: `rows` asks, `columns` is alike. Each pair comes both ways."""

    rows: np.ndarray
    columns: np.ndarray
    cosines: np.ndarray


def similar_people(
    vectors: np.ndarray, video: np.ndarray, low: float, exact_limit: int
) -> Iterator[Similar]:
    """All pairs of different videos with a cosine of at least `low`, block by block; vectors
    float32 (n, d) of length 1, and the video (n,) that each person is in. With more than
    `exact_limit` people FAISS is used. Raises UserError: it is not installed."""
    check_size(len(vectors), exact_limit)
    found = _exact(vectors, low) if len(vectors) <= exact_limit else _faiss(vectors, low)
    for rows, columns in found:
        other = video[rows] != video[columns]
        rows, columns = rows[other], columns[other]
        for start in range(0, len(rows), _RECHECK):
            part = slice(start, start + _RECHECK)
            cosines = exact_cosines(vectors, rows[part], columns[part])
            keep = cosines >= low
            if keep.any():
                yield Similar(rows[part][keep], columns[part][keep], cosines[keep])


def check_size(people: int, exact_limit: int) -> None:
    """Refuse more people than can be searched here. Raises UserError: more than `exact_limit` and
    FAISS is not installed."""
    if people > exact_limit and importlib.util.find_spec("faiss") is None:
        raise UserError(
            f"{people} people are too many for the exact search (limit {exact_limit}); install "
            "FAISS with pip install 'idbench[faiss]' and run the same command again."
        )


def exact_cosines(vectors: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """float64 (k,) cosines of pairs, rounded to six decimals. einsum always adds in the same order;
    a matrix product's order depends on its shape and the threads."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _RECHECK):
        part = slice(start, start + _RECHECK)
        found[part] = np.einsum(
            "ij,ij->i", vectors[rows[part]], vectors[columns[part]], dtype=np.float64
        )
    return found.round(6)


def _exact(vectors: np.ndarray, low: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(vectors), QUERY_BLOCK):
        asking = vectors[start : start + QUERY_BLOCK]
        for first in range(0, len(vectors), BASE_BLOCK):
            product = asking @ vectors[first : first + BASE_BLOCK].T
            rows, columns = np.nonzero(product >= low - _SLACK)
            if len(rows):
                yield rows + start, columns + first


def _faiss(vectors: np.ndarray, low: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """An inverted file of about 4 sqrt(n) cells; an eighth of them, at least 16, is searched."""
    import faiss

    count, width = vectors.shape
    cells = max(1, min(int(4 * np.sqrt(count)), count // 39))  # FAISS asks for 39 points a cell
    index = faiss.index_factory(width, f"IVF{cells},Flat", faiss.METRIC_INNER_PRODUCT)
    rng = np.random.default_rng(0)
    sample = rng.choice(count, min(count, 64 * cells), replace=False)
    index.train(np.ascontiguousarray(vectors[np.sort(sample)]))
    for start in range(0, count, BASE_BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + BASE_BLOCK]))
    index.nprobe = min(cells, max(16, cells // 8))  # type: ignore[attr-defined]
    for start in range(0, count, QUERY_BLOCK):
        asking = np.ascontiguousarray(vectors[start : start + QUERY_BLOCK])
        limits, _, columns = index.range_search(asking, low - _SLACK)
        rows = np.repeat(np.arange(len(asking)), np.diff(limits.astype(np.int64))) + start
        order = np.lexsort((columns, rows))  # FAISS gives cells in no fixed order
        if len(rows):
            yield rows[order], columns[order].astype(np.int64)


def random_order(keys: np.ndarray, rows: np.ndarray, columns: np.ndarray, seed: int) -> np.ndarray:
    """A random number, uint64 (k,), for each pair of people, of their keys and the seed alone; the
    smallest marks the random partner.

    So the choice does not depend on the order of the search, and an added video changes a choice
    only if it is chosen itself. Source: splitmix64 (Steele, Lea, Flood, 2014)."""
    with np.errstate(over="ignore"):
        mixed = _mix(keys[rows] + np.uint64(seed) * np.uint64(0x9E3779B97F4A7C15))
        return _mix(mixed ^ keys[columns])


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


class Best:
    """For each of `count` people the partner of smallest value so far, among pairs within
    `interval` (lower end included): the smallest cosine if `smallest`, else the smallest random
    number."""

    def __init__(self, count: int, interval: tuple[float, float], smallest: bool) -> None:
        self.interval, self.smallest = interval, smallest
        self.partner = np.full(count, -1, np.int64)
        self.cosine = np.full(count, np.nan)
        self._random = np.zeros(count, np.uint64)

    def add(self, pairs: Similar, order: np.ndarray) -> None:
        """Take more pairs; `order`: their random numbers."""
        low, high = self.interval
        within = (pairs.cosines >= low) & (pairs.cosines < high)
        if not within.any():
            return
        rows, columns = pairs.rows[within], pairs.columns[within]
        cosines, order = pairs.cosines[within], order[within]
        had = np.unique(rows)
        had = had[self.partner[had] >= 0]
        # Earlier choices compete with the new pairs.
        rows = np.concatenate([rows, had])
        columns = np.concatenate([columns, self.partner[had]])
        cosines = np.concatenate([cosines, self.cosine[had]])
        order = np.concatenate([order, self._random[had]])
        keys = (columns, order, cosines, rows) if self.smallest else (columns, order, rows)
        sorted_ = np.lexsort(keys)
        first = sorted_[np.unique(rows[sorted_], return_index=True)[1]]
        self.partner[rows[first]] = columns[first]
        self.cosine[rows[first]] = cosines[first]
        self._random[rows[first]] = order[first]


@dataclass(frozen=True)
class Request:
    """Partners wanted for one output.

    Attributes:
        interval: of cosines, lower end included, upper end not.
        rows, columns: bool (n,), people that need a partner, and those that may be one.
        smallest: whether the partner of smallest cosine is taken; else a random one.
        salt: differs between outputs, so that their random choices do.
    """

    interval: Range
    rows: np.ndarray
    columns: np.ndarray
    smallest: bool = False
    salt: int = 0


@dataclass
class Similarity:
    """Counts of the pairs that were searched, each pair once.

    Attributes:
        low: pairs with a lower cosine were not searched.
        above: number of pairs by cosine from -1 to 1 in steps of `BIN`, from `low` on.
        sampled: the same for a random sample of all pairs of different videos.
        pairs: number of pairs of different videos.
        copies: people of near-copies of one video, who would have been partners.
        same, different: labelled pairs of at least `low`, of one person and of two.
    """

    low: float
    above: np.ndarray = field(default_factory=lambda: np.zeros(round(2 / BIN), np.int64))
    sampled: np.ndarray = field(default_factory=lambda: np.zeros(round(2 / BIN), np.int64))
    pairs: int = 0
    same: int = 0
    different: int = 0
    copies: set[tuple[int, int]] = field(default_factory=set)

    def as_dict(self) -> dict[str, Any]:
        """JSON values; histograms as {lower end: pairs} without empty bars."""
        return {
            "lowest_cosine_searched": self.low, "pairs_of_different_videos": self.pairs,
            "pairs_found": int(self.above.sum()), "found": _bars(self.above),
            "sample_of_all_pairs": _bars(self.sampled),
        }


def requests(people: People, settings: PairSettings) -> dict[str, Request]:
    """The partners that each output needs."""
    single = people.group == 1
    several = people.group > 1
    low, high = settings.face_area
    seen = single & (people.share >= low) & (people.share <= high)
    anyone = np.ones(len(people), bool)
    return {
        "cross": Request(settings.cross, single, single, salt=1),
        "tradeoff": Request(settings.tradeoff, seen, seen, smallest=True, salt=2),
        "multi": Request(settings.multi, several, anyone, salt=3),
        "tryon": Request(settings.multi, single & people.garment, single, salt=4),
        "background": Request(settings.multi, single & people.background, single, salt=5),
    }


def find_partners(
    people: People, wanted: Mapping[str, Request], settings: PairSettings,
    identity: np.ndarray | None = None,
) -> tuple[dict[str, Best], Similarity]:
    """The partner of every person for every request, in one pass; `identity` (n,): the true person
    of each entry, -1 if unknown. Raises UserError: more people than the exact search takes, and no
    FAISS."""
    best = {name: Best(len(people), r.interval, r.smallest) for name, r in wanted.items()}
    low = min([r.interval[0] for r in wanted.values()], default=settings.lowest_cosine)
    seen = Similarity(low)
    for pairs in similar_people(people.vectors, people.video, low, settings.exact_limit):
        once = pairs.rows < pairs.columns
        seen.above += _histogram(pairs.cosines[once])
        if identity is not None:
            first, second = identity[pairs.rows[once]], identity[pairs.columns[once]]
            known = (first >= 0) & (second >= 0)
            seen.same += int((known & (first == second)).sum())
            seen.different += int((known & (first != second)).sum())
        copied = are_copies(people.prints[pairs.rows], people.prints[pairs.columns])
        for name, request in wanted.items():
            use = request.rows[pairs.rows] & request.columns[pairs.columns]
            low, high = request.interval
            asked = use & copied & (pairs.cosines >= low) & (pairs.cosines < high)
            both = zip(pairs.rows[asked].tolist(), pairs.columns[asked].tolist(), strict=True)
            seen.copies |= {(min(pair), max(pair)) for pair in both}
            use &= ~copied
            if use.any():
                part = Similar(pairs.rows[use], pairs.columns[use], pairs.cosines[use])
                order = random_order(
                    people.keys, part.rows, part.columns,
                    (settings.seed * 16 + request.salt) % 2**64,
                )
                best[name].add(part, order)
    sizes = np.unique(people.video, return_counts=True)[1].astype(np.int64)
    total = int(sizes.sum())
    seen.pairs = int((total * total - (sizes * sizes).sum()) // 2)
    seen.sampled += _sampled(people, settings.seed)
    return best, seen


def _histogram(cosines: np.ndarray) -> np.ndarray:
    places = np.floor((cosines + 1) / BIN + 1e-9).astype(int)
    bars = round(2 / BIN)
    return np.bincount(np.clip(places, 0, bars - 1), minlength=bars)


def _sampled(people: People, seed: int) -> np.ndarray:
    """Histogram of all pairs where those are few, else of `SAMPLED_PAIRS` random ones."""
    count = len(people)
    if count * (count - 1) // 2 <= SAMPLED_PAIRS:
        rows, columns = np.triu_indices(count, 1)
    else:
        rng = np.random.default_rng([seed, 1])
        rows, columns = rng.integers(0, count, (2, SAMPLED_PAIRS))
    other = people.video[rows] != people.video[columns]
    return _histogram(exact_cosines(people.vectors, rows[other], columns[other]))


def _bars(counts: np.ndarray) -> dict[str, int]:
    return {f"{-1 + BIN * i:.2f}": int(n) for i, n in enumerate(counts) if n}
