"""What the adapters of the systems on Wan2.1 have in common."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from idbench.baselines.loading import ReleasedModel, check_there, hashes_of
from idbench.models.concat_id.reference_pictures import ReferencePictures
from idbench.names import number
from idbench.released_files import released_folder
from idbench.types import Reference

NEGATIVE = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走"
)
"""Wan2.1's own negative prompt. Source: github.com/Wan-Video/Wan2.1, its shared configuration."""


class WanModel(ReleasedModel):
    """A released system on Wan2.1.

    Args:
        shift: of the noise levels towards noise; None: the authors'.
        negative: text of the unconditional branch; None: Wan's own negative prompt.
        faces, parser: what finds a face and its head, to cut it out on white; see
            `concat_id.face_tools`. The embedded ones are made for avatars: for photographs name
            an insightface pack and a face parser.
        bfloat16: transformer and text encoder in bfloat16; the autoencoder is in float32.
        The others as in `ReleasedModel`.
    """

    FILES: ClassVar[tuple[str, ...]] = (
        "model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae",
    )
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 50, "guidance": 5.0, "frames": 81, "height": 480, "width": 832, "fps": 16.0,
    }
    SHIFT: ClassVar[float] = 5.0
    SETTINGS = (*ReleasedModel.SETTINGS, "shift", "negative", "faces", "parser")

    def __init__(
        self, variant: str | None = None, *, shift: float | None = None,
        negative: str | None = None, faces: str = "embedded", parser: str = "embedded",
        **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        self.shift = number("shift", self.SHIFT if shift is None else shift)
        self.negative = None if negative is None else str(negative)
        self.faces, self.parser = str(faces), str(parser)
        self.pictures = ReferencePictures(
            self.height, self.width, self.faces, self.parser, "upright", device=self.device or "cpu"
        )

    def settings(self) -> Mapping[str, Any]:
        return {
            **super().settings(), "faces": self.faces.partition(":")[0],
            "parser": self.parser if self.parser in ("embedded", "none") else "segformer",
        }

    def weight_hashes(self) -> Mapping[str, str]:
        return {**super().weight_hashes(), **self.pictures.hashes()}

    @property
    def negative_prompt(self) -> str:
        """What the unconditional branch reads."""
        return NEGATIVE if self.negative is None else self.negative

    def _read_wan(self, kind: Any, folder: Path, **options: Any) -> Any:
        """A pipeline of `folder` whose networks can make the videos; options of `_read_pipeline`.
        Raises UserError: as that, or a size that Wan cannot make: frames are 4k + 1, sides
        multiples of 16."""
        import torch

        from idbench.models.concat_id.families import Wan, check_size

        pipeline = self._read_pipeline(
            kind, folder, torch_dtype={"default": self.dtype, "vae": torch.float32}, **options
        )
        ratio, pixels = Wan.compression(pipeline.vae)
        unit = pixels * pipeline.transformer.config.patch_size[1]
        check_size(unit, ratio, self.frames, self.height, self.width)
        return pipeline

    def _prepare(self, reference: Reference) -> tuple[np.ndarray, str | None]:
        """The reference cut out on white, uint8 RGB of any size."""
        from idbench.baselines.wan_parts import cut_out

        return cut_out(reference, self.pictures.tools)


class OnBase(WanModel):
    """A system whose release is a part that goes with Wan2.1's text-to-video base; `base`: folder
    or hub id of the base in diffusers' layout (None: what `idbench weights get` fetched)."""

    BASE: ClassVar[str]
    """The base's name in the catalogue of weights; `base_entry`: that of the variant's."""
    BASE_FILES: ClassVar[tuple[str, ...]] = WanModel.FILES
    """What of the base is read."""

    def __init__(
        self, variant: str | None = None, *, base: str | None = None, **others: Any
    ) -> None:
        super().__init__(variant, **others)
        self.base_source = None if base is None else str(base)
        self.base_entry = self.BASE

    @cached_property
    def base(self) -> Path:
        """The folder of the base, complete. Raises UserError: it is missing or lacks a part; names
        it."""
        found = released_folder(self.base_source, self.base_entry, self.BASE_FILES)
        for file in self.BASE_FILES:
            check_there(found / file, self.base_entry)
        return found

    def weight_hashes(self) -> Mapping[str, str]:
        base = hashes_of({file: self.base / file for file in self.BASE_FILES})
        return {**super().weight_hashes(), **{f"base/{k}": v for k, v in base.items()}}

    def _noise_shape(self, pipeline: Any) -> tuple[int, int, int, int]:
        """(N, C, h, w) of the videos' latents."""
        from idbench.models.concat_id.families import Wan

        ratio, pixels = Wan.compression(pipeline.vae)
        channels = pipeline.transformer.config.in_channels
        frames = (self.frames - 1) // ratio + 1
        return frames, channels, self.height // pixels, self.width // pixels
