"""What each tower of the embedded ViCLIP knows of a scene's attributes, and whether they agree.

    python -m idbench.metrics.validation.towers --clips 300

A ViCLIP that does not prefer a true prompt to an edited one may not see the attribute, may not
understand it in the prompt, or may know both and not join them. Linear readers of the
embeddings of both tell which: what no linear reader finds in an embedding cannot move a cosine.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from idbench.metrics.networks.clip import ViclipEmbedder
from idbench.metrics.protocols import STRICT, sample_video_frames
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES, Scene
from idbench.prompts.language import describe
from idbench.prompts.sampling import EDITS, random_scene, value_of, with_value
from idbench.statistics import Estimate, estimate

FOLDS = 5
SHRINKAGE = 0.1
"""Share of the covariance that is replaced by its mean variance."""


@dataclass(frozen=True)
class Known:
    """Of one attribute, shares of clips.

    Attributes:
        seen: its value is found by a linear reader of the video's embedding.
        said: it is found by one of the prompt's embedding.
        chosen: of the prompts with each of its values, the true one is nearest to the video.
        chance: what guessing gives.
    """

    seen: Estimate
    said: Estimate
    chosen: Estimate
    chance: float


def read_linearly(vectors: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each label (n,) is found from vectors (n, d) by a linear reader: bool (n,).

    Each is read by discriminants fitted on the other folds.
    """
    right = np.zeros(len(labels), bool)
    for fold in range(FOLDS):
        test = np.arange(len(labels)) % FOLDS == fold
        seen = np.unique(labels[~test])
        known = np.searchsorted(seen, labels[~test])
        weight, bias = fit(vectors[~test].astype(np.float64), known)
        right[test] = seen[(vectors[test] @ weight + bias).argmax(1)] == labels[test]
    return right


def fit(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminants of features (n, d) with labels (n,) of 0..k-1: weight (d, k), bias (k,).

    Source: Fisher 1936; Ledoit and Wolf 2004 for shrinking.
    """
    means = np.stack([vectors[labels == k].mean(0) for k in range(labels.max() + 1)])
    centred = vectors - means[labels]
    covariance = centred.T @ centred / len(vectors)
    shrunk = (1 - SHRINKAGE) * covariance
    shrunk.flat[:: len(shrunk) + 1] += SHRINKAGE * np.trace(covariance) / len(covariance)
    weight = np.linalg.solve(shrunk, means.T)
    return weight, -0.5 * (means.T * weight).sum(0)


def measure_towers(clips: int, seed: int = 0) -> dict[str, Known]:
    """What the embedded ViCLIP knows of each of `EDITS`, on clips of validation people."""
    network = ViclipEmbedder("viclip")
    rng = np.random.default_rng([70001, seed])
    scenes: list[Scene] = []
    videos, texts = [], []
    right: dict[str, list[float]] = {attribute: [] for attribute in EDITS}
    for _ in range(clips):
        scene = random_scene(rng, 1, VALIDATION_IDENTITIES)
        frames = render_clip(scene).frames
        chosen = list(sample_video_frames(STRICT, len(frames)))
        video = network.video(frames[chosen], STRICT.video_picture)
        wording = int(rng.integers(2**31))
        for attribute, values in EDITS.items():
            said = [
                describe(with_value(scene, attribute, v), np.random.default_rng(wording), EDITS)
                for v in values
            ]
            nearest = int((network.texts(said) @ video).argmax())
            right[attribute].append(float(values[nearest] == value_of(scene, attribute)))
        scenes.append(scene)
        videos.append(video)
        texts.append(describe(scene, np.random.default_rng(wording), EDITS))
    vectors, words = np.stack(videos), network.texts(texts)
    found = {}
    for attribute, values in EDITS.items():
        labels = np.array([values.index(value_of(s, attribute)) for s in scenes])
        found[attribute] = Known(
            _share(read_linearly(vectors, labels)),
            _share(read_linearly(words, labels)),
            _share(right[attribute]), 1 / len(values),
        )
    return found


def _share(right: Sequence[float] | np.ndarray) -> Estimate:
    return estimate([float(r) for r in right], list(range(len(right))))


def main() -> None:
    parser = argparse.ArgumentParser(description="What the towers of the embedded ViCLIP know.")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    for name, known in measure_towers(arguments.clips, arguments.seed).items():
        shares = {k: [e.mean, e.low, e.high] for k in ("seen", "said", "chosen")
                  for e in [getattr(known, k)]}
        print(json.dumps({"attribute": name, **shares, "chance": round(known.chance, 3)}))


if __name__ == "__main__":
    main()
