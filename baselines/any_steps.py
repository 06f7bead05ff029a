"""CogVideoX's solver in diffusers' pipelines, for any number of steps."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from diffusers import CogVideoXDPMScheduler


class AnyStepsScheduler(CogVideoXDPMScheduler):
    """As diffusers', but each step goes to the next time, and the last one to clean latents.

    diffusers goes `1000 // steps` times back, which misses the next time wherever the number of
    steps does not divide 1000: 60 steps never take the last one and leave grain. For 61, 103, ...
    steps it has one time too many, -1.
    """

    def set_timesteps(
        self, num_inference_steps: int, device: str | torch.device | None = None
    ) -> None:
        super().set_timesteps(num_inference_steps, device)
        times: torch.Tensor = self.timesteps  # type: ignore[has-type]
        self.timesteps = times[:num_inference_steps]

    def step(
        self, model_output: torch.Tensor, old_pred_original_sample: torch.Tensor | None,
        timestep: Any, timestep_back: Any, sample: torch.Tensor, *arguments: Any, **options: Any,
    ) -> Any:
        # The schedule at the chosen times alone, where the next time is one place back.
        times = self.timesteps.tolist()
        number = times.index(int(timestep))
        place = len(times) - 1 - number
        chosen = copy(self)
        chosen.alphas_cumprod = self.alphas_cumprod[times[::-1]]
        chosen.final_alpha_cumprod = torch.tensor(1.0)
        chosen.num_inference_steps = self.config.num_train_timesteps
        return CogVideoXDPMScheduler.step(
            chosen, model_output, old_pred_original_sample, place, place + 1 if number else None,
            sample, *arguments, **options,
        )
