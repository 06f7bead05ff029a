"""The embedded weights: found by name, checked by sha256, written with their origin.

`weights/manifest.json` names them. An entry with a `parent` is stored as the difference to that
entry's weights, see `deltas`. Files of tensors are compressed without loss, see `weight_files`;
uncompressed ones are read as well.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from filelock import FileLock
from pydantic import Field

import idbench.weights
from idbench import weight_files
from idbench.errors import FatalError, UserError
from idbench.files import read_json, write_bytes, write_json
from idbench.names import suggestion
from idbench.stored import Part, validate

if TYPE_CHECKING:
    import torch

    Network = TypeVar("Network", bound=torch.nn.Module)

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
    """Of the uncompressed file, so that it stays the same however the file is stored."""
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


class WeightError(FatalError):
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
        hint = suggestion(name, known, "train it with its recipe")
        raise WeightError(
            f"There are no embedded weights named {name!r}: {hint} (`idbench list weights`)."
        )
    return known[name]


def hashes(*names: str) -> dict[str, str]:
    """The manifest's sha256 of the embedded weights of these names, by file name.
    Raises WeightError: no such entry."""
    return {entry(name)["file"]: entry(name)["sha256"] for name in names}


def stored_path(name: str) -> Path:
    """The file of the embedded weights `name`, which may be missing: FILE.z, or an uncompressed
    FILE if there is one. Raises WeightError: no such entry."""
    plain = weights_folder() / entry(name)["file"]
    compressed = _compressed(plain)
    return compressed if compressed.is_file() and not plain.is_file() else plain


def _compressed(plain: Path) -> Path:
    return plain.with_name(plain.name + weight_files.SUFFIX)


def weight_path(name: str) -> Path:
    """`stored_path`, with the sha256 of its content checked once a process.
    Raises WeightError: no such entry, the file is missing, or its sha256 is not the manifest's."""
    path = stored_path(name)
    with _explained(name, path):
        _check(name, weight_files.sha256_once(path))
    return path


def _content(name: str) -> bytes:
    """The uncompressed file of the weights `name`. Raises WeightError: as `weight_path`."""
    path = stored_path(name)
    with _explained(name, path):
        content, sha256 = weight_files.read_checked(path)
        _check(name, sha256)
    return content


@contextmanager
def _explained(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise WeightError(
            f"The weight file {path} is missing; reinstall idbench or run `idbench train "
            f"{entry(name)['recipe']}`."
        ) from error
    except weight_files.DamagedFile as error:
        raise WeightError(
            f"The weight file {path} is damaged or swapped: {error}, the manifest's sha256 is "
            f"{entry(name)['sha256']}; reinstall idbench or restore the file."
        ) from error


def _check(name: str, actual: str) -> None:
    if actual != entry(name)["sha256"]:
        raise weight_files.DamagedFile(f"the sha256 of its content is {actual}")


def load_state(name: str) -> dict[str, torch.Tensor]:
    """The tensors of the embedded weights `name` on the CPU, floating ones as float32.
    Raises WeightError: as `weight_path`, or they belong to a parent of other weights."""
    import torch
    from safetensors.torch import load

    state = load(_content(name))
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


def built(name: str, build: Callable[[dict[str, Any]], Network]) -> Network:
    """The network that `build` makes of the entry's config, with its weights.
    Raises WeightError: as `load_state`."""
    network = build(entry(name)["config"])
    network.load_state_dict(load_state(name))
    return network


def save_entry(
    name: str, weights: Mapping[str, torch.Tensor] | bytes, *, recipe: str, seed: int, steps: int,
    config: Mapping[str, Any], measured: Mapping[str, Any], half: bool = True,
    bits: int = 16, data_version: str | None = None, file: str | None = None,
    parent: str | None = None, reference_fill: float = 1.0,
) -> None:
    """Write embedded weights and their entry in the manifest, each atomically.

    Args:
        name: letters, digits, and `_`, `-` or `.` within.
        weights: a state dict (NAME.safetensors, written compressed) or the bytes of a file.
        half: store floating tensors as float16.
        bits: of these, how many are kept, see `deltas.rounded`; differences have their own form.
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
    if data_version is None:
        from idbench.prompts.avatars.march import DATA_VERSION

        data_version = f"avatars-{DATA_VERSION}"
    path = weights_folder() / (file or name)
    parameters = 0
    if isinstance(weights, bytes):
        data = weights
        write_bytes(path, data)
    else:
        path = path if file else path.with_name(f"{name}.safetensors")
        parameters = sum(value.numel() for value in weights.values())
        data = _serialized(weights, half, bits, parent)
        write_bytes(_compressed(path), weight_files.compress(data))
        path.unlink(missing_ok=True)
    new: dict[str, Any] = {
        "file": path.name, "sha256": hashlib.sha256(data).hexdigest(), "recipe": recipe,
        "seed": seed, "steps": steps, "data_version": data_version, "licence": "Apache-2.0",
        "parameters": parameters, "config": dict(config), "measured": dict(measured),
    }
    if parent is not None:
        new.update(parent={"name": parent, "sha256": entry(parent)["sha256"]})
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


def _serialized(
    state: Mapping[str, torch.Tensor], half: bool, bits: int, parent: str | None
) -> bytes:
    """The safetensors file of a state dict, or of its difference to that of `parent`."""
    import torch
    from safetensors.torch import save

    from idbench import deltas

    if parent is not None:
        state, bits = deltas.pack(state, load_state(parent)), 16

    def prepared(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.detach().cpu()
        if tensor.is_floating_point():
            tensor = deltas.rounded(tensor, bits) if half else tensor.to(torch.float32)
        return tensor.contiguous().clone()

    return save({key: prepared(value) for key, value in state.items()})
