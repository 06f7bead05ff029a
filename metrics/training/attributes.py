"""What is true of a scene, as classes: a second task that helps small towers to see details."""

from __future__ import annotations

from collections.abc import Sequence

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


class AttributeHead(nn.Module):
    """A linear answer to every question from an embedding (n, d); dropped after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.counts = classes()
        self.linear = nn.Linear(width, sum(self.counts))

    def forward(self, vectors: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of embeddings (n, d) with answers (n, questions)."""
        logits: Sequence[torch.Tensor] = self.linear(vectors.float()).split(self.counts, 1)
        losses = [
            F.cross_entropy(of_one, answers[:, i], ignore_index=IGNORE)
            for i, of_one in enumerate(logits)
            if (answers[:, i] != IGNORE).any()
        ]
        return torch.stack(losses).mean()
