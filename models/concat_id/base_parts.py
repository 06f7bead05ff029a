"""Model folders in diffusers' layout: their parts, and completing one with those of its base."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from idbench.checkpoints import read_checkpoint, read_settings
from idbench.errors import UserError
from idbench.models.concat_id.families import Kind

PARTS = ("tokenizer", "text_encoder", "vae")
WEIGHTS = "diffusion_pytorch_model.safetensors"


def transformer_folder(folder: Path) -> Path | None:
    """`folder`/transformer, or `folder` itself if the transformer is there; else None."""
    places = (folder / "transformer", folder)
    return next((place for place in places if (place / "config.json").is_file()), None)


def read_folder(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of one network in diffusers' folder layout, from one file or from shards.
    Raises UserError: a file is missing or damaged, or a shard lacks a tensor of the index."""
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if not (folder / WEIGHTS).is_file():
            raise UserError(
                f"{folder} has no {WEIGHTS}; save the model with safetensors, or download it again."
            )
        return read_checkpoint(folder / WEIGHTS).state
    files = _shards(index)
    state = {}
    for name in sorted(set(files.values())):
        state.update(read_checkpoint(folder / name).state)
    missing = sorted(set(files) - set(state))
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} tensors of its index ({missing[0]}, ...); fetch it "
            "again."
        )
    return state


def tensor_names(folder: Path) -> set[str]:
    """Names of the tensors of one network in diffusers' or transformers' layout, from the headers
    of its .safetensors files; with an index, those of its files."""
    names: set[str] = set()
    for file in (WEIGHTS, "model.safetensors"):
        index = folder / f"{file}.index.json"
        for name in set(_shards(index).values()) if index.is_file() else {file}:
            if (folder / name).is_file():
                with safe_open(folder / name, "pt") as opened:
                    names.update(opened.keys())
    return names


def add_base(
    base: Path, folder: Path, family: Kind, transformer: Mapping[str, Any]
) -> dict[str, Any]:
    """Link (or else copy) autoencoder, text encoder and tokenizer of the folder `base` into
    `folder`; returns their entries of model_index.json. `transformer` is the configuration they
    must fit. Raises UserError: parts are missing, or belong to another base."""
    index = read_settings(base / "model_index.json")
    missing = lacking(base, index, PARTS)
    if missing:
        raise UserError(
            f"{base} lacks {', '.join(missing)}; pass a complete folder of the base with --base."
        )
    wanted = family.INDEX["vae"][1]
    if index["vae"][1] != wanted:
        raise UserError(
            f"{base} is a different base: its autoencoder is {index['vae'][1]}, the checkpoint "
            f"needs {wanted}; pass the matching base with --base."
        )
    vae, text = (read_settings(base / part / "config.json") for part in ("vae", "text_encoder"))
    channels = vae.get("z_dim", vae.get("latent_channels"))
    width = transformer[family.TEXT_WIDTH]
    if channels != transformer["in_channels"] or text.get("d_model") != width:
        raise UserError(
            f"{base} does not fit the checkpoint: it has {channels} latent channels and text "
            f"embeddings of width {text.get('d_model')}, not {transformer['in_channels']} and "
            f"{width}; pass the matching base with --base."
        )
    for name in PARTS:
        for path in (base / name).rglob("*"):
            if not path.exists():  # a link into a cache that was emptied
                raise UserError(f"{path} is a broken link; download the base again.")
    for name in PARTS:
        shutil.copytree(base / name, folder / name, copy_function=_link_or_copy)
    return {name: index[name] for name in PARTS}


def lacking(folder: Path, index: Mapping[str, Any], parts: Iterable[str]) -> list[str]:
    """Those of `parts` that have no folder, or no library and class in model_index.json."""
    return [part for part in parts if not (folder / part).is_dir() or not is_part(index.get(part))]


def is_part(entry: Any) -> bool:
    """Whether an entry of model_index.json names a library and a class."""
    return (
        isinstance(entry, list) and len(entry) == 2 and all(isinstance(name, str) for name in entry)
    )


def _link_or_copy(source: str, target: str) -> None:
    try:
        # A hub's cache holds links: link the file itself.
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)


def _shards(index: Path) -> dict[str, str]:
    """The file of each tensor in an index of shards."""
    files = read_settings(index).get("weight_map")
    if not isinstance(files, Mapping) or not all(
        isinstance(name, str) and Path(name).name == name for name in files.values()
    ):
        raise UserError(f"{index} is not an index of shards; download the folder again.")
    return dict(files)
