"""What the embedded baselines read from a reference besides its latents: CLIP's tokens.

The tower is a frozen copy of the embedded CLIP's image tower (`weights/face_tower.safetensors`), so
that the baselines stay what they are when the metrics' CLIP is trained again.

A reference's latents and features travel as one row, `(B, M, 1, 1, F)`, through the training loop
and the samplers, which only cut, repeat and zero rows; `unpack` takes it apart.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from idbench import embedded
from idbench.metrics.networks.clip import build_clip, prepare_pictures
from idbench.metrics.protocols import Picture

ENTRY = "face_tower"
BATCH = 64
"""People whose references are read at once."""
SCALES = 2
"""Hidden states that are read: after the first and second block of three."""


class Condition(NamedTuple):
    """References as the baselines read them, M faces: `latents` (B, M, C, h, w), `pooled` (B, M,
    D), and `hidden`, SCALES tensors (B, M, T, W)."""

    latents: torch.Tensor
    pooled: torch.Tensor
    hidden: list[torch.Tensor]


class Sizes(NamedTuple):
    """Of what the tower gives: pooled width, tokens, their width."""

    pooled: int
    tokens: int
    width: int

    @property
    def total(self) -> int:
        return self.pooled + SCALES * self.tokens * self.width


class FaceTower:
    """The frozen tower. Raises WeightError: its weights are missing or damaged."""

    def __init__(self) -> None:
        config = embedded.entry(ENTRY)["config"]
        self._network: Any = build_clip(config).visual
        self._network.load_state_dict(embedded.load_state(ENTRY))
        self._network.eval().requires_grad_(False)
        self._side = config["vision"]["image_size"]

    @torch.no_grad()
    def encode(self, pictures: np.ndarray) -> torch.Tensor:
        """Features (n, F) of prepared references, uint8 RGB (n, H, W, 3)."""
        kept: list[torch.Tensor] = []
        hooks = [
            block.register_forward_hook(lambda *a: kept.append(a[-1]))
            for block in self._network.transformer.resblocks[:SCALES]
        ]
        try:
            prepared = prepare_pictures(pictures, self._side, Picture("crop", "clip", "bicubic"))
            pooled = self._network(prepared)
        finally:
            for hook in hooks:
                hook.remove()
        return torch.cat([pooled, *(states.flatten(1) for states in kept)], dim=1)

    def rows(self, latents: np.ndarray, pictures: np.ndarray) -> np.ndarray:
        """Rows (n, 1, 1, F) of references: latents (n, C, h, w), uint8 (n, H, W, 3)."""
        return pack(torch.from_numpy(latents).float(), self.encode(pictures)).numpy()

    def of_shard(self, latents: torch.Tensor, rendered: Path, encoded: Path) -> torch.Tensor:
        """Rows (S, P, R, 1, 1, F) of the references of a shard, float16 latents (S, P, R, C, h, w);
        zeros without a person. The features are kept beside the latents."""
        from idbench.models.concat_id import scenes
        from idbench.models.concat_id.training.latents import save_array

        path = encoded / f"tower-{embedded.entry(ENTRY)['sha256'][:8]}.npy"
        if not path.exists():
            shard = scenes.read_shard(rendered)
            batch = BATCH * shard.references.shape[2]
            features = torch.cat([self.encode(part) for part in np.split(
                shard.pictures, range(batch, len(shard.pictures), batch))])
            save_array(path, shard.at_places(features.numpy(), 0.0))
        return pack(latents, torch.from_numpy(np.load(path)))


@cache
def sizes() -> Sizes:
    """The sizes of the embedded tower's features."""
    config = embedded.entry(ENTRY)["config"]
    vision = config["vision"]
    side = vision["image_size"] // vision["patch_size"]
    return Sizes(config["embed_dim"], side * side + 1, vision["width"])


def pack(latents: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Rows (..., 1, 1, F) of latents (..., C, h, w) and features (..., D)."""
    return torch.cat([latents.flatten(-3), features], dim=-1)[..., None, None, :]


def unpack(rows: torch.Tensor, shape: torch.Size) -> Condition:
    """The references of rows (B, M, 1, 1, F); `shape` is (C, h, w) of a latent frame."""
    known = sizes()
    flat = rows.flatten(2)
    latents, pooled, hidden = flat.split(
        [shape.numel(), known.pooled, SCALES * known.tokens * known.width], dim=-1
    )
    states = hidden.unflatten(-1, (SCALES, known.tokens, known.width))
    return Condition(latents.unflatten(-1, shape), pooled, list(states.unbind(2)))


def copy_tower() -> None:
    """Write the tower's weights: the image tower of the present embedded CLIP. The shipped tower is
    that of the CLIP of data version avatars-2, which had no convolutional stem yet."""
    found = embedded.entry("clip")
    state = {
        name.removeprefix("visual."): value
        for name, value in embedded.load_state("clip").items() if name.startswith("visual.")
    }
    embedded.save_entry(
        ENTRY, state, recipe=found["recipe"], seed=found["seed"], steps=found["steps"],
        config={k: found["config"][k] for k in ("embed_dim", "vision", "text")}, measured={},
        data_version=found["data_version"],
    )
