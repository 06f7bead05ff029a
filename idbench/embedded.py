"""The embedded weights: found by name, checked by sha256, written with their origin.

`weights/manifest.json` names them. An entry with a `parent` is stored as the difference to that
entry's weights, see `deltas`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import Field

import idbench.weights
from idbench.errors import UserError
from idbench.files import atomic_path, read_json, sha256_file, sha256_once, write_json
from idbench.names import nearest
from idbench.stored import Part, validate

if TYPE_CHECKING:
    import torch

MANIFEST_VERSION = 1
PLAIN = r"^\w[\w.-]*$"
"""A name that stays in the folder of weights."""


class Parent(Part):
    """The entry that weights are stored as a difference to."""

    name: str
    sha256: str


class Entry(Part):
    """What the manifest says about one file of weights."""

    file: str = Field(pattern=PLAIN)
    sha256: str
    recipe: str
    seed: int
    steps: int
    data_version: str
    licence: str
    parameters: int
    config: dict[str, Any]
    measured: dict[str, Any]
    parent: Parent | None = None
    reference_fill: float = 1.0
    """Share of the canvas that a prepared face fills, as a transformer was trained."""


class Manifest(Part):
    """`manifest.json`."""

    version: int
    files: dict[str, Entry]


class WeightError(UserError):
    """Weights that are missing, damaged or swapped."""


def weights_folder() -> Path:
    """The folder of the embedded weights: `$IDBENCH_WEIGHTS`, else the installed package."""
    override = os.environ.get("IDBENCH_WEIGHTS")
    if override:
        return Path(override)
    return Path(idbench.weights.__file__).parent


def entries() -> dict[str, dict[str, Any]]:
    """All entries of the manifest by name; empty when there is no manifest yet."""
    path = weights_folder() / "manifest.json"
    try:
        state = path.stat()
    except FileNotFoundError:
        return {}
    return _read_manifest(path, (state.st_mtime_ns, state.st_ino))


@lru_cache(maxsize=8)
def _read_manifest(path: Path, state: tuple[int, int]) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    manifest = validate(Manifest, content, path, "reinstall idbench or restore it")
    if manifest.version != MANIFEST_VERSION:
        raise UserError(
            f"{path} has version {manifest.version}, this idbench reads {MANIFEST_VERSION}; "
            "install the idbench that wrote it."
        )
    return content["files"]


def entry(name: str) -> dict[str, Any]:
    """The manifest's entry of `name`: file, sha256, recipe, config, measured values, ...
    Raises WeightError: no such entry."""
    known = entries()
    if name not in known:
        match = nearest(name, known)
        hint = f"did you mean {match!r}?" if match else "train it with its recipe"
        raise WeightError(
            f"There are no embedded weights named {name!r}: {hint} (`idbench list weights`)."
        )
    return known[name]


def hashes(*names: str) -> dict[str, str]:
    """The manifest's sha256 of the embedded weights of these names, by file name.
    Raises WeightError: no such entry."""
    return {entry(name)["file"]: entry(name)["sha256"] for name in names}


def weight_path(name: str) -> Path:
    """The file of the embedded weights `name`, its sha256 checked once a process.
    Raises WeightError: no such entry, the file is missing, or its sha256 is not the manifest's."""
    found = entry(name)
    path = weights_folder() / found["file"]
    if not path.is_file():
        raise WeightError(
            f"The weight file {path} is missing; reinstall idbench or run `idbench train "
            f"{found['recipe']}`."
        )
    actual = sha256_once(path)
    if actual != found["sha256"]:
        raise WeightError(
            f"The weight file {path} is damaged or swapped: its sha256 is {actual}, the manifest "
            f"says {found['sha256']}; reinstall idbench or restore the file."
        )
    return path


def load_state(name: str) -> dict[str, torch.Tensor]:
    """The tensors of the embedded weights `name` on the CPU, floating ones as float32.
    Raises WeightError: as `weight_path`, or they belong to a parent of other weights."""
    import torch
    from safetensors.torch import load_file

    state = load_file(weight_path(name))
    parent = entry(name).get("parent")
    if parent is None:
        return {k: v.to(torch.float32) if v.is_floating_point() else v for k, v in state.items()}
    if entry(parent["name"])["sha256"] != parent["sha256"]:
        raise WeightError(
            f"The weights {name} are a difference to other weights {parent['name']} than those "
            f"here; run `idbench train {entry(name)['recipe']}` again, or restore the file."
        )
    from idbench import deltas

    return deltas.unpack(state, load_state(parent["name"]))


def save_entry(
    name: str, weights: Mapping[str, torch.Tensor] | bytes, *, recipe: str, seed: int, steps: int,
    config: Mapping[str, Any], measured: Mapping[str, Any], half: bool = True,
    data_version: str | None = None, file: str | None = None, parent: str | None = None,
    reference_fill: float = 1.0,
) -> None:
    """Write embedded weights and their entry in the manifest, each atomically.

    Args:
        name: letters, digits, and `_`, `-` or `.` within.
        weights: a state dict (written as NAME.safetensors) or the bytes of a file.
        half: store floating tensors as float16.
        data_version: of the training data; default: that of the current avatars.
        file: the file's name; default: NAME.safetensors, or NAME for bytes.
        parent: store a state dict as the difference to this entry's, see `deltas`.
        reference_fill: of a transformer, see `Entry`.
    """
    for plain in (name, file or name):
        if not re.fullmatch(PLAIN, plain, re.ASCII):
            raise UserError(
                f"{plain!r} is not a name for embedded weights; use letters, digits and `_`."
            )
    origin = None
    if parent is not None:
        from idbench import deltas

        assert not isinstance(weights, bytes)
        numbers = sum(value.numel() for value in weights.values())
        weights = deltas.pack(weights, load_state(parent))
        origin = {"name": parent, "sha256": entry(parent)["sha256"]}
    if data_version is None:
        from idbench.prompts.avatars.march import DATA_VERSION

        data_version = f"avatars-{DATA_VERSION}"
    folder = weights_folder()
    raw = isinstance(weights, bytes)
    path = folder / (file or (name if raw else f"{name}.safetensors"))
    parameters = 0
    with atomic_path(path) as temporary:
        if isinstance(weights, bytes):
            temporary.write_bytes(weights)
        else:
            parameters = _write_state(temporary, weights, half)
    new: dict[str, Any] = {
        "file": path.name, "sha256": sha256_file(path), "recipe": recipe, "seed": seed,
        "steps": steps, "data_version": data_version, "licence": "Apache-2.0",
        "parameters": parameters, "config": dict(config), "measured": dict(measured),
    }
    if origin is not None:
        new.update(parent=origin, parameters=numbers)
    if reference_fill != 1:
        new.update(reference_fill=reference_fill)
    _write_entry(name, new)


def save_measured(name: str, measured: Mapping[str, Any]) -> None:
    """Replace what an entry says was measured; its weights stay as they are."""
    _write_entry(name, {**entry(name), "measured": dict(measured)})


def _write_entry(name: str, new: Mapping[str, Any]) -> None:
    folder = weights_folder()
    # Two trainings may end at the same time.
    with FileLock(folder / "manifest.lock"):
        files = {**entries(), name: new}
        manifest = {"version": MANIFEST_VERSION, "files": dict(sorted(files.items()))}
        write_json(folder / "manifest.json", manifest)


def _write_state(path: Path, state: Mapping[str, torch.Tensor], half: bool) -> int:
    import torch
    from safetensors.torch import save_file

    def prepared(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = tensor.to(torch.float16 if half else torch.float32)
        return tensor.contiguous().clone()

    ready = {key: prepared(value) for key, value in state.items()}
    save_file(ready, path)
    return sum(value.numel() for value in ready.values())
