"""Known identities: precision and recall of pairs, and thresholds for another network.

A file of identities has a row for each known person of a video: video, identity, and person
(place from the left, counted from 0; 0 by default).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from idbench.errors import UserError
from idbench.models.concat_id.pairs.partners import Similarity, exact_cosines
from idbench.models.concat_id.pairs.people import People
from idbench.models.concat_id.pairs.settings import PairSettings
from idbench.models.concat_id.pairs.stages import OWN, Output
from idbench.models.concat_id.pairs.store import Store
from idbench.names import finite
from idbench.table_files import read_rows

FEWEST_PAIRS = 20
"""Known same-person pairs that a calibration needs."""
_MOST_PAIRS = 1_000_000


@dataclass(frozen=True)
class Identities:
    """Who is known: the identity of each entry of `People` (int (n,), -1: unknown), and the number
    of same-person pairs of different videos in the file, kept or dropped."""

    of_person: np.ndarray
    pairs: int


def read_identities(path: Path, store: Store, people: People) -> Identities:
    """The identities of a file. Raises UserError: see `read_rows`; an unknown video, no place, or a
    person named twice."""
    numbers: dict[str, int] = {}
    seen: set[tuple[int, int]] = set()
    videos: Counter[int] = Counter()
    of_person = np.full(len(people), -1, np.int64)
    wanted = ("video", "identity")
    for where, row in read_rows(
        path, "identities file", (*wanted, "person"), wanted, json_columns=wanted
    ):
        video = store.number_of(str(row["video"]))
        if video is None:
            raise UserError(
                f"{where} of the identities file names an unknown video {row['video']!r}; "
                "name videos by their path inside the folder of videos."
            )
        person = _place(row.get("person") or 0, where)
        if (video, person) in seen:
            raise UserError(
                f"{where} of the identities file names person {person} of {row['video']!r} a "
                "second time; keep one."
            )
        seen.add((video, person))
        identity = numbers.setdefault(str(row["identity"]), len(numbers))
        videos[identity] += 1
        place = int(np.searchsorted(people.video, video)) + person
        if place < len(people) and people.video[place] == video:
            of_person[place] = identity
    return Identities(of_person, _pairs(videos.values()))


def _place(value: Any, where: str) -> int:
    found = finite(f"{where}: the person", value)
    if found < 0 or found != int(found):
        raise UserError(
            f"{where}: {value!r} is not a person; give the position from the left, "
            "starting at 0."
        )
    return int(found)


RANGES = ("cross", "tradeoff", "multi")


def calibrate(
    people: People, known: Identities, settings: PairSettings
) -> tuple[PairSettings, dict[str, Any]]:
    """Map the three ranges of cosines to the scale of the network that embedded `people`.

    A threshold represents the share of same-person pairs below it, which `calibration_anchors`
    state in the paper's scale (linear in between); the new threshold is that quantile of the known
    pairs. Lower ends are raised until at most `calibration_false_matches` of the different-person
    pairs reach them. `identity_cosine` stays: it compares neighbouring frames.

    Returns the new settings, and JSON values: what was asked, what is used, the numbers of pairs
    they come from, and `steps`, lines to print. Raises UserError: too few known pairs, or a network
    that does not tell people apart."""
    same, different = known_cosines(people, known.of_person, settings.seed)
    if len(same) < FEWEST_PAIRS or not len(different):
        raise UserError(
            f"A calibration needs {FEWEST_PAIRS} pairs of kept videos of one person and some of "
            f"two; the identities file gives {len(same)} and {len(different)}: name more videos."
        )
    anchors = settings.calibration_anchors
    cosines = [-1.0, *(a[0] for a in anchors), 1.0]
    shares = [0.0, *(a[1] for a in anchors), 1.0]
    least = float(np.quantile(different, 1 - settings.calibration_false_matches))
    steps = [f"calibration on {len(same)} same-person and {len(different)} different-person pairs"]
    ranges = {}
    for name in RANGES:
        ends = []
        for end, asked in zip(("from", "to"), getattr(settings, name), strict=True):
            share = float(np.interp(asked, cosines, shares))
            found = float(np.quantile(same, share))
            step = f"{name} {end} {asked:.4g} -> {found:.4f} (share {share:.3f} is below)"
            if end == "from" and found < least:
                step += f", raised to {least:.4f}: different people reach {found:.4f}"
                found = least
            ends.append(round(found, 4))
            steps.append(step)
        if not ends[0] < ends[1]:
            raise UserError(
                f"The calibrated range {name} is empty ({ends[0]}..{ends[1]}): this network does "
                "not tell the known people apart well enough, or too few of them are named."
            )
        ranges[name] = (ends[0], ends[1])
    return replace(settings, **ranges), {  # type: ignore[arg-type]
        "same_person_pairs": len(same), "different_person_pairs": len(different),
        "asked": {k: list(getattr(settings, k)) for k in RANGES},
        "used": {k: list(found) for k, found in ranges.items()}, "steps": steps,
    }


def known_cosines(people: People, identity: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of known pairs of different videos, of one person and of two: all if at most a
    million, else that many random ones of each."""
    rows = np.flatnonzero(identity >= 0)
    rng = np.random.default_rng([seed, 2])
    count = len(rows)
    if count * (count - 1) // 2 <= _MOST_PAIRS:
        first, second = np.triu_indices(count, 1)
    else:
        first, second = rng.integers(0, count, (2, _MOST_PAIRS))
        # Random pairs are hardly ever of one person: neighbours in the order of identities are.
        order = np.argsort(identity[rows], kind="stable")
        step = rng.integers(1, 20, count)
        first = np.concatenate([first, order])
        second = np.concatenate([second, order[(np.arange(count) + step) % count]])
    first, second = rows[first], rows[second]
    other = people.video[first] != people.video[second]
    first, second = first[other], second[other]
    cosines = exact_cosines(people.vectors, first, second)
    same = identity[first] == identity[second]
    return cosines[same], cosines[~same]


def report(
    people: People, known: Identities, similarity: Similarity, outputs: Sequence[Output]
) -> dict[str, Any]:
    """Precision and recall against the known identities, as JSON values; None: none to count.

    `pairs`: all pairs of kept videos at or above the lowest threshold, with recall of the
    same-person pairs of kept videos, and of all in the file. Each output: precision of its
    references from other videos; recall of its candidates whose person is in another kept video."""
    identity = known.of_person
    counts = Counter(int(i) for i in identity[identity >= 0])
    of_kept = _pairs(counts.values())
    found: dict[str, Any] = {
        "pairs": {
            "lowest_cosine": similarity.low, "same_person": similarity.same,
            "different_person": similarity.different,
            "precision": _share(similarity.same, similarity.same + similarity.different),
            "recall_of_kept": _share(similarity.same, of_kept),
            "recall_of_all": _share(similarity.same, known.pairs),
        }
    }
    for output in outputs:
        crossed = output.partners != OWN
        own, partner = identity[output.targets[crossed]], identity[output.partners[crossed]]
        labelled = (own >= 0) & (partner >= 0)
        if not labelled.any():
            continue
        right = int((own == partner)[labelled].sum())
        size = output.targets.shape[1]
        could = [int(i) for i in identity[people.group == size] if i >= 0]
        could_be_right = sum(counts[i] > 1 for i in could)
        found[output.name] = {
            "references": int(labelled.sum()), "right": right,
            "precision": _share(right, int(labelled.sum())),
            "recall": _share(right, could_be_right),
        }
    return found


def _pairs(counts: Any) -> int:
    return sum(n * (n - 1) // 2 for n in counts)


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
