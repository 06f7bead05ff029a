"""One pass over all similar pairs: the partners for every output, the histogram, the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from idbench.models.concat_id.pairs.copies import are_copies
from idbench.models.concat_id.pairs.neighbours import (
    Best,
    Similar,
    exact_cosines,
    random_order,
    similar_people,
)
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.settings import PairSettings, Range

BIN = 0.01
"""Width of a bar of the histograms."""
SAMPLED_PAIRS = 200_000


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
            seen.copies |= _places(pairs, asked)
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


def _places(pairs: Similar, chosen: np.ndarray) -> set[tuple[int, int]]:
    first, second = pairs.rows[chosen].tolist(), pairs.columns[chosen].tolist()
    return {(min(a, b), max(a, b)) for a, b in zip(first, second, strict=True)}


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
