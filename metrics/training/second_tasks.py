"""Second tasks of a training: what is true of a scene or a face, and heads that read it.

They make a network look at what its own loss lets it overlook. The heads are dropped after it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench.prompts.avatars.identity import SHAPE_RANGES, sample_identity
from idbench.prompts.avatars.scene import BACKGROUNDS, LIGHTS, PERSON_VALUES, Scene

FINE = {"expression": 4.0, "motion": 4.0}
"""Weights of the losses that need fine detail; that of the others is 1."""
PLACES = 2
IGNORE = -100
QUESTIONS = {"background": BACKGROUNDS, "light": LIGHTS, "people": (1, 2)} | {
    f"{name}:{place}": values for place in range(PLACES) for name, values in PERSON_VALUES.items()
}
"""What is asked of a scene, and its possible answers: `motion:1` is that of the right person."""
CLASSES = [len(values) for values in QUESTIONS.values()]
WEIGHTS = [FINE.get(question.partition(":")[0], 1.0) for question in QUESTIONS]

UNSEEN = ("ear_size", "ear_out", "neck_width", "shoulder_width")
"""Outside an aligned crop."""
SEEN = tuple(name for name in SHAPE_RANGES if name not in UNSEEN)


def truth(scene: Scene) -> np.ndarray:
    """Answers to `QUESTIONS`: int64, `IGNORE` where nobody is."""
    said = {"background": scene.background, "light": scene.light, "people": len(scene.people)}
    for place, person in enumerate(scene.people):
        said |= {f"{name}:{place}": value for name, value in person.attributes.items()}
    return np.array([
        values.index(said[question]) if question in said else IGNORE
        for question, values in QUESTIONS.items()
    ], np.int64)


def mentioned(answers: np.ndarray, named: Collection[str]) -> np.ndarray:
    """The answers (questions,) that a prompt gives, the others `IGNORE`; its light is not asked.

    Args:
        named: `mentioned` of the prompt's `language.Description`.
    """
    def is_named(question: str) -> bool:
        attribute, _, place = question.partition(":")
        garment = attribute in ("colour", "pattern", "emblem") and f"garment:{place}" in named
        return garment or (question in named and question != "light")

    return np.where([is_named(question) for question in QUESTIONS], answers, IGNORE)


def poses(landmarks: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of faces as their landmarks (..., 5, 2) show them, float32 (..., 3).

    They are shifted and scaled to mean 0 and deviation 1 over all faces; NaN where nobody is.
    """
    eyes, mouth = landmarks[..., :2, :].mean(-2), landmarks[..., 3:, :].mean(-2)
    across = landmarks[..., 1, :] - landmarks[..., 0, :]
    side = across / np.linalg.norm(across, axis=-1, keepdims=True)
    down = np.stack([-side[..., 1], side[..., 0]], -1)
    nose, height = landmarks[..., 2, :] - eyes, ((mouth - eyes) * down).sum(-1)
    read = np.stack([(nose * side).sum(-1) / height, (nose * down).sum(-1) / height,
                     np.arctan2(across[..., 1], across[..., 0])], -1)
    every = tuple(range(read.ndim - 1))
    scaled = (read - np.nanmean(read, every)) / np.nanstd(read, every)
    return scaled.astype(np.float32)


def shape_truth(seed: int) -> np.ndarray:
    """The shape of an identity: float32 (len(SEEN),) of about zero mean and unit variance."""
    shape = np.array([sample_identity(seed).shape[name] for name in SEEN])
    low, high = np.array([SHAPE_RANGES[name] for name in SEEN]).T
    return ((shape - (low + high) / 2) / ((high - low) / np.sqrt(12))).astype(np.float32)


class ShapeHead(nn.Module):
    """A linear reader of the shape from an embedding (n, d)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = width**0.5
        self.linear = nn.Linear(width, len(SEEN))

    def forward(self, vectors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Mean squared error of embeddings (n, d) with `shape_truth` (n, s); 1 is guessing."""
        return F.mse_loss(self.linear(F.normalize(vectors.float()) * self.scale), truth)


class AttributeHead(nn.Module):
    """A linear answer to every question.

    Args:
        width: of what it reads, (n, width).
        dropout: share of the inputs that are dropped.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.weights = torch.tensor(WEIGHTS)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, sum(CLASSES))

    def forward(self, vectors: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Weighted mean cross-entropy of inputs (n, width) with answers (n, questions)."""
        logits = self.linear(self.dropout(vectors.float())).split(CLASSES, 1)
        asked = [i for i in range(len(logits)) if (answers[:, i] != IGNORE).any()]
        losses = torch.stack([
            F.cross_entropy(logits[i], answers[:, i], ignore_index=IGNORE) for i in asked
        ])
        scale = self.weights[asked].to(losses.device)
        return (losses * scale).sum() / scale.sum()


class Helpers(nn.Module):
    """Two attribute heads of an image tower: of the embedding, and of the stem's map.

    The second one teaches the convolutions to see an expression before the transformer knows
    where to look; from the embedding alone, a tower stays at chance for a thousand steps.

    Args:
        tower: CLIP's or ViCLIP's image tower; the last map of its `conv1` is kept.
        output: numbers of an embedding.
    """

    def __init__(self, tower: Any, output: int) -> None:
        super().__init__()
        self.embedding = AttributeHead(output)
        self.stem = AttributeHead(tower.positional_embedding[1:].numel(), 0.3)
        tower.conv1.register_forward_hook(self._keep)

    def _keep(self, conv1: nn.Module, given: Any, output: torch.Tensor) -> None:
        maps = output if output.ndim == 4 else output.transpose(1, 2).flatten(0, 1)
        self.map = maps.flatten(1).float()

    def forward(self, vectors: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Loss of embeddings (n, output) and of the last map; a clip's frames share answers."""
        each = answers.repeat_interleave(len(self.map) // len(vectors), 0)
        return self.embedding(vectors, answers) + self.stem(self.map, each)


class MotionHelpers(Helpers):
    """`Helpers` of clips: a third head reads the poses of the heads from the stem's map. A motion
    is no property of a frame, a pose is."""

    def __init__(self, tower: Any, output: int) -> None:
        super().__init__(tower, output)
        self.pose = nn.Linear(self.stem.linear.in_features, 3 * PLACES)

    def motion(
        self, words: torch.Tensor, said: torch.Tensor, shown: torch.Tensor
    ) -> torch.Tensor:
        """Loss of what moves: attributes of the prompts' embeddings, and the frames' poses.

        Args:
            words: embeddings of n prompts, read by the head that reads those of videos, so that
                both towers say the same thing in the same way.
            said: answers that the prompts give, see `mentioned`.
            shown: `poses` of every frame, (n, T, places, 3).
        """
        known = shown.isfinite().flatten(2).flatten(0, 1)
        wrong = self.pose(self.map) - shown.nan_to_num().flatten(2).flatten(0, 1)
        return self.embedding(words, said) + wrong.square()[known].mean()
