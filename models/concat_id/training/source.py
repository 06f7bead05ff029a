"""What a stage trains on, whatever it is stored in: a cache on disk, or scenes in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from idbench.models.concat_id.training.recipe import StageRecipe


@dataclass(frozen=True)
class HeldOut:
    """A sample that is not trained on.

    Attributes:
        key: its name. caption: its prompt. kinds: of its references.
        row: float `latents`, `text`, and `images` (M, 3, H, W) or encoded `references` (M, C, h, w)
            where it has some; without pixel noise in `images`.
        pictures: the references, uint8 RGB (H, W, 3).
    """

    key: str
    caption: str
    kinds: tuple[str, ...]
    row: dict[str, torch.Tensor]
    pictures: tuple[np.ndarray, ...]


class Samples(Protocol):
    """What a stage trains on: a `samples.Cache`, or `scene_samples.SceneSamples`.

    Attributes:
        settings: what `export` says about it.
    """

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def check(self, recipe: StageRecipe) -> None:
        """Raise UserError where the samples are not what the recipe trains on."""

    def check_network(self, config: Any) -> None:
        """Raise UserError where the samples do not fit the network of this configuration."""

    def batches(
        self, recipe: StageRecipe, step: int, rank: int, world: int, pinned: bool
    ) -> Iterator[dict[str, Any]]:
        """What process `rank` of `world` computes from `step` on, as items of `StepSamples`.

        Args:
            pinned: whether to read into pinned memory.
        """

    def held_out(self, recipe: StageRecipe, fresh: bool) -> list[HeldOut]:
        """The first `validation_samples` samples that are not trained on.

        Args:
            fresh: whether there is an autoencoder, so that `images` can be encoded.
        """
