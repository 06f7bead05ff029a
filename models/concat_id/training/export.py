"""The trained weights as a diffusers folder, whole or not there."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import save_torch_state_dict

from idbench.files import write_json
from idbench.models.concat_id.training.checkpoint import saying_full

if TYPE_CHECKING:
    from idbench.models.concat_id.training.loop import Session


def export(session: Session) -> Path:
    """Write STATE/export: `transformer` (or LoRA weights) and training.json.

    Every process calls this: sharded weights are gathered. Returns the folder.
    """
    accelerator, recipe = session.accelerator, session.recipe
    state = {
        key.removeprefix("transformer."): value
        for key, value in accelerator.get_state_dict(session.network).items()
    }
    target = session.state_dir / "export"
    if accelerator.is_main_process:
        transformer: Any = accelerator.unwrap_model(session.network).transformer
        temporary = session.state_dir / ".export.part"
        shutil.rmtree(temporary, ignore_errors=True)
        with saying_full(temporary):
            if recipe.lora_rank:
                _write_lora(transformer, state, temporary)
            else:
                transformer.save_config(temporary / "transformer")
                save_torch_state_dict(
                    state, temporary / "transformer",
                    filename_pattern="diffusion_pytorch_model{suffix}.safetensors",
                )
            write_json(temporary / "training.json", {
                "recipe": asdict(recipe), "step": session.step, "averaged": recipe.ema > 0,
                "cache": session.cache.settings,
            })
            old = session.state_dir / ".export.old"
            shutil.rmtree(old, ignore_errors=True)
            if target.exists():
                os.replace(target, old)
            os.replace(temporary, target)
            shutil.rmtree(old, ignore_errors=True)
    accelerator.wait_for_everyone()
    return target


def _write_lora(transformer: Any, state: dict[str, Any], folder: Path) -> None:
    """pytorch_lora_weights.safetensors, what diffusers' `load_lora_weights` reads."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    low = get_peft_model_state_dict(transformer, state_dict=state)
    save_file(
        {f"transformer.{key}": value.cpu().contiguous() for key, value in low.items()},
        folder / "pytorch_lora_weights.safetensors", {"format": "pt"},
    )
