"""The network that is trained: built from a recipe, or loaded from a folder; heads that copy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXTransformer3DModel, WanTransformer3DModel
from torch import nn

from idbench import embedded
from idbench.checkpoints import read_settings
from idbench.errors import UserError, explained
from idbench.models.concat_id.base_parts import transformer_folder
from idbench.models.concat_id.families import BASELINES, FAMILIES, family_named, family_of
from idbench.models.concat_id.networks import CLIP_LATENT_FRAMES, build_transformer
from idbench.models.concat_id.training import adapters
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.models.concat_id.training.subset import denoise_tokens
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel
from idbench.names import one_of

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

CLASSES: Mapping[str, Any] = {
    kind.__name__: kind
    for kind in (*(family.TRANSFORMER for family in FAMILIES.values()), WanTransformer3DModel)
}
BLOCKS = ("transformer_blocks", "blocks")
"""Names that the transformers have for the list of their blocks."""
EMBEDDED = "embedded:"
INIT = "init"
"""As `network`: the one that `init` holds."""

COPIED_PLACES = ((1, 0.0, 0.0), (2, 0.0, 0.7), (3, 0.0, -0.7), (4, -0.7, 0.0))
"""Block, and rows and columns from a token to what it reads; the first head of the block does it.
Between tokens, so that together they see where in a token a face begins."""
COPY_ENERGY = {"time": (24.0,), "row": (12.0, 8.0), "column": (12.0, 8.0)}
"""Squared length of queries and keys in the frequencies of each axis, of 64 in all after the norm.
Rows and columns use the two fastest frequencies, time the second."""
COPY_KEPT = 0.1
"""Share of the content in queries and keys that is kept."""


def configuration(recipe: StageRecipe) -> tuple[str, dict[str, Any]]:
    """Family (`cogvideox` or `wan`) and the arguments of its class. Raises UserError: unknown
    network or family."""
    given = recipe.network
    if given == INIT:
        return _configuration_of_init(recipe)
    if isinstance(given, str):
        given = NETWORKS[one_of("network", given, NETWORKS)]
    config = dict(given)
    if config.pop("base", None) == INIT:  # a baseline's own arguments, beside those of its base
        config = {**_configuration_of_init(recipe)[1], **config}
    family = str(config.pop("family", "cogvideox"))
    return one_of("family of networks", family, (*FAMILIES, *BASELINES)), config


def _configuration_of_init(recipe: StageRecipe) -> tuple[str, dict[str, Any]]:
    if recipe.init is None:
        raise UserError(
            f"The recipe {recipe.name!r} has `network: init` but no `init`; add it."
        )
    if recipe.init.startswith(EMBEDDED):
        return "cogvideox", dict(embedded.entry(recipe.init.removeprefix(EMBEDDED))["config"])
    config = read_settings(_folder_of_init(recipe.init) / "config.json")
    # The class has these from the recipe.
    left_out = ("reference_adaln", "reference_ffn_quirk")
    return family_of(str(config.get("_class_name"))).name, {
        name: value for name, value in config.items()
        if not name.startswith("_") and name not in left_out
    }


def build(recipe: StageRecipe) -> nn.Module:
    """The recipe's transformer with random weights (on the meta device inside its context). Raises
    UserError: arguments of which the class makes no network."""
    family, config = configuration(recipe)
    with explained(f"The recipe {recipe.name!r} has an unusable network", "correct `network`"):
        if family in BASELINES:
            return family_named(family).build(config)
        if family == "cogvideox":
            made: Any = build_transformer(config)
        else:
            made = ConcatIDWanTransformer3DModel(
                **config, reference_adaln=recipe.reference_adaln,
                reference_ffn_quirk=recipe.reference_ffn_quirk,
            )
        _check_sizes(family, made.config)
    return made


def load(recipe: StageRecipe) -> nn.Module:
    """The recipe's transformer with the weights of `init`; random from `seed` without `init`.

    Adapters next to the weights of `init` are merged into them. Raises UserError: `init` is
    missing, damaged, or holds another network."""
    torch.manual_seed(recipe.seed)
    if recipe.init is None:
        return build(recipe)
    if recipe.init.startswith(EMBEDDED):
        state = embedded.load_state(recipe.init.removeprefix(EMBEDDED))
        family, _ = configuration(recipe)
        if family not in BASELINES:
            _check_state(recipe, state)
        made = build(recipe)
        if family in BASELINES:
            family_named(family).load_base(made, state)
        else:
            made.load_state_dict(state)
        return made
    folder = _folder_of_init(recipe.init)
    kind = _check_class(recipe, folder)
    with explained(f"The weights in {folder} cannot be read", "copy them again"):
        transformer = CLASSES[kind].from_pretrained(folder, torch_dtype=torch.float32)
        if (Path(recipe.init) / adapters.FILE).is_file():
            adapters.merge(transformer, Path(recipe.init))
    new = recipe.reference_adaln and not getattr(transformer.config, "reference_adaln", True)
    if kind == "WanTransformer3DModel" or new:  # AdaLN may start from a stage without it
        transformer = ConcatIDWanTransformer3DModel.from_base(
            transformer, adaln=recipe.reference_adaln, quirk=recipe.reference_ffn_quirk
        )
    _check_configuration(recipe, folder, transformer.config)
    return transformer


def start_copying(
    transformer: CogVideoXTransformer3DModel,
    places: Sequence[tuple[int, float, float]] = COPIED_PLACES,
) -> None:
    """Let the first head of some blocks begin by copying: each token reads the reference at its own
    place.

    Where references show faces at the size and place that they have in the video, copying is
    attention to the same row and column, later in time. Queries and keys of a CogVideoX transformer
    are normalised, so a trained network gets there slowly: a head has to put nearly all of a query
    into the few fast frequencies of the rotary embedding. Here the heads start with biases that do
    so; what they read and write, and everything else, stays as it was and is trained.

    Args:
        transformer: with rotary positions and at least as many blocks as `places` names.
    """
    size = transformer.config.attention_head_dim
    with torch.no_grad():
        for block, rows, columns in places:
            attention: Any = transformer.transformer_blocks[block].attn1
            query, key = _copying_vectors(size, rows, columns)
            for linear, vector in ((attention.to_q, query), (attention.to_k, key)):
                linear.weight[:size] *= COPY_KEPT
                linear.bias[:size] = vector


def _copying_vectors(size: int, rows: float, columns: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Query and key (size,) whose product is largest `CLIP_LATENT_FRAMES` later, at an offset.

    The rotary embedding gives a quarter of a head to time and three eighths each to row and
    column, in pairs that turn by position x 10000 ** (-pair / pairs).
    """
    time, plane = size // 4, size // 8 * 3
    query, key = torch.zeros(size), torch.zeros(size)
    axes = (("time", 0, time, CLIP_LATENT_FRAMES, 1), ("row", time, plane, rows, 0),
            ("column", time + plane, plane, columns, 0))
    for axis, start, width, offset, fastest in axes:
        for number, energy in enumerate(COPY_ENERGY[axis], fastest):
            length, place = math.sqrt(energy), start + 2 * number
            turn = offset * 10000 ** (-2 * number / width)
            key[place], key[place + 1] = _turned(length, -math.pi / 4)
            query[place], query[place + 1] = _turned(length, -math.pi / 4 + turn)
    return query, key


def _turned(length: float, angle: float) -> tuple[float, float]:
    return length * math.cos(angle), length * math.sin(angle)


def blocks_of(transformer: Any) -> tuple[str, nn.ModuleList]:
    """The blocks of a transformer, and the name it has for them."""
    name = next(name for name in BLOCKS if hasattr(transformer, name))
    return name, getattr(transformer, name)


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
        times: torch.Tensor, keep: torch.Tensor | None = None,
    ) -> Any:
        """What the family's `predict` gives for noisy latents (B, N, C, h, w): a velocity of
        that shape, in training of some baselines with more that their loss reads.

        Args:
            references: (B, M, C, h, w), M may be 0; or None. text: (B, L, D).
            times: (B,), 0 to 1000.
            keep: (B, K), the tokens to compute, see `subset.denoise_tokens`; None: all.
        """
        first = None
        if self.clip_frames is not None:
            first = max(self.clip_frames, latents.shape[1])
        if keep is not None:
            assert references is not None
            return denoise_tokens(
                self.transformer, latents, references, text, times, keep, first
            )
        output = self.family.predict(self.transformer, latents, references, text, times, first)
        # It may be a part of the network's output, and FSDP's hooks want no view.
        if isinstance(output, tuple):
            return tuple(part.clone(memory_format=torch.contiguous_format) for part in output)
        return output.clone(memory_format=torch.contiguous_format)


# Checks


def _folder_of_init(init: str) -> Path:
    folder = transformer_folder(Path(init))
    if folder is None:
        raise UserError(
            f"There is no transformer in {init} (no transformer/config.json); use a diffusers "
            "folder or the folder `export` of an earlier stage as `init`."
        )
    return folder


def _check_sizes(family: str, config: Any) -> None:
    """Raise ValueError for sizes that the class accepts but cannot compute with."""
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


def _check_state(recipe: StageRecipe, state: Mapping[str, torch.Tensor]) -> None:
    with torch.device("meta"):  # before a large network is made
        wanted = {name: value.shape for name, value in build(recipe).state_dict().items()}
    if wanted != {name: value.shape for name, value in state.items()}:
        raise UserError(
            f"{recipe.init} contains a different network than the recipe {recipe.name!r}; use "
            "another `init`, or --set network=init to use its network."
        )


def _check_class(recipe: StageRecipe, folder: Path) -> str:
    """The class of the network in `folder`, one of the recipe's family."""
    kind = str(read_settings(folder / "config.json").get("_class_name", "?"))
    family, _ = configuration(recipe)
    if kind not in CLASSES or family_of(kind).name != family:
        raise UserError(
            f"{folder} contains a {kind}, the recipe {recipe.name!r} trains a {family} network; "
            "use another `init` or `network`."
        )
    return kind


def _check_configuration(recipe: StageRecipe, folder: Path, held: Any) -> None:
    family, config = configuration(recipe)
    if family == "wan" and held.reference_adaln != recipe.reference_adaln:
        raise UserError(
            f"{folder} has reference_adaln {held.reference_adaln}, the recipe {recipe.name!r} "
            f"{recipe.reference_adaln}; set it to the value of `init`."
        )
    for name, value in {} if recipe.network == INIT else config.items():
        if held.get(name) != value:
            raise UserError(
                f"{folder} has {name} {held.get(name)}, the recipe {recipe.name!r} {value}; give "
                "another `init` or `network`."
            )
