"""Model folders in diffusers' layout, opened as a pipeline of Concat-ID.

A folder made by `idbench convert`, the `export` of a training (with its LoRA adapters, where
there are some), one written by `save_pretrained`, or the base itself (CogVideoX-5B or Wan2.1-T2V
in diffusers' layout: Concat-ID's plain forms add no parameter).
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, FlowMatchEulerDiscreteScheduler
from safetensors import SafetensorError

from idbench.errors import UserError
from idbench.files import read_json
from idbench.models.concat_id.base_parts import is_part, lacking
from idbench.models.concat_id.checkpoints import names_in
from idbench.models.concat_id.convert import WAN_SHIFT
from idbench.models.concat_id.convert_sat import TEXT_TOKENS
from idbench.models.concat_id.defaults import COGVIDEOX, WAN, Defaults
from idbench.models.concat_id.devices import check_device
from idbench.models.concat_id.layouts import listed
from idbench.models.concat_id.pipeline import (
    ConcatIDPipeline,
    ConcatIDWanPipeline,
    VideoPipeline,
)
from idbench.models.concat_id.training import adapters
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

PARTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
TRAINING = "training.json"
"""What a training wrote into its export; see `training.export`."""
OFFLOADS = ("none", "model")
_DEFAULTS = {
    "ConcatIDPipeline": COGVIDEOX, "CogVideoXPipeline": COGVIDEOX,
    "ConcatIDWanPipeline": WAN, "WanPipeline": WAN,
}


def defaults_of(folder: Path) -> Defaults:
    """The released sampling settings of the base that `folder` holds.

    Of the export of a training: its own size, and references prepared as it saw them.

    Raises:
        UserError: no model folder, parts missing, or of another system.
    """
    usual = _DEFAULTS[_class_of(folder)]
    said = read_json(folder / TRAINING) if (folder / TRAINING).is_file() else {}
    recipe, cache = said.get("recipe", {}), said.get("cache", {})
    known = {
        **{name: recipe.get(name) for name in ("frames", "height", "width")},
        **{name: cache.get(name) for name in ("fps", "alignment", "parser")},
    }
    return replace(usual, **{name: value for name, value in known.items() if value})


def files_of(folder: Path) -> list[Path]:
    """Every file that decides what the networks compute, in order."""
    alone = (folder / adapters.FILE, folder / "model_index.json")
    return sorted([
        *(path for part in PARTS for path in (folder / part).rglob("*")
          if path.suffix in (".safetensors", ".json", ".model", ".txt")),
        *(path for path in alone if path.is_file()),
    ])


def open_folder(
    folder: Path, *, device: str | None = None, bfloat16: bool = True, tiling: bool = False,
    offload: str = "none",
) -> VideoPipeline:
    """The pipeline of a model folder, on its device.

    Args:
        device: such as `cuda` or `cpu`; None: an accelerator if there is one.
        bfloat16: load transformer and text encoder in bfloat16 (CogVideoX's autoencoder too;
            Wan's stays in float32, as it was released), else all in float32.
        tiling: decode in tiles.
        offload: `none`, or `model`: networks are on the device only while they work.

    Raises:
        UserError: no complete folder, damaged files, no accelerator to offload from.
    """
    if offload not in OFFLOADS:
        raise UserError(f"offload is one of {', '.join(OFFLOADS)}, not {offload!r}.")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(place)
    if offload != "none" and torch.device(place).type == "cpu":
        raise UserError("offload needs an accelerator to take networks from; leave it out.")
    kind = _class_of(folder)
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    try:
        with warnings.catch_warnings():  # of names of arguments that diffusers is to lose
            warnings.simplefilter("ignore", FutureWarning)
            pipeline = _load(folder, kind, dtype)
        _check_tensors(pipeline, folder)
        if (folder / adapters.FILE).is_file():
            adapters.load(pipeline.transformer, folder)
    # Damage shows as any of these, from three libraries.
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"The model folder {folder} cannot be loaded ({reason}); convert or fetch it again."
        ) from error
    pipeline.enable_vae_slicing()
    if tiling:
        pipeline.enable_vae_tiling()
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=place)
    else:
        try:
            pipeline.to(place)
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"The networks cannot be brought to {place} ({str(error).splitlines()[0][:120]}); "
                "take device=cpu, or offload=model where memory is short."
            ) from error
    return pipeline


def _load(folder: Path, kind: str, dtype: torch.dtype) -> VideoPipeline:
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True,
                               "use_safetensors": True}
    if _DEFAULTS[kind] is COGVIDEOX:
        if kind == "CogVideoXPipeline":
            options.update(
                text_tokens=TEXT_TOKENS, mask_padding=False,
                scheduler=CogVideoXDPMScheduler.from_pretrained(folder / "scheduler"),
            )
        return ConcatIDPipeline.from_pretrained(folder, **options)
    if kind == "WanPipeline":
        options.update(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=WAN_SHIFT),
            transformer=ConcatIDWanTransformer3DModel.from_pretrained(
                folder / "transformer", torch_dtype=dtype, use_safetensors=True,
                local_files_only=True,
            ),
        )
    options["torch_dtype"] = {"default": dtype, "vae": torch.float32}
    return ConcatIDWanPipeline.from_pretrained(folder, **options)


def _check_tensors(pipeline: VideoPipeline, folder: Path) -> None:
    """Raise UserError where the libraries would go on with random weights, or leave weights out."""
    for part in ("transformer", "vae", "text_encoder"):
        network, held = getattr(pipeline, part), names_in(folder / part)
        tensors = network.state_dict(keep_vars=True)
        # One tensor may have two names in a network, and one of them in its file.
        known = {id(tensor) for name, tensor in tensors.items() if name in held}
        missing = [name for name, tensor in tensors.items() if id(tensor) not in known]
        if missing:
            raise UserError(
                f"{folder / part} lacks {listed(missing)} of the network in its config.json; "
                "convert or fetch it again."
            )
        # A text encoder's file may hold a decoder, which is of no use here.
        strange = held - tensors.keys() - {name for name, _ in network.named_buffers()}
        if strange and part == "transformer":
            raise UserError(
                f"{folder / part} holds {listed(strange)} that the network in its config.json does "
                "not have; convert or fetch it again."
            )


def _class_of(folder: Path) -> str:
    if not folder.is_dir():
        raise UserError(f"The model folder {folder} is missing; check the path.")
    training = folder / TRAINING
    if training.is_file() and not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} has a transformer alone ({read_json(training).get('lacks')}); name a folder "
            "of the base as `components` of the stage and train it to its end once more."
        )
    if (folder / "export" / "model_index.json").is_file():
        raise UserError(f"{folder} holds a training; its model folder is {folder / 'export'}.")
    index = read_json(folder / "model_index.json")
    kind = str(index.get("_class_name")) if isinstance(index, dict) else "None"
    if kind not in _DEFAULTS:
        raise UserError(
            f"{folder} holds a {kind}, not a Concat-ID or its base ({', '.join(_DEFAULTS)}); "
            "make one with `idbench convert`."
        )
    others = [name for name, part in index.items() if name not in PARTS and is_part(part)]
    if others:
        raise UserError(
            f"{folder} makes its videos with {', '.join(others)} too, which Concat-ID does not "
            "know; take CogVideoX-5B or Wan2.1-T2V."
        )
    missing = lacking(folder, index, PARTS)
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}; convert again with --base, a folder of the "
            "base in diffusers' layout."
        )
    for path in files_of(folder):
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; convert or fetch it again.")
    return kind
