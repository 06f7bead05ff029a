"""Heads that help CLIP's towers to see attributes and poses while they train; dropped after it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from idbench.metrics.training.attribute_classes import PLACES, AttributeHead


class Helpers(nn.Module):
    """Two attribute heads, dropped after training: of the embedding, and of the stem's map.

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
            said: answers that the prompts give, see `attribute_classes.mentioned`.
            shown: `attribute_classes.poses` of every frame, (n, T, places, 3).
        """
        known = shown.isfinite().flatten(2).flatten(0, 1)
        wrong = self.pose(self.map) - shown.nan_to_num().flatten(2).flatten(0, 1)
        return self.embedding(words, said) + wrong.square()[known].mean()
