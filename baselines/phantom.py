"""Phantom-Wan: references as clean latent frames at the end of time, and three-way guidance.

The transformer is Wan2.1's text-to-video network with other weights, on diffusers' class; the
released files keep Wan's own names. Source: arXiv 2502.11079 and github.com/Phantom-video/Phantom.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from idbench.baselines.wan_model import OnBase
from idbench.errors import UserError
from idbench.names import number
from idbench.released_files import released_folder
from idbench.types import Abilities, Sample

RELEASES = {
    None: ("Phantom-Wan-1.3B", 81, 16.0, "wan2.1-t2v-1.3b"),
    "14B": ("Phantom_Wan_14B", 121, 24.0, "wan2.1-t2v-14b"),
}
"""Start of the released files' names, frames, frames a second, and the base in the catalogue."""


class Phantom(OnBase):
    """Phantom-Wan with its released networks: 1.3B, or `phantom@14B`.

    With `neg` of zeroed references and the negative prompt, `image` of the references and the
    negative prompt, `both` of the references and the prompt, the velocity is

        neg + guidance * (image - neg) + text_guidance * (both - image)

    Args:
        guidance: of the references.
        text_guidance: of the prompt.
        base: text encoder and autoencoder, as in `OnBase`.
        The others as in `WanModel`.
    """

    name = "phantom"
    abilities = Abilities(
        people=(0, 4), others=("garment", "background"), licence="Apache-2.0",
        why="the authors recommend up to 4 references",
    )
    maximum_references = 4
    ENTRY = "phantom-1.3b"
    VARIANTS = ("14B",)
    BASE = RELEASES[None][3]
    SETTINGS = (*OnBase.SETTINGS, "text_guidance")
    BASE_FILES = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "vae")

    def __init__(
        self, variant: str | None = None, *, text_guidance: float = 7.5, **others: Any
    ) -> None:
        super().__init__(variant, **others)
        self.entry = f"phantom-{(variant or '1.3B').lower()}"
        self.start, _, _, self.base_entry = RELEASES[variant]
        self.text_guidance = number("text_guidance", text_guidance)

    @property
    def defaults(self) -> Mapping[str, float]:
        _, frames, fps, _ = RELEASES[self.variant]
        return {**self.DEFAULTS, "frames": frames, "fps": fps}

    @property
    def files(self) -> tuple[str, ...]:
        """The files of the checkpoint: one `.pth`, or the shards of a safetensors file."""
        found = sorted(
            path.name for path in self.folder.glob(f"{self.start}*")
            if path.suffix in (".pth", ".pt", ".safetensors")
        )
        if not found:
            raise UserError(
                f"{self.folder} has no {self.start}*.pth; `idbench weights get {self.entry}` "
                "downloads it."
            )
        return tuple(found)

    @cached_property
    def folder(self) -> Path:
        return released_folder(self.source, self.entry)

    def _load(self, place: str) -> Any:
        from diffusers import WanPipeline

        from idbench.baselines.wan_parts import unipc

        transformer = self._transformer()
        pipeline = self._read_wan(
            WanPipeline, self.base, checked=("vae", "text_encoder"), transformer=transformer,
            scheduler=unipc(self.shift),
        )
        if pipeline.text_encoder.config.d_model != transformer.config.text_dim:
            raise UserError(
                f"The text encoder of {self.base} does not fit {self.folder}; use "
                f"{self.base_entry}."
            )
        return pipeline

    def _transformer(self) -> Any:
        """Wan's transformer with the released tensors."""
        import torch
        from diffusers import WanTransformer3DModel

        from idbench.checkpoints import check_fit, read_checkpoint
        from idbench.models.concat_id.convert_wan import config_of, from_released

        state: dict[str, Any] = {}
        for file in self.files:
            state |= read_checkpoint(self.folder / file, mapped=True).state
        what = str(self.folder / self.start)
        config = {k: v for k, v in config_of(state, what).items() if "reference" not in k}
        ours = from_released(state, what)
        with torch.device("meta"):
            network = WanTransformer3DModel(**config)
        check_fit(ours, network.state_dict(), what, "Wan2.1 text-to-video")
        kept = network._keep_in_fp32_modules or ()
        network.load_state_dict({
            name: tensor.to(
                torch.float32 if any(part in name.split(".") for part in kept) else self.dtype
            )
            for name, tensor in ours.items()
        }, assign=True)
        # Tables of positions are computed, not stored.
        network.rope = type(network.rope)(
            config["attention_head_dim"], config["patch_size"], network.config.rope_max_seq_len
        )
        return network.eval()

    def _frames(self, sample: Sample) -> np.ndarray:
        import torch

        from idbench.baselines.wan_parts import decode, encode_pictures, encode_text, on_white

        pipeline = self.networks
        pictures = [on_white(self.prepared(r), self.height, self.width) for r in sample.references]
        with torch.inference_mode():
            text = encode_text(pipeline, [sample.prompt, self.negative_prompt])
            references = encode_pictures(pipeline, pictures) if pictures else None
            latents = self._sample(pipeline, text, references, sample.seed)
            return decode(pipeline, latents.transpose(1, 2))

    def _sample(self, pipeline: Any, text: Any, references: Any, seed: int) -> Any:
        """Latents (1, C, N, h, w) by three-way guidance; without references, by the usual one."""
        import torch

        from idbench.models.concat_id.families import Wan

        transformer, scheduler = pipeline.transformer, pipeline.scheduler
        shape = self._noise_shape(pipeline)
        latents = Wan.noise([seed], shape, text.device)[0].transpose(1, 2)
        dtype = transformer.dtype
        both, other = text.to(dtype).unsqueeze(1).unbind()

        def velocity(prompt: Any, shown: Any, time: Any) -> Any:
            """At the video's frames, beside clean references."""
            sequence = latents if shown is None else torch.cat([latents, shown], dim=2)
            found = transformer(
                sequence.to(dtype), time.expand(1), prompt, return_dict=False
            )[0].float()
            return found[:, :, : shape[0]]

        scheduler.set_timesteps(self.steps, device=text.device)
        for time in scheduler.timesteps:
            told, shown = velocity(both, references, time), velocity(other, references, time)
            neg = shown
            if references is not None:
                neg = velocity(other, torch.zeros_like(references), time)
            found = (neg + self.guidance * (shown - neg) + self.text_guidance * (told - shown))
            latents = scheduler.step(found, time, latents, return_dict=False)[0]
        return latents
