"""A model: zooms slowly into the first reference picture. Replace `_frames` by your network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from idbench.errors import UserError
from idbench.names import check_variant
from idbench.types import Abilities, Sample, Video


class MyModel:
    """Zooms slowly into the first reference picture.

    Registered as `my_model` in pyproject.toml.

    Args:
        variant: what stands after `@` in `--model my_model@variant`.
        frames, height: settings, as in `--set frames=8`.

    Raises:
        UserError: what the user can fix; its sentence is shown instead of a traceback.
    """

    name = "my_model"
    revision = "1"  # raise it when what is generated changes
    maximum_references = 3
    abilities = Abilities(people=(1, 3))

    def __init__(self, variant: str | None = None, frames: int = 16, height: int = 64) -> None:
        check_variant(self.name, variant, ())
        if frames < 1 or height < 1:
            raise UserError("frames and height must be at least 1.")
        self.variant = variant
        self.frames, self.height = frames, height

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated."""
        return {"frames": self.frames, "height": self.height}

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of each weight file, by file name; `idbench.files.sha256_file` computes one."""
        return {}

    def load(self) -> None:
        """Called once before the first video, and not when all videos are there."""

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        """One video for each sample, in order, from that sample alone."""
        for sample in samples:
            yield Video(self._frames(sample), fps=8.0)

    def _frames(self, sample: Sample) -> np.ndarray:
        """uint8 RGB (frames, height, width, 3)."""
        picture = np.asarray(Image.open(sample.references[0].image).convert("RGB"))
        side = min(picture.shape[:2])
        random = np.random.default_rng(sample.seed)
        final = random.uniform(0.7, 0.9)
        made = []
        for share in np.linspace(1.0, final, self.frames):
            half = int(side * share) // 2
            y, x = picture.shape[0] // 2, picture.shape[1] // 2
            cut = picture[y - half:y + half, x - half:x + half]
            made.append(cv2.resize(cut, (self.height, self.height), interpolation=cv2.INTER_AREA))
        return np.stack(made)
