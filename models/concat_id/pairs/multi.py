"""Outputs with several references: two or three identities, or one and a subject.

The order of the references is the order of the people in the target, by the mean x of their
faces' boxes. Two kinds of references contradict it and are dropped: faces from frames with
another order (when the video is read, `tracking.people_of`), and one partner for two people, which
makes them indistinguishable.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from idbench.models.concat_id.pairs.neighbours import Best
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.stages import OWN, Output, interval, own_references, paired


def pretraining(people: People, size: int) -> Output:
    """Stage I with `size` identities: references from the video itself."""
    return own_references(
        f"multi{size}_pretraining", f"Stage I, {size} identities: references from the same video",
        people.of_group(size),
    )


def cross(people: People, best: Best, size: int, settings: PairSettings) -> Output:
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
    for i in range(partners.shape[1]):
        for j in range(i + 1, partners.shape[1]):
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
