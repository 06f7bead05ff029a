"""CogVideoX, in any size: v-prediction, DPM-Solver++ (2M, SDE), T5.

Two other ways to sample: `ReleasedCogVideoX`, exactly as the released code does, and
`DetailCogVideoX`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from diffusers import AutoencoderKLCogVideoX, CogVideoXTransformer3DModel
from transformers import T5EncoderModel

from idbench.models.concat_id import autoencoder
from idbench.models.concat_id.conditioning import denoise
from idbench.models.concat_id.families.family import Defaults, Family, Noised


@dataclass(frozen=True)
class CogVideoX(Family):
    """See `Family`. The defaults are CogVideoX-5B's, which reads its padding too."""

    text_tokens: int = 226
    mask_padding: bool = False

    name: ClassVar[str] = "cogvideox"
    TRANSFORMER: ClassVar[Any] = CogVideoXTransformer3DModel
    AUTOENCODER: ClassVar[Any] = AutoencoderKLCogVideoX
    TEXT_ENCODER: ClassVar[Any] = T5EncoderModel
    TEXT_WIDTH: ClassVar[str] = "text_embed_dim"
    DEFAULTS: ClassVar[Defaults] = Defaults(50, 6.0, 49, 480, 720, 8.0)
    LAYOUT: ClassVar[str] = "sat"
    INDEX: ClassVar[Mapping[str, Any]] = {
        "_diffusers_version": diffusers.__version__,
        "_class_name": "ConcatIDPipeline", "scheduler": ["diffusers", "CogVideoXDPMScheduler"],
        "transformer": ["diffusers", "CogVideoXTransformer3DModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
        "text_encoder": ["transformers", "T5EncoderModel"],
        "vae": ["diffusers", "AutoencoderKLCogVideoX"], "text_tokens": 226, "mask_padding": False,
    }

    encode = staticmethod(autoencoder.encode)
    predict = staticmethod(denoise)

    @staticmethod
    def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
        ratio, count = CogVideoX.compression(vae)[0], latents.shape[1]
        if ratio == 1 or count % 2:
            return autoencoder.decode(vae, latents)
        # diffusers decodes latents in twos after a first three (or one), and drops the last of an
        # even number. So the last is repeated, and the frames made of the repetition cut off.
        # Convolutions look back in time only; only the last pair's normalisation sees it.
        video = autoencoder.decode(vae, torch.cat([latents, latents[:, -1:]], dim=1))
        return video[:, :, : (count - 1) * ratio + 1]

    @staticmethod
    def compression(vae: Any) -> tuple[int, int]:
        config = vae.config
        return int(config.temporal_compression_ratio), 2 ** (len(config.block_out_channels) - 1)

    def add_noise(
        self, latents: torch.Tensor, noise: torch.Tensor, uniform: torch.Tensor
    ) -> Noised:
        """sqrt(a) x0 + sqrt(1 - a) eps, with velocity sqrt(a) eps - sqrt(1 - a) x0, a alpha_bar at
        one of the schedule's times. The MSE of the velocity equals that of x0 weighted by 1 / (1 -
        a)."""
        alphas = self.scheduler.alphas_cumprod.float().to(latents.device)
        times = (uniform * len(alphas)).long().clamp(max=len(alphas) - 1)
        alpha = alphas[times].view(-1, 1, 1, 1, 1)
        signal, sigma = alpha.sqrt(), (1 - alpha).sqrt()
        return Noised(signal * latents + sigma * noise, times, signal * noise - sigma * latents)

    def denoised(
        self, noisy: torch.Tensor, velocity: torch.Tensor, times: torch.Tensor
    ) -> torch.Tensor:
        """The clean latents that a velocity means: sqrt(a) x_t - sqrt(1 - a) v, float32."""
        alpha = self.scheduler.alphas_cumprod.float().to(noisy.device)[times].view(-1, 1, 1, 1, 1)
        return alpha.sqrt() * noisy.float() - (1 - alpha).sqrt() * velocity.float()

    def decibels(self) -> torch.Tensor:
        """Signal-to-noise ratio of each training time in dB, falling; minus infinity at the end."""
        alphas = self.scheduler.alphas_cumprod.double()
        return 10 * torch.log10(alphas / (1 - alphas))

    def sampling_times(self, steps: int) -> np.ndarray:
        """Training times of the sampling steps, falling, spread evenly from the last to 0. Source:
        `generate_roughly_equally_spaced_steps` of github.com/THUDM/CogVideo (sat)."""
        count = self.scheduler.config.num_train_timesteps
        return np.linspace(count - 1, 0, steps, endpoint=False).astype(np.int64)

    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        """Set the times of `sampling_times`.

        diffusers' own step looks `1000 // steps` times back, which misses the next time wherever
        the number of steps does not divide 1000. So the scheduler is given the schedule at the
        chosen times alone, where the next time is one place back.
        """
        count = scheduler.config.num_train_timesteps
        times = self.sampling_times(steps)
        scheduler.timesteps = torch.from_numpy(times).to(device)
        scheduler.alphas_cumprod = scheduler.alphas_cumprod[times[::-1].copy()]
        scheduler.final_alpha_cumprod = torch.tensor(1.0)  # the last step ends at clean latents
        scheduler.num_inference_steps = count  # a stride of 1

    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        place = len(scheduler.timesteps) - 1 - number
        return scheduler.step(
            velocity, before, place, place + 1 if number else None, latents,
            generator=generators, return_dict=False,
        )


FINAL_EPSILON = 1e-6
"""Of the normalisation before the last layer in the release. diffusers gives it the blocks'
epsilon, 1e-5.

Source: `FinalLayerMixin` of github.com/ML-GSAI/Concat-ID, dit_video_concat.py."""
DETAIL_RANGE = (-12.0, 24.0)
"""dB of the second and of the last of the times of `DetailCogVideoX`."""


@dataclass(frozen=True)
class DetailCogVideoX(CogVideoX):
    """CogVideoX with sampling times that are spread evenly in dB (`sampling: detail`).

    Evenly spread times end early for small latents: the last of ten goes from 9 dB to clean in one
    step, and the detail of faces is decided above that. See `docs/training-measured.md`.
    """

    def sampling_times(self, steps: int) -> np.ndarray:
        """The last training time, then those nearest to levels spread over `DETAIL_RANGE`."""
        decibels = self.decibels().numpy()
        wanted = np.linspace(*DETAIL_RANGE, max(steps - 1, 1))[: steps - 1]
        rising = np.abs(decibels[None] - wanted[::-1, None]).argmin(1)
        # No time twice, however many steps there are.
        number = np.arange(len(rising))
        rising = np.maximum.accumulate(rising - number) + number
        rising = np.minimum(rising, len(decibels) - 1 - len(rising) + number)
        return np.concatenate([[len(decibels) - 1], rising[::-1]]).astype(np.int64)


@dataclass(frozen=True)
class ReleasedCogVideoX(CogVideoX):
    """CogVideoX with the noise levels of the released sampler (`sampling: released`).

    Zero terminal SNR is reached by rescaling the chosen times alone, not all 1000, so the levels
    between differ from those of training. The clean latents are estimated at the training level
    that is nearest to the sampler's.

    Source: `ZeroSNRDDPMDiscretization`, `DiscreteDenoiser` and `VPSDEDPMPP2MSampler` of
    github.com/ML-GSAI/Concat-ID (sgm/modules/diffusionmodules).
    """

    def start(self, scheduler: Any, steps: int, device: torch.device) -> None:
        super().start(scheduler, steps, device)
        plain = torch.cumprod(scheduler.alphas.double(), dim=0)
        shift = scheduler.config.snr_shift_scale
        plain = plain / (shift + (1 - shift) * plain)
        chosen = self.sampling_times(steps)[::-1].copy()
        scheduler.trained = rescale(plain.float())
        scheduler.levels = rescale(plain[chosen].float())
        scheduler.alphas_cumprod = scheduler.levels**2

    def step(
        self, scheduler: Any, velocity: torch.Tensor, number: int, latents: torch.Tensor,
        before: Any, generators: list[torch.Generator],
    ) -> tuple[torch.Tensor, Any]:
        level = scheduler.levels[len(scheduler.timesteps) - 1 - number]
        nearest = scheduler.trained[(scheduler.trained - level).abs().argmin()]
        clean = nearest * latents - (1 - nearest**2).sqrt() * velocity
        # The velocity that gives these clean latents at the sampler's own level.
        velocity = (level * latents - clean) / (1 - level**2).sqrt()
        return super().step(scheduler, velocity, number, latents, before, generators)


def rescale(alphas: torch.Tensor) -> torch.Tensor:
    """Square roots of alpha_bar (n,), rescaled so that the last is 0 and the first stays. Source:
    Lin et al., arXiv 2305.08891, Algorithm 1."""
    roots = alphas.sqrt()
    if len(roots) == 1:  # the released code divides by zero
        return torch.zeros_like(roots)
    # In the release's order: some levels lie halfway between two of training, up to rounding.
    return (roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))
