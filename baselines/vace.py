"""VACE on Wan2.1: references as latent frames before the video, in a control branch.

diffusers' `WanVACEPipeline` with the released folders (Wan-AI/Wan2.1-VACE-1.3B-diffusers and
-14B-diffusers). Source: arXiv 2503.07598 and github.com/ali-vilab/VACE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from idbench.baselines.wan_model import WanModel
from idbench.errors import UserError
from idbench.names import number, one_of
from idbench.types import Abilities, Sample

ORDERS = ("original", "diffusers")


class Vace(WanModel):
    """VACE with its released networks: 14B, or `vace@1.3B`; or those that `weights` names.

    Args:
        conditioning_scale: of the control branch.
        order: `original`: references stand in the order given, as in the authors' code;
            `diffusers`: as the pipeline takes a list, which stands reversed.
        The others as in `WanModel`. The authors' shift for VACE is 16; the scheduler in the
        diffusers folders says 3.
    """

    name = "vace"
    abilities = Abilities(
        people=(0, 3), others=("garment", "background"), licence="Apache-2.0",
        why="the authors' guide allows up to 3 references",
    )
    maximum_references = 3
    ENTRY = "vace-14b"
    VARIANTS = ("14B", "1.3B")
    SHIFT = 16.0
    SETTINGS = (*WanModel.SETTINGS, "conditioning_scale", "order")

    def __init__(
        self, variant: str | None = None, *, conditioning_scale: float = 1.0,
        order: str = "original", **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        self.entry = f"vace-{(variant or '14B').lower()}"
        self.order = one_of("order", order, ORDERS)
        self.conditioning_scale = number("conditioning_scale", conditioning_scale)

    def _load(self, place: str) -> Any:
        from diffusers import WanVACEPipeline

        from idbench.baselines.wan_parts import unipc

        pipeline = self._read_wan(WanVACEPipeline, self.folder, scheduler=unipc(self.shift))
        if pipeline.config.boundary_ratio is not None:
            raise UserError(
                f"{self.folder} is of Wan2.2, which has two transformers; use {self.entry}."
            )
        return pipeline

    def _frames(self, sample: Sample) -> np.ndarray:
        pictures = [Image.fromarray(self.prepared(r)) for r in sample.references]
        if self.order == "original":
            pictures.reverse()  # the pipeline puts each before those that it has
        return self._sampled(
            sample.seed, prompt=sample.prompt, negative_prompt=self.negative_prompt,
            reference_images=pictures or None, conditioning_scale=self.conditioning_scale,
        )
