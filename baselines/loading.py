"""What the adapters of released systems share: files, settings, devices, and making videos.

Nothing here imports torch before a network is loaded, so that listing models stays fast.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, ClassVar

import numpy as np

from idbench.errors import UserError, explained
from idbench.files import sha256_once
from idbench.names import check_variant, number, switch, whole
from idbench.output import note
from idbench.published_weights import find_folder
from idbench.released_files import from_catalogue, released_folder
from idbench.types import Abilities, Reference, Sample, Video

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

    A subclass gives `name`, `abilities` and the class attributes below, and writes `_load`,
    `_prepare` and `_frames`.
    """

    name: str
    revision = "1"
    batch = 1
    abilities: ClassVar[Abilities]
    ENTRY: ClassVar[str]
    """The release's name in the catalogue of weights; `entry`: that of the variant."""
    FILES: ClassVar[tuple[str, ...]]
    """What of the folder is read: files and folders, all of which must be there; see `files`."""
    ELSEWHERE: ClassVar[Mapping[str, str]] = {}
    """File -> entry of the catalogue that has it, of files that the release lacks."""
    DEFAULTS: ClassVar[Mapping[str, float]]
    """steps, guidance, frames, height, width and fps of the authors."""
    VARIANTS: ClassVar[Collection[str]] = ()
    """What can stand after @."""
    SETTINGS: ClassVar[tuple[str, ...]] = (
        "steps", "guidance", "frames", "height", "width", "bfloat16", "tiling",
    )
    """Attributes that change what is generated."""

    def __init__(
        self, variant: str | None = None, *, weights: str | None = None,
        steps: int | None = None, guidance: float | None = None, frames: int | None = None,
        height: int | None = None, width: int | None = None, bfloat16: bool = True,
        device: str | None = None, offload: str = "none", tiling: bool = False,
    ) -> None:
        check_variant(self.name, variant, self.VARIANTS)
        self.variant, self.entry = variant, self.ENTRY
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
        self._prepared: dict[str, tuple[Any, str | None]] = {}

    @property
    def maximum_references(self) -> int:
        return self.abilities.people[1] + len(self.abilities.others)

    @property
    def defaults(self) -> Mapping[str, float]:
        """`DEFAULTS`, as they are for the variant."""
        return self.DEFAULTS

    @property
    def files(self) -> tuple[str, ...]:
        """What of the folder is read with these settings."""
        return self.FILES

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of every file that decides what is computed, by its place in the folder."""
        return hashes_of({file: self.path(file) for file in self.files})

    @cached_property
    def folder(self) -> Path:
        """The released folder; every file that is read is there, or in its own entry. Raises
        UserError: it is missing or lacks a file; names it."""
        own = [file for file in self.files if file not in self.ELSEWHERE]
        found = released_folder(self.source, self.entry, own)
        for file in self.files:
            self._found(found, file)
        return found

    def path(self, file: str) -> Path:
        """Where a file or folder of `files` lies. Raises UserError: as `folder`."""
        return self._found(self.folder, file)

    def _found(self, folder: Path, file: str) -> Path:
        path = folder / file
        if file in self.ELSEWHERE and not path.exists():
            return from_catalogue(self.ELSEWHERE[file])
        return check_there(path, self.entry)

    # Networks

    def load(self) -> None:
        """Load the networks once. Raises UserError: missing packages, incomplete or damaged files,
        an unusable device, or a size that the networks cannot make."""
        _ = self.networks

    @property
    def dtype(self) -> Any:
        """torch's type of the networks."""
        import torch

        return torch.bfloat16 if self.bfloat16 else torch.float32

    @cached_property
    def networks(self) -> Any:
        """The diffusers pipeline, on its device; without its progress bar, since the harness shows
        one of samples."""
        from idbench.models.concat_id.model_folder import check_place, on_device

        place = check_place(self.device, self.offload)
        pipeline = self._load(place)
        pipeline.set_progress_bar_config(disable=True)
        if self.tiling:
            pipeline.vae.enable_tiling()
        return on_device(pipeline, place, self.offload)

    @abstractmethod
    def _load(self, place: str) -> Any:
        """The pipeline, and whatever prepares references on the device `place`."""

    def _read(self, kind: Any, folder: Path, **options: Any) -> Any:
        """A pipeline or network of diffusers from its folder on this machine."""
        options.setdefault("torch_dtype", self.dtype)
        return kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)

    def _read_pipeline(
        self, kind: Any, folder: Path,
        checked: Sequence[str] = ("transformer", "vae", "text_encoder"), **options: Any,
    ) -> Any:
        """A pipeline of `folder`, every tensor of the `checked` parts found in it. Raises
        UserError: damaged files, or missing or unknown tensors."""
        from idbench.models.concat_id.model_folder import check_tensors

        with explained(f"The model folder {folder} cannot be loaded", "download it again"):
            pipeline = self._read(kind, folder, **options)
            check_tensors(pipeline, folder, checked)
        return pipeline

    # Videos

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video a sample, in order, each from its own seed."""
        self.load()
        for sample in samples:
            frames = self._frames(sample)
            notes = tuple(
                f"reference {reference.name}: {problem}" for reference in sample.references
                if (problem := self._prepared[str(reference.image)][1])
            )
            yield Video(frames, self.fps, notes)

    @abstractmethod
    def _frames(self, sample: Sample) -> np.ndarray:
        """The video of one sample, uint8 RGB (frames, height, width, 3)."""

    def prepared(self, reference: Reference) -> Any:
        """What the networks read of a reference, computed once."""
        key = str(reference.image)
        if key not in self._prepared:
            self._prepared[key] = self._prepare(reference)
        return self._prepared[key][0]

    @abstractmethod
    def _prepare(self, reference: Reference) -> tuple[Any, str | None]:
        """What the networks read of a reference, and what could not be done with it, or None."""

    def _sampled(self, seed: int, **inputs: Any) -> np.ndarray:
        """The frames that diffusers' pipeline makes of its `inputs`, rounded as it does for its
        pictures."""
        import torch

        with torch.inference_mode():
            frames = self.networks(
                **inputs, num_inference_steps=self.steps, guidance_scale=self.guidance,
                num_frames=self.frames, height=self.height, width=self.width,
                # On the CPU, so that a seed means the same noise on every device.
                generator=torch.Generator().manual_seed(seed), output_type="np",
            ).frames[0]
        return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)


# Files


def check_there(path: Path, entry: str) -> Path:
    """`path`, if it is a file or folder that is not empty. Raises UserError: missing or empty;
    names the file and the entry of the catalogue that has it."""
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
        self.abilities, self.ENTRY = released.abilities, released.ENTRY
        self.DEFAULTS, self.VARIANTS = released.DEFAULTS, released.VARIANTS

    @property
    def parts(self) -> tuple[Any, ...]:
        """The classes whose settings it takes."""
        return self.released, resolve_name(self.embedded)

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
