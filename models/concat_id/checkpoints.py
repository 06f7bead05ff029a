"""Checkpoints of Concat-ID and its bases: where their files lie, and what is wrapped in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from idbench.checkpoints import WRAPPERS, read_content
from idbench.errors import UserError
from idbench.files import read_json

SAT_FILE = "mp_rank_00_model_states.pt"
WAN_FILES = ("first_stage.pt", "second_stage_adaln.pt")
WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """Tensors of one file or folder.

    Attributes:
        path: the file, or the folder of several.
        state: tensors on the CPU by name, mapped from the file where that is possible.
        refused: what else was there, by name, and why it is no part of a network.
    """

    path: Path
    state: dict[str, torch.Tensor]
    refused: dict[str, str] = field(default_factory=dict)


def find_file(source: Path) -> Path:
    """The checkpoint's file at `source`: itself, or in SAT's or the Wan release's folder.

    Raises:
        UserError: nothing there, or more than one.
    """
    if source.is_file():
        return source
    if not source.is_dir():
        raise UserError(f"{source} is missing; check the path.")
    latest = source / "latest"
    if latest.is_file():
        step = latest.read_text(encoding="utf-8", errors="replace").strip()
        found = source / step / SAT_FILE
        if not re.fullmatch(r"[\w.-]+", step) or not found.is_file():
            raise UserError(
                f"{latest} names the step {step[:40]!r}, but {SAT_FILE} is not there; fetch the "
                "checkpoint again."
            )
        return found
    found_files = [source / name for name in (SAT_FILE, *WAN_FILES) if (source / name).is_file()]
    if len(found_files) != 1:
        what = "more than one checkpoint" if found_files else "no checkpoint and no model folder"
        raise UserError(
            f"{source} holds {what}; name the file itself ({SAT_FILE}, {', '.join(WAN_FILES)})."
        )
    return found_files[0]


def read_checkpoint(source: Path) -> Checkpoint:
    """The tensors of a checkpoint file.

    Raises:
        UserError: missing, or as `checkpoints.read_content`; or it holds no tensors by name.
    """
    path = find_file(source)
    content = read_content(path, mapped=True)
    refused: dict[str, str] = {}
    state = _unwrap(content, refused)
    if not state:
        raise UserError(
            f"{path} holds no tensors by name: it is no state dict; take the file of weights."
        )
    return Checkpoint(path, state, refused)


def read_folder(folder: Path) -> Checkpoint:
    """The tensors of one network in diffusers' folder layout, from one file or from shards.

    Raises:
        UserError: a file is missing or damaged, or a shard lacks a tensor of the index.
    """
    index = folder / f"{WEIGHTS}.index.json"
    if not index.is_file():
        if not (folder / WEIGHTS).is_file():
            raise UserError(
                f"{folder} has no {WEIGHTS}; save the model with safetensors, or fetch it again."
            )
        return Checkpoint(folder, read_checkpoint(folder / WEIGHTS).state)
    content = read_json(index)
    where = content.get("weight_map") if isinstance(content, Mapping) else None
    if not isinstance(where, Mapping) or not all(
        isinstance(name, str) and Path(name).name == name for name in where.values()
    ):
        raise UserError(f"{index} is no index of shards; fetch the folder again.")
    state: dict[str, torch.Tensor] = {}
    for name in sorted(set(where.values())):
        state.update(read_checkpoint(folder / name).state)
    missing = set(where) - set(state)
    if missing:
        raise UserError(
            f"{folder} lacks {len(missing)} tensors of its index ({sorted(missing)[0]}, ...); "
            "fetch it again."
        )
    return Checkpoint(folder, state)


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, such as a config.json.

    Raises:
        UserError: missing, or it holds something else.
    """
    settings = read_json(path)
    if not isinstance(settings, dict):
        raise UserError(f"{path} is no JSON object; fetch it again.")
    return settings


def names_in(folder: Path) -> set[str]:
    """Names of the tensors of one network in diffusers' or transformers' layout.

    Only the heads of the .safetensors files are read; the files are those of the index, where
    there is one.
    """
    names: set[str] = set()
    for file in (WEIGHTS, "model.safetensors"):
        index, files = folder / f"{file}.index.json", {file}
        if index.is_file():
            files = set(read_settings(index)["weight_map"].values())
        for path in (folder / name for name in files):
            if path.is_file():
                with safe_open(path, "pt") as opened:
                    names.update(opened.keys())
    return names


def _unwrap(content: Any, refused: dict[str, str], before: str = "") -> dict[str, torch.Tensor]:
    """The state dict in `content`; what stands around it goes to `refused`."""
    if not isinstance(content, Mapping):
        return {}
    inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        for key in content:
            if key != inner:
                refused[f"{before}{key}"] = "beside the network's weights: a record of the training"
        return _unwrap(content[inner], refused, f"{before}{inner}.")
    state = {}
    for key, value in content.items():
        if isinstance(value, torch.Tensor) and isinstance(key, str):
            state[key] = value.detach()
        else:
            refused[f"{before}{key}"] = "no tensor"
    return state
