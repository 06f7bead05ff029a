"""The three outputs for one identity: pre-training, cross-video, trade-off.

Source: Concat-ID, arXiv 2503.14151, Figure 2; the numbers are in `PairSettings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from idbench.models.concat_id.pairs import quality
from idbench.models.concat_id.pairs.neighbours import Best
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


def pretraining(people: People) -> Output:
    """Stage I: every kept video of one person, its references from the video itself."""
    targets = people.of_group(1)
    return own_references("pretraining", "Stage I: reference from the same video", targets)


def own_references(name: str, title: str, targets: np.ndarray) -> Output:
    """All `targets`, (m, k), with their own faces as references."""
    return Output(
        name, title, targets, np.full(targets.shape, OWN), np.full(targets.shape, np.nan),
        len(targets), {},
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
    score = quality.ranking([s.astype(np.float64) for s in scores])
    # Best first; ties keep the order of the videos.
    order = np.argsort(-score, kind="stable")[: settings.tradeoff_kept]
    dropped = {
        f"face area outside {100 * low:g}..{100 * high:g} % of the frame": int((~good).sum()),
        **found.dropped,
        f"ranked below the best {settings.tradeoff_kept}": len(chosen) - len(order),
    }
    return replace(
        found, targets=found.targets[order], partners=found.partners[order],
        cosines=found.cosines[order], candidates=len(targets), dropped=dropped, score=score[order],
    )


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
