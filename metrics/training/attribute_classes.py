"""What is true of a scene, as classes: a second task that helps small towers to see details."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EXPRESSIONS,
    GARMENT_COLOURS,
    GARMENT_EMBLEMS,
    GARMENT_PATTERNS,
    LIGHTS,
    MOTIONS,
    Person,
    Scene,
)

_OF_PERSON = {
    "expression": EXPRESSIONS, "motion": MOTIONS, "colour": GARMENT_COLOURS,
    "pattern": GARMENT_PATTERNS, "emblem": GARMENT_EMBLEMS,
}
FINE = {"expression": 4.0, "motion": 4.0}
"""Weights of the losses that need fine detail; that of the others is 1."""
PLACES = 2
IGNORE = -100


def classes() -> list[int]:
    """How many classes each question of `truth` has."""
    per_person = [len(values) for values in _OF_PERSON.values()]
    return [len(BACKGROUNDS), len(LIGHTS), PLACES, *per_person * PLACES]


def truth(scene: Scene) -> np.ndarray:
    """Answers to: background, light, number of people, and for the left and the right place
    expression, motion, colour, pattern, emblem; int64, `IGNORE` where nobody is."""
    answers = [BACKGROUNDS.index(scene.background), LIGHTS.index(scene.light)]
    answers.append(len(scene.people) - 1)
    for place in range(PLACES):
        if place < len(scene.people):
            answers += _of_person(scene.people[place])
        else:
            answers += [IGNORE] * len(_OF_PERSON)
    return np.array(answers, np.int64)


def _of_person(person: Person) -> list[int]:
    garment = person.garment
    values = (person.expression, person.motion, garment.colour, garment.pattern, garment.emblem)
    return [known.index(v) for known, v in zip(_OF_PERSON.values(), values, strict=True)]


def mentioned(answers: np.ndarray, named: Collection[str]) -> np.ndarray:
    """The answers (questions,) that a prompt gives, the others `IGNORE`.

    Args:
        named: `mentioned` of the prompt's `language.Description`.
    """
    said = np.full_like(answers, IGNORE)
    if "background" in named:
        said[0] = answers[0]
    for place in range(PLACES):
        first = 3 + place * len(_OF_PERSON)
        for offset, attribute in enumerate(_OF_PERSON):
            whole = attribute if attribute in ("expression", "motion") else "garment"
            if f"{whole}:{place}" in named:
                said[first + offset] = answers[first + offset]
    return said


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


def weights() -> list[float]:
    """How much each question of `truth` counts."""
    return [1.0] * 3 + [FINE.get(name, 1.0) for name in _OF_PERSON] * PLACES


class AttributeHead(nn.Module):
    """A linear answer to every question; dropped after training.

    Args:
        width: of what it reads, (n, width).
        dropout: share of the inputs that are dropped.
    """

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.counts, self.weights = classes(), torch.tensor(weights())
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, sum(self.counts))

    def forward(self, vectors: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Weighted mean cross-entropy of inputs (n, width) with answers (n, questions)."""
        logits: Sequence[torch.Tensor] = self.linear(self.dropout(vectors.float())).split(
            self.counts, 1)
        asked = [i for i in range(len(logits)) if (answers[:, i] != IGNORE).any()]
        losses = torch.stack([
            F.cross_entropy(logits[i], answers[:, i], ignore_index=IGNORE) for i in asked
        ])
        scale = self.weights[asked].to(losses.device)
        return (losses * scale).sum() / scale.sum()
