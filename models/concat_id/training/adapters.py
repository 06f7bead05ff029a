"""LoRA: adapters of low rank on a frozen network, by peft, in diffusers' file layout.

The file holds rank and alpha with the tensors, so that every reader scales the adapters alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from idbench.errors import UserError, explained

if TYPE_CHECKING:
    from idbench.models.concat_id.training.recipe import StageRecipe

FILE = "pytorch_lora_weights.safetensors"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
"""Layers of the attention that get adapters, by the end of their names."""
FEED_FORWARD = ("net.0.proj", "net.2")
"""Of the feed-forward part, in both families."""
PREFIX = "transformer"
NEEDS_PEFT = "pip install 'idbench[lora]'"


def targets(recipe: StageRecipe) -> tuple[str, ...]:
    """The layers that get adapters, by the end of their names."""
    return TARGETS + (FEED_FORWARD if recipe.lora_feed_forward else ())


def add(transformer: Any, recipe: StageRecipe) -> None:
    """Freeze the network and add new adapters to its layers. Raises UserError: peft is not
    installed."""
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise UserError(
            f"LoRA needs the package peft; run {NEEDS_PEFT}, or set lora_rank to 0."
        ) from error
    transformer.requires_grad_(False)
    if recipe.precision == "bf16":
        nn.Module.to(transformer, torch.bfloat16)  # frozen: nothing is lost by small updates
    torch.manual_seed(recipe.seed + 1)  # of the adapters' first weights
    transformer.add_adapter(LoraConfig(
        r=recipe.lora_rank, lora_alpha=recipe.lora_alpha,  # type: ignore[arg-type]  # floats work
        target_modules=list(targets(recipe)),
    ))
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def write(transformer: Any, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the adapters of `state`, what diffusers' `load_lora_weights` reads."""
    from diffusers.loaders import CogVideoXLoraLoaderMixin
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(transformer, state_dict=dict(state))
    CogVideoXLoraLoaderMixin.save_lora_weights(  # Wan's file has the same form
        str(folder), {name: value.cpu().contiguous() for name, value in found.items()},
        weight_name=FILE,
        transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
    )


def frozen(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The network's own tensors among those of a network with adapters, by their own names."""
    return {
        name.replace(".base_layer.", "."): value for name, value in state.items()
        if ".lora_A." not in name and ".lora_B." not in name
    }


def load(transformer: Any, folder: Path) -> None:
    """Put the adapters in `folder` on the network; it then computes with them. Raises UserError:
    peft is not installed; the file is damaged or holds those of another network."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{folder} contains LoRA adapters, which need the package peft; run {NEEDS_PEFT}."
        ) from error
    what = f"The adapters {folder / FILE} do not fit the network"
    with explained(what, "they are damaged or belong to another network"):
        with safe_open(folder / FILE, "pt") as file:
            held = sum(".lora_" in name for name in file.keys())
        transformer.load_lora_adapter(
            str(folder), prefix=PREFIX, weight_name=FILE, adapter_name="default",
            local_files_only=True, use_safetensors=True,
        )
    # Names that it does not know, the library passes by.
    taken = sum(".lora_" in name for name, _ in transformer.named_parameters())
    if not held or taken != held:
        raise UserError(
            f"{folder / FILE} contains {held} adapter tensors, {taken} of them for this network; "
            "they belong to another network."
        )


def merge(transformer: Any, folder: Path) -> None:
    """Add the adapters in `folder` to the network's own weights."""
    load(transformer, folder)
    transformer.fuse_lora()
    transformer.unload_lora()
