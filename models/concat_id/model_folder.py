"""Model folders in diffusers' layout, opened as a pipeline of Concat-ID.

A folder made by `idbench convert`, the `export` of a training (with its LoRA adapters, if it has
any), one written by `save_pretrained`, or the base itself (CogVideoX-5B or Wan2.1-T2V in
diffusers' layout: Concat-ID's plain forms add no parameter).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler

from idbench.checkpoints import listed
from idbench.devices import check_device
from idbench.errors import UserError, explained
from idbench.files import read_json
from idbench.models.concat_id.about import Defaults
from idbench.models.concat_id.base_parts import is_part, lacking, tensor_names
from idbench.models.concat_id.families import CogVideoX, family_of
from idbench.models.concat_id.families.wan21 import build_flow_scheduler
from idbench.models.concat_id.pipeline import ConcatIDPipeline, ConcatIDWanPipeline, VideoPipeline
from idbench.models.concat_id.training import adapters
from idbench.models.concat_id.wan import ConcatIDWanTransformer3DModel

PARTS = ("tokenizer", "text_encoder", "vae", "transformer", "scheduler")
TRAINING = "training.json"
"""What a training wrote into its export; see `training.trained_weights`."""
OFFLOADS = ("none", "model")
PIPELINES = ("ConcatIDPipeline", "CogVideoXPipeline", "ConcatIDWanPipeline", "WanPipeline")
"""Concat-ID's pipelines and their bases', by `_class_name` in model_index.json."""


def defaults_of(folder: Path) -> Defaults:
    """The released sampling settings of the base in `folder`; the export of a training has its own
    size and preparation of references. Raises UserError: no model folder, parts missing, or another
    system's."""
    usual = family_of(_check_folder(folder)).DEFAULTS
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
    offload: str = "none", sampling: str = "default",
) -> VideoPipeline:
    """The pipeline of a model folder, on its device. Raises UserError: no complete folder, damaged
    files, no accelerator to offload from.

    Args:
        device: such as `cuda` or `cpu`; None: an accelerator if there is one.
        bfloat16: load transformer and text encoder in bfloat16 (CogVideoX's autoencoder too;
            Wan's stays in float32, as it was released), else all in float32.
        tiling: decode in tiles.
        sampling: of CogVideoX's form, see `ConcatIDPipeline`.
        offload: `none`, or `model`: networks are on the device only while they work.
    """
    place = check_place(device, offload)
    kind = _check_folder(folder)
    with explained(f"The model folder {folder} cannot be loaded", "convert or download it again"):
        with warnings.catch_warnings():  # about argument names that diffusers will drop
            warnings.simplefilter("ignore", FutureWarning)
            dtype = torch.bfloat16 if bfloat16 else torch.float32
            pipeline = _load(folder, kind, dtype, sampling)
        check_tensors(pipeline, folder)
        if (folder / adapters.FILE).is_file():
            adapters.load(pipeline.transformer, folder)
    pipeline.enable_vae_slicing()
    if tiling:
        pipeline.enable_vae_tiling()
    return on_device(pipeline, place, offload)


def on_device(pipeline: Any, place: str, offload: str) -> Any:
    """A loaded pipeline on its device; `place` and `offload` as checked by `check_place`. Raises
    UserError: not enough memory."""
    if offload == "model":
        pipeline.enable_model_cpu_offload(device=place)
        return pipeline
    fix = "try device=cpu, or offload=model if memory is short"
    with explained(f"The networks cannot be moved to {place}", fix):
        return pipeline.to(place)


def _load(folder: Path, kind: str, dtype: torch.dtype, sampling: str) -> VideoPipeline:
    options: dict[str, Any] = {"torch_dtype": dtype, "local_files_only": True,
                               "use_safetensors": True}
    if family_of(kind) is CogVideoX:
        options["sampling"] = sampling
        if kind == "CogVideoXPipeline":
            options.update(
                text_tokens=CogVideoX.text_tokens, mask_padding=False,
                scheduler=CogVideoXDPMScheduler.from_pretrained(folder / "scheduler"),
            )
        return ConcatIDPipeline.from_pretrained(folder, **options)
    if kind == "WanPipeline":
        options.update(
            scheduler=build_flow_scheduler(),
            transformer=ConcatIDWanTransformer3DModel.from_pretrained(
                folder / "transformer", **options
            ),
        )
    options["torch_dtype"] = {"default": dtype, "vae": torch.float32}
    return ConcatIDWanPipeline.from_pretrained(folder, **options)


# Checks


def check_place(device: str | None, offload: str) -> str:
    """The device, checked to work."""
    if offload not in OFFLOADS:
        raise UserError(f"offload is one of {', '.join(OFFLOADS)}, not {offload!r}.")
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(place)
    if offload != "none" and torch.device(place).type == "cpu":
        raise UserError("offload needs an accelerator; leave it out.")
    return place


def check_tensors(
    pipeline: VideoPipeline, folder: Path,
    parts: Sequence[str] = ("transformer", "vae", "text_encoder"),
) -> None:
    """Raise UserError where the libraries would use random weights, or leave weights out."""
    for part in parts:
        network, held = getattr(pipeline, part), tensor_names(folder / part)
        tensors = network.state_dict(keep_vars=True)
        # One tensor may have two names in a network, and one of them in its file.
        known = {id(tensor) for name, tensor in tensors.items() if name in held}
        missing = [name for name, tensor in tensors.items() if id(tensor) not in known]
        if missing:
            raise UserError(
                f"{folder / part} lacks {listed(missing)} of the network in its config.json; "
                "convert or download it again."
            )
        # A text encoder's file may hold a decoder, which is not needed here.
        unknown = held - tensors.keys() - {name for name, _ in network.named_buffers()}
        if unknown and part == "transformer":
            raise UserError(
                f"{folder / part} contains {listed(unknown)} that the network in its config.json "
                "does not have; convert or download it again."
            )


def _check_folder(folder: Path) -> str:
    """The pipeline's class in a complete model folder."""
    if not folder.is_dir():
        raise UserError(f"The model folder {folder} is missing; check the path.")
    training = folder / TRAINING
    if training.is_file() and not (folder / "model_index.json").is_file():
        raise UserError(
            f"{folder} contains only a transformer ({read_json(training).get('lacks')}); name a "
            "folder of the base as `components` of the stage and finish its training again."
        )
    if (folder / "export" / "model_index.json").is_file():
        raise UserError(f"{folder} contains a training; its model folder is {folder / 'export'}.")
    index = read_json(folder / "model_index.json")
    kind = str(index.get("_class_name")) if isinstance(index, Mapping) else "None"
    if kind not in PIPELINES:
        raise UserError(
            f"{folder} contains a {kind}, not a Concat-ID or its base ({', '.join(PIPELINES)}); "
            "make one with `idbench convert`."
        )
    others = [name for name, part in index.items() if name not in PARTS and is_part(part)]
    if others:
        raise UserError(
            f"{folder} generates videos with {', '.join(others)} too, which Concat-ID does not "
            "know; use CogVideoX-5B or Wan2.1-T2V."
        )
    missing = lacking(folder, index, PARTS)
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}; convert again with --base, a folder of the "
            "base in diffusers' layout."
        )
    for path in files_of(folder):
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty; convert or download it again.")
    return kind
