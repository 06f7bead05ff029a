"""VACE on Wan2.1: references as latent frames before the video, in a control branch.

diffusers' `WanVACEPipeline` with the released folders (Wan-AI/Wan2.1-VACE-1.3B-diffusers and
-14B-diffusers). Source: arXiv 2503.07598 and github.com/ali-vilab/VACE.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from idbench.baselines.loading import load_pipeline, to_uint8, usable_place
from idbench.baselines.wan_model import WanModel
from idbench.errors import UserError
from idbench.names import unknown
from idbench.types import Abilities, Sample, Video
from idbench.values import number

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
    FILES = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "transformer", "vae")
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 50, "guidance": 5.0, "frames": 81, "height": 480, "width": 832, "fps": 16.0,
    }
    SHIFT = 16.0

    def __init__(
        self, variant: str | None = None, *, conditioning_scale: float = 1.0,
        order: str = "original", **others: Any,
    ) -> None:
        super().__init__(variant, **others)
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        self.order = order
        self.conditioning_scale = number("conditioning_scale", conditioning_scale)

    @property
    def entry(self) -> str:
        return f"vace-{(self.variant or '14B').lower()}"

    def settings(self) -> Mapping[str, Any]:
        return {
            **super().settings(), "conditioning_scale": self.conditioning_scale,
            "order": self.order,
        }

    def _load(self) -> Any:
        import torch
        from diffusers import WanVACEPipeline

        from idbench.baselines.wan_parts import check_video, unipc

        place = usable_place(self.device, self.offload)
        pipeline = load_pipeline(
            WanVACEPipeline, self.folder, place, bfloat16=self.bfloat16, offload=self.offload,
            tiling=self.tiling, scheduler=unipc(self.shift),
            torch_dtype={"default": self.dtype, "vae": torch.float32},
        )
        if pipeline.config.boundary_ratio is not None:
            raise UserError(
                f"{self.folder} is of Wan2.2, which has two transformers; use {self.entry}."
            )
        patch = pipeline.transformer.config.patch_size[1]
        check_video(pipeline.vae, patch, self.frames, self.height, self.width)
        return pipeline

    def _video(self, sample: Sample) -> Video:
        import torch
        from PIL import Image

        pictures = [Image.fromarray(self.picture(r)) for r in sample.references]
        if self.order == "original":
            pictures.reverse()  # the pipeline puts each before those that it has
        with torch.inference_mode():
            frames = self.networks(
                prompt=sample.prompt, negative_prompt=self.negative_prompt,
                reference_images=pictures or None, conditioning_scale=self.conditioning_scale,
                height=self.height, width=self.width, num_frames=self.frames,
                num_inference_steps=self.steps, guidance_scale=self.guidance,
                # On the CPU, so that a seed means the same noise on every device.
                generator=torch.Generator().manual_seed(sample.seed), output_type="np",
            ).frames[0]
        return Video(to_uint8(frames), self.fps, self.notes_of(sample))
