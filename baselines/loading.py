"""What the adapters of released systems share: their files, packages, devices and settings.

Nothing here imports torch before a network is loaded, so that listing models stays fast.
"""

from __future__ import annotations

import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from idbench.errors import UserError, explained
from idbench.files import sha256_once
from idbench.names import check_variant
from idbench.output import note
from idbench.published_weights import find_folder
from idbench.released_files import from_catalogue, released_folder
from idbench.types import Abilities, Sample, Video
from idbench.values import number, switch, whole

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".json", ".model",
                   ".txt")

RELEASED = "released"
"""The variant of a system's released networks, beside its embedded one."""


class ReleasedModel(ABC):
    """A released system as a model: its files, sampling settings, one video a sample.

    Args:
        variant: one of `VARIANTS`; None: the usual one.
        weights: a folder in the released layout, or the hub id of one; None: what `idbench weights
            get` brought to this machine.
        steps, guidance, frames, height, width: of sampling; None: the authors' (`DEFAULTS`).
        bfloat16: load the networks in bfloat16, else in float32.
        device: such as `cuda` or `cpu`; None: an accelerator if there is one.
        offload: `none`, or `model`: networks are on the device only while they work.
        tiling: decode in tiles: less memory, slightly different pixels at seams.

    A subclass gives `name`, `abilities` and the class attributes below, and writes `_load` and
    `_video`.
    """

    name: str
    revision = "1"
    batch = 1
    abilities: ClassVar[Abilities]
    ENTRY: ClassVar[str]
    """The release's name in the catalogue of weights; see `entry`."""
    FILES: ClassVar[tuple[str, ...]]
    """What of the folder is read: files and folders, all of which must be there; see `files`."""
    ELSEWHERE: ClassVar[Mapping[str, str]] = {}
    """File -> entry of the catalogue that has it, of files that the release lacks."""
    DEFAULTS: ClassVar[Mapping[str, float]]
    """steps, guidance, frames, height, width and fps of the authors."""
    VARIANTS: ClassVar[Collection[str]] = ()
    """What can stand after @."""

    def __init__(
        self, variant: str | None = None, *, weights: str | None = None,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        height: int | None = None, width: int | None = None, bfloat16: bool = True,
        device: str | None = None, offload: str = "none", tiling: bool = False,
    ) -> None:
        check_variant(self.name, variant, self.VARIANTS)
        self.variant = variant
        self.source = None if weights is None else str(weights)
        usual = self.defaults
        self.steps = whole("steps", usual["steps"] if steps is None else steps)
        self.guidance = number("guidance", usual["guidance"] if guidance is None else guidance)
        self.frames = whole("frames", usual["frames"] if frames is None else frames)
        self.height = whole("height", usual["height"] if height is None else height)
        self.width = whole("width", usual["width"] if width is None else width)
        self.fps = float(usual["fps"])
        if self.steps < 1 or not math.isfinite(self.guidance):
            raise UserError("steps must be at least 1, and guidance finite.")
        self.bfloat16, self.tiling = switch("bfloat16", bfloat16), switch("tiling", tiling)
        self.device, self.offload = device, str(offload)

    @property
    def maximum_references(self) -> int:
        return self.abilities.people[1] + len(self.abilities.others)

    @property
    def defaults(self) -> Mapping[str, float]:
        """`DEFAULTS`, as they are for the variant."""
        return self.DEFAULTS

    @property
    def entry(self) -> str:
        """The catalogue's name of the release that these settings use."""
        return self.ENTRY

    @property
    def files(self) -> tuple[str, ...]:
        """What of the folder is read with these settings."""
        return self.FILES

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated."""
        return {
            "steps": self.steps, "guidance": self.guidance, "frames": self.frames,
            "height": self.height, "width": self.width, "bfloat16": self.bfloat16,
            "tiling": self.tiling,
        }

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of every file that decides what is computed, by its place in the folder."""
        return hashes_of({file: self.path(file) for file in self.files})

    @cached_property
    def folder(self) -> Path:
        """The released folder; every file that is read is there, or in its own entry.

        Raises:
            UserError: it is missing or lacks a file; names it.
        """
        own = [file for file in self.files if file not in self.ELSEWHERE]
        found = released_folder(self.source, self.entry, own)
        for file in self.files:
            self._found(found, file)
        return found

    def path(self, file: str) -> Path:
        """Where a file or folder of `files` lies.

        Raises:
            UserError: as `folder`.
        """
        return self._found(self.folder, file)

    def _found(self, folder: Path, file: str) -> Path:
        path = folder / file
        if file in self.ELSEWHERE and not path.exists():
            return from_catalogue(self.ELSEWHERE[file])
        return check_there(path, self.entry)

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video a sample, in order, each from its own seed."""
        self.load()
        for sample in samples:
            yield self._video(sample)

    def load(self) -> None:
        """Load the networks once.

        Raises:
            UserError: missing packages, incomplete or damaged files, an unusable device, or a
                size that the networks cannot make.
        """
        _ = self.networks

    @property
    def dtype(self) -> Any:
        """torch's type of the networks."""
        import torch

        return torch.bfloat16 if self.bfloat16 else torch.float32

    @cached_property
    def networks(self) -> Any:
        """What `_load` returns."""
        return self._load()

    @abstractmethod
    def _load(self) -> Any:
        """The networks, on their device."""

    @abstractmethod
    def _video(self, sample: Sample) -> Video:
        """The video of one sample."""


# Files


def check_there(path: Path, entry: str) -> Path:
    """`path`, if it is a file or folder that is not empty.

    Raises:
        UserError: missing or empty; names the file and the entry of the catalogue that has it.
    """
    problem = "is missing" if not path.exists() else ""
    if path.is_file() and not path.stat().st_size:
        problem = "is empty"
    if problem:
        raise UserError(f"{path} {problem}; `idbench weights get {entry}` downloads it.")
    return path


def hashes_of(places: Mapping[str, Path]) -> dict[str, str]:
    """sha256 of these files, and of the weight files in these folders, by name."""
    found: dict[str, Path] = {}
    for name, path in places.items():
        found |= {name: path} if path.is_file() else {
            f"{name}/{inner.relative_to(path).as_posix()}": inner for inner in path.rglob("*")
            if inner.is_file() and inner.suffix in WEIGHT_SUFFIXES
        }
    return {name: sha256_once(path) for name, path in sorted(found.items())}


def need_package(module: str, extra: str, why: str) -> ModuleType:
    """The imported module of an optional package.

    Raises:
        UserError: not installed, or broken; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"{why} needs the package {module.partition('.')[0]} ({error}); run pip install "
            f"'idbench[{extra}]'."
        ) from error


# Networks


def load_pipeline(
    kind: Any, folder: Path, place: str, *, bfloat16: bool, offload: str, tiling: bool,
    checked: Sequence[str] = ("transformer", "vae", "text_encoder"), **options: Any,
) -> Any:
    """A diffusers pipeline of `folder`, every tensor checked to be there, on its device.

    Args:
        kind: the pipeline's class.
        place: of `usable_place`.
        checked: the parts that come from `folder`.
        options: further arguments of `from_pretrained`, such as replaced parts.

    Raises:
        UserError: damaged files, missing or unknown tensors, not enough memory.
    """
    import torch

    from idbench.models.concat_id.model_folder import check_tensors

    dtype = torch.bfloat16 if bfloat16 else torch.float32
    options.setdefault("torch_dtype", dtype)
    with explained(f"The model folder {folder} cannot be loaded", "download it again"):
        pipeline = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, **options
        )
        check_tensors(pipeline, folder, checked)
    return place_pipeline(pipeline, place, offload, tiling)


def place_pipeline(pipeline: Any, place: str, offload: str, tiling: bool) -> Any:
    """A loaded pipeline on its device, without its progress bar.

    Raises:
        UserError: not enough memory.
    """
    from idbench.models.concat_id.model_folder import on_device

    pipeline.set_progress_bar_config(disable=True)  # the harness shows one of samples
    if tiling:
        pipeline.vae.enable_tiling()
    return on_device(pipeline, place, offload)


def usable_place(device: str | None, offload: str) -> str:
    """The device to use, checked to work; by default an accelerator if there is one.

    Raises:
        UserError: unusable, or an unknown way to offload.
    """
    from idbench.models.concat_id.model_folder import check_place

    return check_place(device, offload)


# Pictures and frames


def to_uint8(frames: np.ndarray) -> np.ndarray:
    """Frames in 0..1 as uint8, rounded as diffusers does for its pictures."""
    return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)


def exact_size(
    model: ReleasedModel, frames: int, height: int, width: int, why: str
) -> None:
    """Raise UserError unless the model is asked for exactly this size, because of `why`."""
    asked = (model.frames, model.height, model.width)
    if asked != (frames, height, width):
        raise UserError(
            f"{model.name} makes {frames} frames of {height}x{width} only ({why}), not "
            f"{asked[0]} of {asked[1]}x{asked[2]}; leave out frames, height and width."
        )


class ByWeights:
    """A system as a model: its embedded network, or the released one.

    `NAME@released`, or the setting `weights`, chooses the released one. What a name means never
    depends on the files on the machine, so that results stay comparable.

    Args:
        released: class of the released system.
        embedded: "module:class" of the embedded one, imported when it is used.
    """

    def __init__(self, released: type[ReleasedModel], embedded: str) -> None:
        self.released, self.embedded = released, embedded
        self.abilities = released.abilities

    @property
    def ENTRY(self) -> str:
        """As of the released class."""
        return self.released.ENTRY

    @property
    def DEFAULTS(self) -> Mapping[str, float]:
        """The authors', for the released networks."""
        return self.released.DEFAULTS

    @property
    def VARIANTS(self) -> Collection[str]:
        """What can stand after @."""
        return self.released.VARIANTS

    @property
    def parts(self) -> tuple[Any, ...]:
        """The classes whose settings it takes."""
        module, _, name = self.embedded.partition(":")
        return self.released, getattr(importlib.import_module(module), name)

    def __call__(
        self, variant: str | None = None, *, weights: str | None = None, **settings: Any
    ) -> Any:
        name = self.released.name
        check_variant(name, variant, self.VARIANTS)
        if variant == RELEASED or weights is not None:
            return self.released(variant, weights=weights, **settings)
        if find_folder(self.ENTRY) is not None:
            note(f"{name} is the embedded network; {name}@{RELEASED} uses the released files.")
        return self.parts[1](variant, **settings)
