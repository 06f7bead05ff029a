"""Fits the reader of expressions: linear discriminants on rendered faces, in one solve.

Discriminants with a shrunk covariance: Fisher 1936; Ledoit and Wolf 2004 for shrinking.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from idbench.metrics import expression
from idbench.metrics.faces.align import align_crops
from idbench.metrics.training.network import write_entry
from idbench.prompts.avatars.scene import (
    EXPRESSIONS,
    TRAINING_IDENTITIES,
    VALIDATION_IDENTITIES,
)


def train(
    recipe: Mapping[str, Any], state_dir: Path, resume: bool = False, evaluate: bool = False
) -> dict[str, Any]:
    """Fit by a recipe and write the embedded weights; with `evaluate`, only measure those.

    The fit is one solve after about a minute of rendering: it keeps no state, and `resume` begins
    again.
    """
    noise = float(recipe["landmark_noise"])
    state = None
    if evaluate:
        score = expression.logits
    else:
        crops, labels = rendered(
            int(recipe["data"]["clips"]), TRAINING_IDENTITIES, int(recipe["seed"]), noise
        )
        # Expressions are the same in a mirror; a face is not.
        both = [expression.features(c) for c in (crops, crops[:, :, ::-1])]
        weight, bias = fit(
            np.concatenate(both).astype(np.float64), np.tile(labels, 2), recipe["shrinkage"]
        )
        # Half precision is enough for the weights, not for the sums of them.
        weight = weight.astype(np.float16).astype(np.float32)
        bias = bias.astype(np.float32)
        state = {"weight": torch.from_numpy(weight), "bias": torch.from_numpy(bias)}

        def score(vectors: np.ndarray) -> np.ndarray:
            return vectors @ weight + bias

    crops, labels = rendered(
        int(recipe["validation"]["clips"]), VALIDATION_IDENTITIES,
        int(recipe["validation"]["seed"]), noise,
    )
    measured = measure(score(expression.features(crops)), labels)
    write_entry(recipe, state, 1, expression.config(), measured, half=False)
    return measured


def fit(
    vectors: np.ndarray, labels: np.ndarray, shrinkage: float, count: int = len(EXPRESSIONS)
) -> tuple[np.ndarray, np.ndarray]:
    """Linear discriminants of features (n, d) with labels (n,) of 0..k-1: weight (d, k), bias (k,).

    `shrinkage` (0..1) is the share of the covariance that is replaced by its mean variance.
    """
    means = np.stack([vectors[labels == k].mean(0) for k in range(count)])
    centred = vectors - means[labels]
    covariance = centred.T @ centred / len(vectors)
    shrunk = (1 - shrinkage) * covariance
    shrunk.flat[:: len(shrunk) + 1] += shrinkage * np.trace(covariance) / len(covariance)
    weight = np.linalg.solve(shrunk, means.T)
    return weight, -0.5 * (means.T * weight).sum(0)


def rendered(
    clips: int, identities: range, seed: int, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Aligned crops (2 clips, 112, 112, 3) of random scenes, and their expressions (2 clips,).

    Of each clip the first and the last frame, at which head motions begin and end. `noise` is the
    standard deviation of the landmarks that crops are aligned by, in distances between the eyes.
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
        marks += rng.normal(0, noise, marks.shape) * eyes
        for frame, points in zip(clip.frames, marks, strict=True):
            crops.append(align_crops(frame, points[None])[0])
            labels.append(EXPRESSIONS.index(scene.people[0].expression))
    return np.stack(crops), np.array(labels)


def measure(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Share of crops, scores (n, k) and labels (n,), that are read right: of all, of each."""
    right = scores.argmax(1) == labels
    return {
        "accuracy": round(float(right.mean()), 4),
        "chance": round(1 / scores.shape[1], 4),
        **{
            name.replace(" ", "_"): round(float(right[labels == k].mean()), 4)
            for k, name in enumerate(EXPRESSIONS) if (labels == k).any()
        },
        "crops": len(labels),
    }
