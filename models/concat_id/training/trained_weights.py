"""The trained weights: embedded weights, or a model folder in diffusers' layout.

    STATE/export/transformer                         the trained weights (LoRA: the frozen ones)
                 pytorch_lora_weights.safetensors    LoRA: the adapters
                 scheduler, vae, text_encoder, tokenizer, model_index.json
                 training.json                       recipe, step, samples, what is missing

The folder is written whole or not at all. Autoencoder, text encoder and tokenizer are linked from
`components` (or `init`), so `idbench run --set weights=STATE/export` makes videos, and a next stage
can start from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import save_torch_state_dict

from idbench import embedded
from idbench.errors import UserError
from idbench.files import DiskFull, atomic_folder, write_json
from idbench.models.concat_id import networks
from idbench.models.concat_id.base_parts import add_base
from idbench.models.concat_id.training import adapters, network
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.training.save import saying_full

if TYPE_CHECKING:
    from idbench.models.concat_id.training.loop import Session


def write_weights(session: Session, measured: Mapping[str, Any]) -> None:
    """Write STATE/export, or the embedded weights `entry` of the recipe.

    Every process calls this: sharded weights are gathered.

    Args:
        measured: what the manifest says of embedded weights.
    """
    accelerator, recipe = session.accelerator, session.recipe
    state = {
        key.removeprefix("transformer."): _whole(value)
        for key, value in accelerator.get_state_dict(session.network).items()
    }
    if recipe.entry and accelerator.is_main_process:
        embedded.save_entry(
            recipe.entry, state, recipe=recipe.name, seed=recipe.seed, steps=session.step,
            config=network.configuration(recipe)[1], measured=measured, bits=recipe.entry_bits,
            parent=str(recipe.init).removeprefix("embedded:") if recipe.delta else None,
            reference_fill=session.samples.settings.get("fill", 1.0),
        )
    elif accelerator.is_main_process:
        _write(session, state)
    accelerator.wait_for_everyone()


def _write(session: Session, state: dict[str, Any]) -> None:
    """Write the weights into `export` of the state's folder, in place of earlier ones."""
    recipe, folder = session.recipe, session.state_dir
    target, old = folder / "export", folder / ".export.old"
    transformer: Any = session.accelerator.unwrap_model(session.network).transformer
    try:
        with saying_full(target), atomic_folder(target) as temporary:
            if recipe.lora_rank:
                adapters.write(transformer, state, temporary)
                state = adapters.frozen(state)
            transformer.save_config(temporary / "transformer")
            save_torch_state_dict(
                state, temporary / "transformer",
                filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
            )
            write_json(temporary / "training.json", {
                "recipe": asdict(recipe), "step": session.step, "averaged": recipe.ema > 0,
                "cache": dict(session.samples.settings),
                "lacks": complete(temporary, recipe, session.family, transformer.config),
            })
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                os.replace(target, old)
    finally:
        shutil.rmtree(old, ignore_errors=True)


def complete(
    folder: Path, recipe: StageRecipe, family: Any, config: Mapping[str, Any]
) -> str | None:
    """Bring what a transformer needs beside it to make videos into `folder`.

    Args:
        family: of the transformer, with its noise schedule. config: of the transformer.

    Returns:
        Why the folder is not complete, or None. It is no error: the weights are what was trained.
    """
    if recipe.parts is None:
        return "the recipe names neither components nor init"
    index = dict(family.INDEX)
    try:
        if recipe.parts == "embedded":
            index.update(_embedded(folder))
        else:
            index.update(add_base(Path(recipe.parts), folder, family, config))
    except DiskFull:
        raise
    except UserError as error:
        return str(error)
    family.scheduler.save_pretrained(folder / "scheduler")
    write_json(folder / "model_index.json", index)
    return None


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor with a storage of its own: gathered shards may be views, which are not written."""
    own = tensor.numel() * tensor.element_size() == tensor.untyped_storage().nbytes()
    return tensor if own else tensor.clone()


def _embedded(folder: Path) -> dict[str, Any]:
    """The embedded autoencoder and text encoder in `folder`; their entries of the index."""
    text, vae = networks.load_text_encoder(), networks.load_vae()
    text.tokenizer.save_pretrained(folder / "tokenizer")
    text.network.save_pretrained(folder / "text_encoder")
    vae.save_pretrained(folder / "vae")
    return {
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
        "text_tokens": networks.TEXT_TOKENS, "mask_padding": True,
    }
