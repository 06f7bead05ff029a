"""Phantom-Wan: references as clean latent frames at the end of time, and three-way guidance.

The transformer is Wan2.1's text-to-video network with other weights, on diffusers' class; the
released files keep Wan's own names. Source: arXiv 2502.11079 and github.com/Phantom-video/Phantom.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from idbench.baselines.loading import load_pipeline, usable_place
from idbench.baselines.wan_model import OnBase
from idbench.errors import UserError
from idbench.released_files import released_folder
from idbench.types import Abilities, Sample, Video
from idbench.values import number

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
    DEFAULTS: ClassVar[Mapping[str, float]] = {
        "steps": 50, "guidance": 5.0, "frames": 81, "height": 480, "width": 832, "fps": 16.0,
    }
    BASE_FILES = ("model_index.json", "scheduler", "text_encoder", "tokenizer", "vae")

    def __init__(
        self, variant: str | None = None, *, text_guidance: float = 7.5, **others: Any
    ) -> None:
        super().__init__(variant, **others)
        self.start = RELEASES[variant][0]
        self.text_guidance = number("text_guidance", text_guidance)

    @property
    def defaults(self) -> Mapping[str, float]:
        _, frames, fps, _ = RELEASES[self.variant]
        return {**self.DEFAULTS, "frames": frames, "fps": fps}

    @property
    def entry(self) -> str:
        return f"phantom-{(self.variant or '1.3B').lower()}"

    @property
    def base_entry(self) -> str:
        return RELEASES[self.variant][3]

    @property
    def files(self) -> tuple[str, ...]:
        return checkpoint_files(self.folder, self.start)

    @cached_property
    def folder(self) -> Path:
        found = released_folder(self.source, self.entry)
        if not checkpoint_files(found, self.start):
            raise UserError(
                f"{found} has no {self.start}*.pth; `idbench weights get {self.entry}` downloads "
                "it."
            )
        return found

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "text_guidance": self.text_guidance}

    def _load(self) -> Any:
        import torch
        from diffusers import WanPipeline

        from idbench.baselines.wan_parts import check_video, unipc

        place = usable_place(self.device, self.offload)
        transformer = self._transformer()
        pipeline = load_pipeline(
            WanPipeline, self.base, place, bfloat16=self.bfloat16, offload=self.offload,
            tiling=self.tiling, transformer=transformer, scheduler=unipc(self.shift),
            torch_dtype={"default": self.dtype, "vae": torch.float32},
            checked=("vae", "text_encoder"),
        )
        if pipeline.text_encoder.config.d_model != transformer.config.text_dim:
            raise UserError(
                f"The text encoder of {self.base} does not fit {self.folder}; use "
                f"{self.base_entry}."
            )
        check_video(
            pipeline.vae, transformer.config.patch_size[1], self.frames, self.height, self.width
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

    def _video(self, sample: Sample) -> Video:
        import torch

        from idbench.baselines.wan_parts import decode, encode_pictures, encode_text, on_white
        from idbench.models.concat_id.families import Wan

        pipeline = self.networks
        pictures = [on_white(self.picture(r), self.height, self.width) for r in sample.references]
        with torch.inference_mode():
            text = encode_text(pipeline, [sample.prompt, self.negative_prompt], Wan.TEXT_TOKENS)
            references = encode_pictures(pipeline, pictures) if pictures else None
            latents = self._sample(pipeline, text, references, sample.seed)
            frames = decode(pipeline, latents)
        pipeline.maybe_free_model_hooks()
        return Video(frames, self.fps, self.notes_of(sample))

    def _sample(self, pipeline: Any, text: Any, references: Any, seed: int) -> Any:
        """Latents (1, C, N, h, w) by three-way guidance; without references, by the usual one."""
        import torch

        from idbench.models.concat_id.families import Wan

        transformer, scheduler = pipeline.transformer, pipeline.scheduler
        ratio, pixels = Wan.compression(pipeline.vae)
        count = (self.frames - 1) // ratio + 1
        shape = (count, transformer.config.in_channels, self.height // pixels, self.width // pixels)
        latents = Wan.noise([seed], shape, text.device)[0].transpose(1, 2)
        dtype = transformer.dtype
        both, other = text.to(dtype).unsqueeze(1).unbind()

        def velocity(prompt: Any, shown: Any, time: Any) -> Any:
            """At the video's frames, beside clean references."""
            sequence = latents if shown is None else torch.cat([latents, shown], dim=2)
            found = transformer(
                sequence.to(dtype), time.expand(1), prompt, return_dict=False
            )[0].float()
            return found[:, :, :count]

        scheduler.set_timesteps(self.steps, device=text.device)
        for time in scheduler.timesteps:
            told, shown = velocity(both, references, time), velocity(other, references, time)
            neg = shown
            if references is not None:
                neg = velocity(other, torch.zeros_like(references), time)
            found = (neg + self.guidance * (shown - neg) + self.text_guidance * (told - shown))
            latents = scheduler.step(found, time, latents, return_dict=False)[0]
        return latents


def checkpoint_files(folder: Path, start: str) -> tuple[str, ...]:
    """The files of a checkpoint: one `.pth`, or the shards of a safetensors file."""
    return tuple(sorted(
        path.name for path in folder.glob(f"{start}*")
        if path.suffix in (".pth", ".pt", ".safetensors")
    ))
