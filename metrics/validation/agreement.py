"""Whether ArcSim and CurSim agree with dlib, a recogniser from outside, on videos of finished runs.

A metric that only networks of its own world believe in would not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from idbench.errors import UserError
from idbench.metrics.faces.detect import make_detector
from idbench.metrics.networks import dlib_resnet
from idbench.metrics.validation.readers import DETECTION, Embed, mean_vectors
from idbench.pictures import read_rgb
from idbench.progress import Step
from idbench.runs import Run
from idbench.video import read_spread

OUTSIDE = "dlib"
FRAMES = 3
FEWEST = 3
"""Samples or systems that a rank correlation needs."""


@dataclass(frozen=True)
class Similarity:
    """The cosine of one video's faces to its reference, by each reader.

    `system` is the run folder: runs of one model may differ in their settings.
    """

    system: str
    sample: str
    cosines: Mapping[str, float]


@dataclass(frozen=True)
class Agreement:
    """Spearman's rho between a metric and dlib over `count` `samples` (of all systems) or `systems`
    (means); None with fewer than `FEWEST` values."""

    metric: str
    over: str
    rho: float | None
    count: int


def read_runs(
    runs: Sequence[Run], by: Mapping[str, Embed], step: Step = lambda note="": None
) -> list[Similarity]:
    """Similarities of the videos of one person in `runs`; those without a face are left out.
    Raises UserError: dlib is not installed."""
    if OUTSIDE not in by:
        raise UserError(
            f"Comparing with dlib needs its packages; install them with `{dlib_resnet.INSTALL}`."
        )
    detector = make_detector(DETECTION)
    found = []
    for run in runs:
        for record in run.records():
            faces = [r for r in record.sample.references if r.kind == "face"]
            if len(faces) != 1 or record.video_name is None:
                continue
            video = run.path(record.id, record.video_name)
            shown = mean_vectors(read_spread(video, FRAMES), detector, by)
            wanted = mean_vectors(read_rgb(faces[0].image)[None], detector, by)
            cosines = {
                name: _cosine(a, b) for name in by
                if (a := shown[name]) is not None and (b := wanted[name]) is not None
            }
            if cosines:
                found.append(Similarity(str(run.folder), record.suite_id, cosines))
            step(record.id)
    return found


def _cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def agreements(similarities: Sequence[Similarity], metrics: Sequence[str]) -> list[Agreement]:
    """Rank correlations of each metric with dlib, over samples and over systems."""
    systems: dict[str, list[Similarity]] = defaultdict(list)
    for similarity in similarities:
        systems[similarity.system].append(similarity)
    found = []
    for metric in metrics:
        pairs = [(s.cosines[metric], s.cosines[OUTSIDE]) for s in similarities]
        means = [
            (float(np.mean([s.cosines[metric] for s in rows])),
             float(np.mean([s.cosines[OUTSIDE] for s in rows])))
            for rows in systems.values()
        ]
        found.append(Agreement(metric, "samples", _rho(pairs), len(pairs)))
        found.append(Agreement(metric, "systems", _rho(means), len(means)))
    return found


def _rho(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < FEWEST:
        return None
    first, second = np.array(pairs).T
    rho = float(spearmanr(first, second).statistic)
    return rho if np.isfinite(rho) else None
