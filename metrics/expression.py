"""The expression of an avatar's face: a linear classifier on gradients of the aligned crop.

Neither five landmarks nor the embedded CLIP (at chance, see docs/beyond.md) tell expressions
apart, so this small one does: histograms of oriented gradients of the aligned grey crop, and
linear discriminants with a shrunk covariance (Fisher 1936; Ledoit and Wolf 2004 for shrinking).
It is fitted on rendered training identities by `python -m idbench.metrics.expression`, and knows
nothing of real faces.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from skimage.feature import hog

from idbench.metrics.faces.align import align_crops
from idbench.prompts.avatars.scene import EXPRESSIONS, TRAINING_IDENTITIES

FILE = Path(__file__).parent / "expression.npz"
SIDE = 64
SHRINKAGE = 0.2
LANDMARK_NOISE = 0.04
"""Standard deviation of a detector's landmarks, in distances between the eyes: MTCNN's here."""


def features(crops: np.ndarray) -> np.ndarray:
    """Aligned uint8 RGB crops (n, s, s, 3) to float32 (n, 1764)."""
    rows = []
    for crop in crops:
        grey = cv2.cvtColor(np.ascontiguousarray(crop), cv2.COLOR_RGB2GRAY)
        grey = cv2.resize(grey, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        rows.append(hog(grey, 9, (8, 8), (2, 2), "L2-Hys"))
    return np.array(rows, np.float32).reshape(len(rows), -1)


def logits(vectors: np.ndarray) -> np.ndarray:
    """Scores (n, expressions) of feature vectors (n, d), in the order of `EXPRESSIONS`."""
    weight, bias = _fitted()
    return vectors @ weight + bias


@cache
def _fitted() -> tuple[np.ndarray, np.ndarray]:
    with np.load(FILE, allow_pickle=False) as stored:
        return stored["weight"].astype(np.float32), stored["bias"].astype(np.float32)


def fit(vectors: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminants of features (n, d) with labels (n,): weight (d, k) and bias (k,)."""
    count = len(EXPRESSIONS)
    means = np.stack([vectors[labels == k].mean(0) for k in range(count)])
    centred = vectors - means[labels]
    covariance = centred.T @ centred / len(vectors)
    shrunk = (1 - SHRINKAGE) * covariance
    shrunk.flat[:: len(shrunk) + 1] += SHRINKAGE * np.trace(covariance) / len(covariance)
    weight = np.linalg.solve(shrunk, means.T)
    return weight, -0.5 * (means.T * weight).sum(0)


def rendered(clips: int, identities: range, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Aligned crops (2 clips, 112, 112, 3) of random scenes, and their expressions (2 clips,).

    Of each clip the first and the last frame, at which head motions begin and end.
    """
    from idbench.prompts.avatars.render import render_clip
    from idbench.prompts.sampling import random_scene

    rng = np.random.default_rng([65537, seed])
    crops, labels = [], []
    for _ in range(clips):
        scene = random_scene(rng, 1, identities)
        clip = render_clip(scene, frames=2)
        marks = clip.landmarks[:, 0].astype(float)
        eyes = np.linalg.norm(marks[:, 1] - marks[:, 0], axis=1)[:, None, None]
        marks += rng.normal(0, LANDMARK_NOISE, marks.shape) * eyes
        for frame, points in zip(clip.frames, marks, strict=True):
            crops.append(align_crops(frame, points[None])[0])
            labels.append(EXPRESSIONS.index(scene.people[0].expression))
    return np.stack(crops), np.array(labels)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fits the classifier of expressions.")
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    crops, labels = rendered(arguments.clips, TRAINING_IDENTITIES, 0)
    # Expressions are the same in a mirror; a face is not.
    both = np.concatenate([features(crops), features(crops[:, :, ::-1])])
    weight, bias = fit(both.astype(np.float64), np.tile(labels, 2))
    np.savez_compressed(
        arguments.output, weight=weight.astype(np.float16), bias=bias.astype(np.float32)
    )
    print(f"fitted on {len(labels)} crops: {arguments.output}")


if __name__ == "__main__":
    main()
