"""What the pipelines of Concat-ID share: checks, noise of each sample, options that save memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler, DiffusionPipeline

from idbench.errors import UserError
from idbench.models.concat_id.conditioning import MAXIMUM_REFERENCES


def guide(output: torch.Tensor, guidance: float) -> torch.Tensor:
    """Classifier-free guidance on a batch of (unconditional, conditional) halves, (2B, ...)."""
    without, with_text = output.chunk(2)
    return without + guidance * (with_text - without)


def check_size(unit: int, ratio: int, frames: int, height: int, width: int) -> None:
    """Raise UserError unless height and width are multiples of `unit`, and frames `ratio` k + 1."""
    if height < 1 or width < 1 or height % unit or width % unit:
        near = [max(1, round(size / unit)) * unit for size in (height, width)]
        raise UserError(
            f"Height and width must be multiples of {unit}, not {height}x{width}; take "
            f"{near[0]}x{near[1]}."
        )
    if frames < 1 or (frames - 1) % ratio:
        raise UserError(
            f"The autoencoder makes {ratio}k + 1 frames, not {frames}; take "
            f"{max(0, (frames - 1) // ratio) * ratio + 1}."
        )


def check_steps(steps: int, scheduler: Any) -> None:
    """Raise UserError unless `scheduler` can sample in so many steps."""
    if steps < 1:
        raise UserError(f"At least 1 step is needed, not {steps}; raise steps.")
    most = scheduler.config.num_train_timesteps
    # Flow matching knows every time between its steps, CogVideoX's schedule only these.
    if isinstance(scheduler, CogVideoXDPMScheduler) and steps > most:
        raise UserError(f"At most {most} steps can be taken, not {steps}; lower steps.")


class VideoPipeline(DiffusionPipeline):
    """Base of the pipelines. `enable_model_cpu_offload` and its like are diffusers' own."""

    model_cpu_offload_seq = "text_encoder->transformer->vae"

    @property
    def compression(self) -> int:
        """Pixels of the video per latent, in height and width."""
        raise NotImplementedError

    @property
    def temporal_compression(self) -> int:
        """Frames of the video per latent frame, after the first."""
        raise NotImplementedError

    @property
    def patch(self) -> int:
        """Latents per token, in height and width."""
        raise NotImplementedError

    def encode_references(self, images: torch.Tensor) -> torch.Tensor:
        """Latents of images (B, M, 3, H, W), each encoded alone, in the form's own order."""
        raise NotImplementedError

    def held(self, references: torch.Tensor | None, zeroed: bool) -> torch.Tensor | None:
        """Latents of the references, zeros in their place if `zeroed`; None without references."""
        if references is None or not references.shape[1]:
            return None
        latents = self.encode_references(references)
        return torch.zeros_like(latents) if zeroed else latents

    def enable_vae_tiling(self) -> None:
        """Decode large pictures in tiles: less memory, and at seams not the very same pixels."""
        self.vae.enable_tiling()

    def disable_vae_tiling(self) -> None:
        """Decode whole pictures."""
        self.vae.disable_tiling()

    def enable_vae_slicing(self) -> None:
        """Decode the videos of a batch one by one: less memory, the same pixels."""
        self.vae.enable_slicing()

    def disable_vae_slicing(self) -> None:
        """Decode a whole batch together."""
        self.vae.disable_slicing()

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video of `frames`."""
        return (frames - 1) // self.temporal_compression + 1

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Channels, height and width of one latent frame of a video of this size."""
        channels = self.transformer.config.in_channels
        return channels, height // self.compression, width // self.compression

    @staticmethod
    def noise(
        seeds: Sequence[int], shape: tuple[int, ...], device: torch.device
    ) -> tuple[torch.Tensor, list[torch.Generator]]:
        """Noise (len(seeds), *shape), each sample's from its own generator, and the generators.

        The generators are on the CPU, so a seed means the same noise on every device.
        """
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        drawn = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return drawn.to(device), generators

    def check(
        self, prompts: Sequence[str], references: torch.Tensor | None, seeds: Sequence[int],
        steps: int, frames: int, height: int, width: int,
    ) -> None:
        """Raise UserError for what the networks cannot make."""
        check_size(
            self.compression * self.patch, self.temporal_compression, frames, height, width
        )
        check_steps(steps, self.scheduler)
        if not prompts or len(seeds) != len(prompts):
            raise UserError(
                f"1 or more prompts need as many seeds, not {len(prompts)} prompts and "
                f"{len(seeds)} seeds."
            )
        if references is None:
            return
        if references.ndim != 5 or references.shape[1] and (
            len(references) != len(prompts) or references.shape[2] != 3
        ):
            raise UserError(
                f"References of shape {tuple(references.shape)} beside {len(prompts)} prompts; "
                "give (prompts, references of each, 3, height, width)."
            )
        if references.shape[1] > MAXIMUM_REFERENCES:
            raise UserError(
                f"Concat-ID takes at most {MAXIMUM_REFERENCES} references, not "
                f"{references.shape[1]}; leave some out."
            )
        if references.shape[1] and tuple(references.shape[3:]) != (height, width):
            raise UserError(
                f"References of {references.shape[3]}x{references.shape[4]} beside a video of "
                f"{height}x{width}; prepare them for the video's size."
            )
