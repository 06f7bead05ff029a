"""What a family of networks is: how to encode, decode, add noise, predict and sample with it.

Latents are (B, N, C, h, w) everywhere, scaled for the transformer, whatever order the networks
themselves use. Sampling, training, validation, caching and conversion all go through a family.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import torch
from diffusers import CogVideoXDPMScheduler

from idbench.errors import UserError
from idbench.models.concat_id.about import Defaults

Network = Callable[[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor], torch.Tensor]
"""From noisy latents, references, text and times to the velocity, as `Family.predict`."""


class Noised(NamedTuple):
    """Noisy latents (B, N, C, h, w), their times (B,) and the velocity to predict."""

    latents: torch.Tensor
    times: torch.Tensor
    target: torch.Tensor


@dataclass(frozen=True)
class Family(ABC):
    """One family of networks with its noise schedule.

    The networks are passed to each method: pipelines move and offload them, training wraps them.

    Attributes:
        scheduler: diffusers' scheduler; its settings are used for training and sampling, its
            state is never changed.
        text_tokens: tokens that a prompt is padded or cut to; by default the published networks'.
        mask_padding: whether padding is hidden from the text encoder and its embeddings zeroed.
    """

    scheduler: Any
    text_tokens: int
    mask_padding: bool

    name: ClassVar[str]
    TRANSFORMER: ClassVar[Any]
    """Class of the transformer with references; `AUTOENCODER`, `TEXT_ENCODER`: of the others."""
    AUTOENCODER: ClassVar[Any]
    TEXT_ENCODER: ClassVar[Any]
    TEXT_WIDTH: ClassVar[str]
    """Where the transformer's configuration has the width of the text embeddings."""
    COMPRESSION: ClassVar[tuple[int, int]] = (4, 8)
    """Frames, and pixels per side, that make one latent of the published autoencoders."""
    DEFAULTS: ClassVar[Defaults]
    """Settings of the release."""
    LAYOUT: ClassVar[str]
    """Layout of the released checkpoints, as `idbench convert --to` names it."""
    INDEX: ClassVar[Mapping[str, Any]]
    """model_index.json of a folder of this family."""

    # Text

    @torch.no_grad()
    def encode_text(
        self, tokenizer: Any, encoder: Any, prompts: Sequence[str],
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Embeddings (B, text_tokens, D) of prompts, in the encoder's precision; `device`: where
        the encoder will run (None: where it is)."""
        rows = tokenizer(
            [self.clean(prompt) for prompt in prompts], padding="max_length", truncation=True,
            max_length=self.text_tokens, return_tensors="pt",
        ).to(device or encoder.device)
        mask = rows.attention_mask if self.mask_padding else None
        hidden = encoder(input_ids=rows.input_ids, attention_mask=mask).last_hidden_state
        return hidden if mask is None else hidden * mask.unsqueeze(-1)

    def clean(self, prompt: str) -> str:
        """The prompt as the text encoder was trained to read it."""
        return prompt

    # Autoencoder

    @staticmethod
    @abstractmethod
    def encode(vae: Any, images: torch.Tensor) -> torch.Tensor:
        """Means, float32 (B, N, C, h, w), of images (B, 3, T, H, W) in [-1, 1]."""

    @staticmethod
    @abstractmethod
    def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        """Images, float32 (B, 3, T, H, W), about in [-1, 1], of latents (B, N, C, h, w)."""

    @staticmethod
    @abstractmethod
    def compression(vae: Any) -> tuple[int, int]:
        """Frames, after the first, and pixels per side that make one latent."""

    # Diffusion

    @abstractmethod
    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor
    ) -> Noised:
        """Clean latents (B, N, C, h, w) with standard normal noise, at the times that `uniform`
        (B,), in [0, 1), picks in the training schedule."""

    @staticmethod
    @abstractmethod
    def predict(
        transformer: Any, latents: torch.Tensor, references: torch.Tensor | None,
        text: torch.Tensor, times: torch.Tensor, clip_frames: int | None = None,
    ) -> torch.Tensor:
        """Velocity (B, N, C, h, w) at the video's positions.

        Args:
            latents: noisy (B, N, C, h, w).
            references: clean (B, M, C, h, w), left to right; None or M = 0: the base network.
            text: (B, L, D). times: (B,).
            clip_frames: temporal position of the first reference; None: N.
        """

    @staticmethod
    def loss(output: Any, target: torch.Tensor, batch: Any) -> torch.Tensor:
        """Loss of each row, (B,): the MSE of the velocity `output` (of `predict`) to `target` (of
        `add_noise`); `batch` is the `objective.Batch`."""
        return (output.float() - target).square().mean((1, 2, 3, 4))

    @abstractmethod
    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        """Set the times of `steps` sampling steps on a copy of the scheduler."""

    @abstractmethod
    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        """The latents after step `number`, and what the next step needs as `before`."""

    @staticmethod
    def noise(
        seeds: Sequence[int], shape: tuple[int, int, int, int], device: torch.device
    ) -> tuple[torch.Tensor, list[torch.Generator]]:
        """Noise (len(seeds), N, C, h, w) for `shape` (N, C, h, w), and each sample's generator, on
        the CPU, so that a seed means the same noise on every device."""
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        drawn = torch.stack([torch.randn(shape, generator=g) for g in generators])
        return drawn.to(device), generators

    def sample(
        self, network: Network, seeds: Sequence[int], shape: tuple[int, int, int, int],
        text: torch.Tensor, references: torch.Tensor | None, steps: int, guidance: float,
        negative: torch.Tensor | None = None,
        progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
        reference_guidance: float = 1.0,
    ) -> torch.Tensor:
        """The denoising loop: latents (B, N, C, h, w) for B seeds, each with its own generator, so
        that a sample does not depend on its batch.

        Guidance may have two scales, of the text and of the references, each the factor of what
        its condition adds: first the references to nothing, then the text to the references.
        Source: InstructPix2Pix (arXiv 2211.09800, section 3.2.1).

        Args:
            network: predicts the velocity, see `predict`.
            shape: (N, C, h, w).
            text: embeddings (B, L, D).
            references: latents (B, M, C, h, w), or None.
            guidance: scale of the text's classifier-free guidance; 1: none.
            negative: text embeddings of the branches without the text, (B, L, D); None: zeros.
            progress: wraps the times, for a progress bar.
            reference_guidance: scale of the references' guidance, against zeroed references. 1: as
                Concat-ID samples, with references in both branches. Equal to `guidance`: the
                unconditional branch sees neither text nor references.
        """
        latents, generators = self.noise(seeds, shape, text.device)
        scheduler = copy(self.scheduler)
        self.start(scheduler, steps, text.device)
        scales = (guidance, guidance if references is None else reference_guidance)
        branches = _branches(*scales)
        unconditional = torch.zeros_like(text) if negative is None else negative
        text = torch.cat([text if with_text else unconditional for with_text, _ in branches])
        if references is not None:
            zeroed = torch.zeros_like(references)
            references = torch.cat([references if seen else zeroed for _, seen in branches])
        before = None
        for number, time in enumerate(progress(scheduler.timesteps)):
            repeated = torch.cat([latents] * len(branches))
            output = network(repeated, references, text, time.expand(len(repeated))).float()
            velocity = guide(output.chunk(len(branches)), *scales)
            latents, before = self.step(scheduler, velocity, number, latents, before, generators)
        return latents


def _branches(guidance: float, reference_guidance: float) -> list[tuple[bool, bool]]:
    """The predictions that the scales need, in the order of `guide`: whether each reads the text,
    and whether it sees the references."""
    chosen = [(True, True)]
    if guidance != reference_guidance:
        chosen.insert(0, (False, True))
    if reference_guidance != 1.0:
        chosen.insert(0, (False, False))
    return chosen


def guide(
    outputs: Sequence[torch.Tensor], guidance: float, reference_guidance: float
) -> torch.Tensor:
    """The guided velocity, from the predictions of `_branches`. Two of them share one scale."""
    scales = [reference_guidance, guidance][3 - len(outputs) :]
    velocity = outputs[0]
    for (before, after), scale in zip(pairwise(outputs), scales, strict=True):
        velocity = velocity + scale * (after - before)
    return velocity


def check_size(unit: int, ratio: int, frames: int, height: int, width: int) -> None:
    """Raise UserError unless height and width are multiples of `unit`, and frames `ratio` k + 1."""
    if height < 1 or width < 1 or height % unit or width % unit:
        near = [max(1, round(size / unit)) * unit for size in (height, width)]
        raise UserError(
            f"Height and width must be multiples of {unit}, not {height}x{width}; try "
            f"{near[0]}x{near[1]}."
        )
    if frames < 1 or (frames - 1) % ratio:
        raise UserError(
            f"Frames must be {ratio}k + 1, not {frames}; try "
            f"{max(0, (frames - 1) // ratio) * ratio + 1}."
        )


def check_steps(steps: int, scheduler: Any) -> None:
    """Raise UserError unless `scheduler` can sample in this number of steps."""
    if steps < 1:
        raise UserError(f"steps must be at least 1, not {steps}.")
    most = scheduler.config.num_train_timesteps
    # Flow matching knows every time between its steps, CogVideoX's schedule only these.
    if isinstance(scheduler, CogVideoXDPMScheduler) and steps > most:
        raise UserError(f"At most {most} steps can be taken, not {steps}.")
