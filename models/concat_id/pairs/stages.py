"""The outputs: pre-training, cross-video and trade-off; several identities; one and a subject.

The order of several references is the order of the people in the target, by the mean x of their
faces' boxes. Two kinds of references contradict it and are dropped: faces from frames with
another order (when the video is read, `tracking.people_of`), and one partner for two people, which
makes them indistinguishable.

Source: Concat-ID, arXiv 2503.14151, Figure 2; the numbers are in `PairSettings`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata

from idbench.models.concat_id.pairs.partners import Best
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.settings import PairSettings

NO_PARTNER = "no partner with a cosine in the range"
OWN = -1
"""Instead of a partner: the reference comes from the video itself."""


@dataclass(frozen=True)
class Output:
    """The pairs of one parquet file, m videos with k identities each.

    Attributes:
        name, title: of the file, without suffix; what it is for.
        targets: int (m, k) indices into `People`, left to right.
        partners: int (m, k), whose faces are the references, or `OWN`.
        cosines: (m, k) of target and partner, NaN for `OWN`.
        candidates: videos that could have been in it.
        dropped: how many of them each rule dropped; with m they add up to `candidates`.
        subjects: kinds of references after the faces: `garment`, `background`.
        score: (m,) the rank of Stage III in 0..1, higher is better, or None.
        notes: further counts.
    """

    name: str
    title: str
    targets: np.ndarray
    partners: np.ndarray
    cosines: np.ndarray
    candidates: int
    dropped: dict[str, int]
    subjects: tuple[str, ...] = ()
    score: np.ndarray | None = None
    notes: dict[str, int] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """Counts as JSON values."""
        used = np.unique(self.partners[self.partners != OWN])
        return {
            "title": self.title, "candidates": self.candidates, "dropped": self.dropped,
            "pairs": len(self.targets), "different_references": len(used), **self.notes,
        }

    def rows(self, chosen: np.ndarray) -> Output:
        """These of its rows, by index or bool, in their order."""
        return replace(
            self, targets=self.targets[chosen], partners=self.partners[chosen],
            cosines=self.cosines[chosen],
            score=None if self.score is None else self.score[chosen],
        )


def pretraining(people: People, size: int) -> Output:
    """Stage I: every kept video of `size` people, its references from the video itself."""
    targets = people.of_group(size)
    several = f", {size} identities: references" if size > 1 else ": reference"
    return Output(
        f"multi{size}_pretraining" if size > 1 else "pretraining",
        f"Stage I{several} from the same video", targets, np.full(targets.shape, OWN),
        np.full(targets.shape, np.nan), len(targets), {},
    )


def cross(people: People, best: Best) -> Output:
    """Stage II: a random partner from another video."""
    title = f"Stage II: random partner from another video, {interval(best)}"
    return paired("cross", title, people.of_group(1), best)


def tradeoff(people: People, best: Best, settings: PairSettings) -> Output:
    """Stage III: the partner of smallest cosine; limits of the face's area; the best ranked."""
    low, high = settings.face_area
    targets = people.of_group(1)
    area = people.share[targets[:, 0]]
    good = (area >= low) & (area <= high)
    title = f"Stage III: partner of smallest cosine, {interval(best)}"
    found = paired("tradeoff", title, targets[good], best)
    chosen = found.targets[:, 0]
    scores = [people.flow[chosen], people.motion[chosen]]
    if np.isfinite(people.aesthetic[chosen]).any():
        scores.insert(0, people.aesthetic[chosen])
    score = ranking([s.astype(np.float64) for s in scores])
    # Best first; ties keep the order of the videos.
    order = np.argsort(-score, kind="stable")[: settings.tradeoff_kept]
    dropped = {
        f"face area outside {100 * low:g}..{100 * high:g} % of the frame": int((~good).sum()),
        **found.dropped,
        f"ranked below the best {settings.tradeoff_kept}": len(chosen) - len(order),
    }
    return replace(found, candidates=len(targets), dropped=dropped, score=score).rows(order)


def ranking(scores: Sequence[np.ndarray]) -> np.ndarray:
    """One value in 0..1 for each of n pairs, higher is better, from scores (n,), NaN: ranks in the
    middle.

    The paper names the three scores but not their weights. Their scales differ, so each is replaced
    by its rank among the pairs (ties share the mean rank) and the ranks are averaged."""
    total = np.zeros(len(scores[0]))
    for values in scores:
        known = np.isfinite(values)
        ranks = np.full(len(values), 0.5)
        if known.any():
            ranks[known] = (rankdata(values[known]) - 0.5) / known.sum()
        total += ranks
    return total / len(scores)


def cross_of_several(people: People, best: Best, size: int, settings: PairSettings) -> Output:
    """Stage II with `size` identities: both of two, or `multi_crossed` of three, from elsewhere. An
    identity without a partner keeps faces of the video itself."""
    targets = people.of_group(size)
    partners = best.partner[targets]
    cosines = best.cosine[targets]
    conflicts = _drop_shared(partners, cosines)
    needed = settings.multi_crossed if size == 3 else size
    good = (partners != OWN).sum(1) >= needed
    title = f"Stage II, {size} identities: at least {needed} from other videos, {interval(best)}"
    return Output(
        f"multi{size}_cross", title, targets[good], partners[good], cosines[good], len(targets),
        {f"fewer than {needed} people with a partner": int((~good).sum())},
        notes={"references_dropped_as_conflicting": conflicts},
    )


def _drop_shared(partners: np.ndarray, cosines: np.ndarray) -> int:
    """Drop, in place, all but the most similar of references to one partner; returns how many."""
    dropped = 0
    for i, j in combinations(range(partners.shape[1]), 2):
        same = (partners[:, i] == partners[:, j]) & (partners[:, i] != OWN)
        # Of equal cosines the left one stays.
        loser = np.where(cosines[:, i] >= cosines[:, j], j, i)
        rows = np.flatnonzero(same)
        partners[rows, loser[rows]] = OWN
        cosines[rows, loser[rows]] = np.nan
        dropped += len(rows)
    return dropped


def with_subject(people: People, best: Best, kind: str) -> Output:
    """One identity from another video, then the `garment` or the `background` of the target."""
    targets = people.of_group(1)
    has = getattr(people, kind)[targets[:, 0]]
    name = {"garment": "tryon", "background": "background"}[kind]
    title = f"Multi-subject: face and {kind}, {interval(best)}"
    found = paired(name, title, targets[has], best, (kind,))
    dropped = {f"no {kind} reference": int((~has).sum()), **found.dropped}
    return replace(found, candidates=len(targets), dropped=dropped)


def paired(
    name: str, title: str, targets: np.ndarray, best: Best, subjects: tuple[str, ...] = ()
) -> Output:
    """The `targets`, (m, 1), that have a partner."""
    partners = best.partner[targets]
    has = (partners >= 0).all(1)
    return Output(
        name, title, targets[has], partners[has], best.cosine[targets][has], len(targets),
        {NO_PARTNER: int((~has).sum())}, subjects,
    )


def interval(best: Best) -> str:
    """The range of cosines, for a title."""
    return f"{best.interval[0]:.4g} <= cosine < {best.interval[1]:.4g}"
