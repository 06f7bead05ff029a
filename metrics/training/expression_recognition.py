"""Trains the reader of expressions on rendered faces."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from idbench.metrics.faces.crops import align_crops
from idbench.metrics.networks.expression_reader import (
    ExpressionNet,
    ExpressionReader,
    crops_to_grey,
    embedded_reader,
)
from idbench.metrics.training.augment import training_crop
from idbench.metrics.training.fitting import DEVICE, Config, Task, trainer
from idbench.metrics.training.rendered_data import Frames, Settings, batches, dataset, faces_of
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import EXPRESSIONS, VALIDATION_IDENTITIES
from idbench.prompts.sampling import random_scene
from idbench.training.resumable_loop import Values


def _task(recipe: Config, config: Config, folder: Path) -> Task:
    network = ExpressionNet(config).to(DEVICE)
    batch, seed = int(recipe["batch"]), int(recipe["seed"])
    data = dataset(Settings(**recipe["data"]), folder)
    crops, labels = training_crops(data, config["size"], recipe["copies"], seed)

    def loss_of(step: int) -> tuple[torch.Tensor, Values]:
        chosen = torch.tensor(list(batches(len(crops), batch, seed, step)))
        x, y = crops[chosen].float().to(DEVICE), labels[chosen].to(DEVICE)
        if step % 2:  # an expression is the same in a mirror
            x = x.flip(3)
        scores = network(x).float()
        right = (scores.argmax(1) == y).float().mean()
        return F.cross_entropy(scores, y, label_smoothing=0.05), {"accuracy": right}

    return {"network": network}, loss_of


def training_crops(
    data: Frames, size: int, copies: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Augmented grey crops of all faces, float16 (n, 1, size, size), and expressions (n,). Made
    once, `copies` of each face: cutting them costs more than the network's step."""
    rng = np.random.default_rng([seed, 19])
    rows = faces_of(data)
    labels = [
        EXPRESSIONS.index(data.scenes[s].people[p].expression) for s, _, p, _ in rows.tolist()
    ]
    crops = [
        crops_to_grey(np.stack([
            training_crop(data.frames[s, t], data.landmarks[s, t, p], rng, size, clean=0.6,
                          colours=0.1, blurred=0.1)
            for s, t, p, _ in rows
        ]), size).half()
        for _ in range(copies)
    ]
    return torch.cat(crops), torch.tensor(labels).repeat(copies)


def rendered(clips: int, seed: int, landmark_noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Aligned crops (2 clips, 112, 112, 3) of the first and last frames of validation people, and
    their expressions (2 clips,). `landmark_noise` is a deviation in distances between the eyes."""
    rng = np.random.default_rng([65537, seed])
    crops, labels = [], []
    for _ in range(clips):
        scene = random_scene(rng, 1, VALIDATION_IDENTITIES)
        clip = render_clip(scene, frames=2)
        marks = clip.landmarks[:, 0].astype(float)
        eyes = np.linalg.norm(marks[:, 1] - marks[:, 0], axis=1)[:, None, None]
        marks += rng.normal(0, landmark_noise, marks.shape) * eyes
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


def _measure(
    recipe: Config, config: Config, folder: Path, network: ExpressionNet | None
) -> dict[str, Any]:
    reader = ExpressionReader(network, config["size"]) if network else embedded_reader()
    crops, labels = rendered(**recipe["validation"])
    return measure(reader(crops), labels)


train = trainer(
    _task, _measure, lambda recipe: {**recipe["network"], "classes": list(EXPRESSIONS)}
)
