"""The network that is trained: built from a recipe, filled from a folder, called one way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from safetensors import SafetensorError
from torch import nn

from idbench import embedded
from idbench.errors import UserError
from idbench.models.concat_id.families import family_of
from idbench.models.concat_id.networks import build_transformer
from idbench.models.concat_id.training import adapters
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel
from idbench.names import unknown

NETWORKS: dict[str, dict[str, Any]] = {
    "cogvideox-5b": {
        "family": "cogvideox", "num_attention_heads": 48, "attention_head_dim": 64,
        "num_layers": 42, "time_embed_dim": 512, "text_embed_dim": 4096, "in_channels": 16,
        "out_channels": 16, "sample_width": 90, "sample_height": 60, "sample_frames": 49,
        "max_text_seq_length": 226,
    },
    "wan2.1-1.3b": {
        "family": "wan", "num_attention_heads": 12, "attention_head_dim": 128, "num_layers": 30,
        "ffn_dim": 8960, "in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256,
    },
}
"""Published configurations, so that a plan needs no download. Source: their config.json files."""

COMPRESSION = {"cogvideox": (4, 8), "wan": (4, 8)}
"""Frames and pixels a side that make one latent, of the published autoencoders."""
WAN_TEXT_TOKENS = 512
CLASSES: Mapping[str, Any] = {
    "CogVideoXTransformer3DModel": CogVideoXTransformer3DModel,
    "WanTransformer3DModel": WanTransformer3DModel,
    "ConcatIDWanTransformer3DModel": ConcatIDWanTransformer3DModel,
}
UNFIT = (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError, NameError)
"""What diffusers and PyTorch raise at sizes and names that make no network."""
INIT = "init"
"""In place of a network: the one that `init` holds."""


def configuration(recipe: StageRecipe) -> tuple[str, dict[str, Any]]:
    """Family (`cogvideox` or `wan`) and the arguments of its class.

    Raises:
        UserError: unknown network, or none of the two families.
    """
    given = recipe.network
    if given == INIT:
        return _of_init(recipe)
    if isinstance(given, str):
        if given not in NETWORKS:
            raise unknown("network", given, NETWORKS)
        given = NETWORKS[given]
    config = dict(given)
    family = str(config.pop("family", "cogvideox"))
    if family not in COMPRESSION:
        raise unknown("family of networks", family, COMPRESSION)
    return family, config


def _of_init(recipe: StageRecipe) -> tuple[str, dict[str, Any]]:
    """Family and arguments of the network that `init` holds."""
    if recipe.init is None:
        raise UserError(
            f"The recipe {recipe.name!r} takes the network of `init` but names no `init`; add it."
        )
    if recipe.init.startswith("embedded:"):
        return "cogvideox", dict(embedded.entry(recipe.init.partition(":")[2])["config"])
    config = _read_config(transformer_folder(Path(recipe.init)))
    family = "wan" if "Wan" in str(config.get("_class_name")) else "cogvideox"
    # The class has these from the recipe.
    left_out = ("reference_adaln", "reference_ffn_quirk")
    return family, {
        name: value for name, value in config.items()
        if not name.startswith("_") and name not in left_out
    }


def build(recipe: StageRecipe) -> nn.Module:
    """The recipe's transformer with random weights (on the meta device inside its context).

    Raises:
        UserError: arguments of which the class makes no network.
    """
    family, config = configuration(recipe)
    try:
        if family == "cogvideox":
            made: Any = build_transformer(config)
        else:
            made = ConcatIDWanTransformer3DModel(
                **config, reference_adaln=recipe.reference_adaln, reference_ffn_quirk=False
            )
        _check_sizes(family, made.config)
    except UNFIT as error:
        reason = " ".join(str(error).split())[:200] or "its sizes do not fit each other"
        raise UserError(
            f"The recipe {recipe.name!r} has an unusable network ({reason}); correct `network`."
        ) from error
    return made


def _check_sizes(family: str, config: Any) -> None:
    """Raises ValueError at what the class takes and no step can be computed with."""
    # CogVideoX gives a quarter of a head to time, 3/8 each to height and width, all in twos.
    unit = 16 if family == "cogvideox" else 2
    if config.attention_head_dim % unit:
        raise ValueError(f"attention_head_dim must be a multiple of {unit}")
    if config.num_layers < 1 or config.num_attention_heads < 1:
        raise ValueError("num_layers and num_attention_heads must be at least 1")
    if config.out_channels not in (None, config.in_channels):
        raise ValueError("out_channels must be in_channels")
    if family == "wan" and len(config.patch_size) != 3:
        raise ValueError("patch_size must be three numbers")


def load(recipe: StageRecipe) -> nn.Module:
    """The recipe's transformer with the weights of `init`; random from `seed` without `init`.

    Adapters beside the weights of `init` are added to them.

    Raises:
        UserError: `init` is missing, damaged, or holds another network.
    """
    torch.manual_seed(recipe.seed)
    if recipe.init is None:
        return build(recipe)
    if recipe.init.startswith("embedded:"):
        return _filled(recipe, embedded.load_state(recipe.init.partition(":")[2]))
    folder = transformer_folder(Path(recipe.init))
    kind = _read_config(folder).get("_class_name", "?")
    family, config = configuration(recipe)
    if kind not in CLASSES or (family == "wan") != ("Wan" in kind):
        raise UserError(
            f"{folder} holds a {kind}, the recipe {recipe.name!r} trains a {family} network; give "
            "another `init` or `network`."
        )
    try:
        loaded = CLASSES[kind].from_pretrained(folder, torch_dtype=torch.float32)
        if (Path(recipe.init) / adapters.FILE).is_file():
            adapters.merge(loaded, Path(recipe.init))
    except (OSError, ValueError, SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"The weights in {folder} cannot be read ({reason}); copy them again."
        ) from error
    if kind == "WanTransformer3DModel":
        loaded = ConcatIDWanTransformer3DModel.from_base(loaded, adaln=recipe.reference_adaln)
    elif family == "wan" and loaded.config.reference_adaln != recipe.reference_adaln:
        raise UserError(
            f"{folder} has reference_adaln {loaded.config.reference_adaln}, the recipe "
            f"{recipe.name!r} {recipe.reference_adaln}; set it to what `init` has."
        )
    for name, value in {} if recipe.network == INIT else config.items():
        if loaded.config.get(name) != value:
            raise UserError(
                f"{folder} has {name} {loaded.config.get(name)}, the recipe {recipe.name!r} "
                f"{value}; give another `init` or `network`."
            )
    return loaded


def transformer_folder(folder: Path) -> Path:
    """`folder`/transformer, or `folder` itself where the transformer lies there.

    Raises:
        UserError: neither has a config.json.
    """
    for place in (folder / "transformer", folder):
        if (place / "config.json").is_file():
            return place
    raise UserError(
        f"There is no transformer in {folder} (no transformer/config.json); give a diffusers "
        "folder or the folder `export` of an earlier stage as `init`."
    )


class Denoiser(nn.Module):
    """`Family.predict` as a module: what accelerate wraps, so that its hooks see each call.

    Args:
        clip_frames: least temporal position of the first reference; None: behind the video.
    """

    def __init__(self, transformer: Any, clip_frames: int | None = None) -> None:
        super().__init__()
        self.transformer = transformer
        self.clip_frames = clip_frames
        self.family = family_of(type(transformer).__name__)
        self._no_split_modules = transformer._no_split_modules

    def forward(
        self, latents: torch.Tensor, references: torch.Tensor | None, text: torch.Tensor,
        times: torch.Tensor,
    ) -> torch.Tensor:
        """Velocity (B, N, C, h, w) of noisy latents (B, N, C, h, w).

        Args:
            references: (B, M, C, h, w), M may be 0; or None. text: (B, L, D).
            times: (B,), 0 to 1000.
        """
        first = None
        if self.clip_frames is not None:
            first = max(self.clip_frames, latents.shape[1])
        output = self.family.predict(self.transformer, latents, references, text, times, first)
        # It may be a part of the network's output, and FSDP's hooks want no view.
        return output.clone(memory_format=torch.contiguous_format)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / 'config.json'} is no valid JSON; copy it again.") from error


def _filled(recipe: StageRecipe, state: Mapping[str, torch.Tensor]) -> nn.Module:
    """The recipe's transformer with these weights."""
    with torch.device("meta"):  # whether they fit is seen before a large network is made
        wanted = {name: value.shape for name, value in build(recipe).state_dict().items()}
    if wanted != {name: value.shape for name, value in state.items()}:
        raise UserError(
            f"{recipe.init} holds another network than the recipe {recipe.name!r}; give another "
            "`init`, or --set network=init to take its network."
        )
    transformer = build(recipe)
    transformer.load_state_dict(state)
    return transformer
