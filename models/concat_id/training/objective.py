"""The loss of one step and its gradients; references share the time and carry no noise.

The loss is the MSE of the predicted velocity on the video's latents; see each family's `add_noise`
and `loss`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch

from idbench.models.concat_id.families import Family
from idbench.models.concat_id.training.recipe import Levels
from idbench.models.concat_id.training.subset import token_mask


@dataclass(frozen=True)
class Batch:
    """What the loss needs, all on one device, B rows.

    Attributes:
        latents: float (B, N, C, h, w), clean and scaled.
        references: float (B, M, C, h, w); zero where dropped.
        text: float (B, L, D); zero where dropped.
        uniform: (B,) in [0, 1), where in the schedule each row stands.
        noise: like latents, standard normal.
        keep: (B, K), the tokens that are computed, see `subset`; None: all.
        people: uint8 (B, N, h, w), 1 + person where a head is seen; None if nobody asks.
        heads_alone: (B,), 1 where a loss with masks counts heads only; None as `people`.
    """

    latents: torch.Tensor
    references: torch.Tensor
    text: torch.Tensor
    uniform: torch.Tensor
    noise: torch.Tensor
    keep: torch.Tensor | None = None
    people: torch.Tensor | None = None
    heads_alone: torch.Tensor | None = None


def loss(network: torch.nn.Module, family: Family, batch: Batch) -> torch.Tensor:
    """Loss of each row, (B,). `network`: a `Denoiser`, or accelerate's wrapper of one."""
    noised = family.add_noise(batch.latents, batch.noise, batch.uniform)
    if batch.keep is None:
        output = network(noised.latents, batch.references, batch.text, noised.times)
        return family.loss(output, noised.target, batch)
    output = network(noised.latents, batch.references, batch.text, noised.times, batch.keep)
    mask = token_mask(batch.keep, noised.latents.shape)
    error = (output.float() - noised.target).square().mean(2, keepdim=True) * mask
    return error.sum((1, 2, 3, 4)) / mask.sum((1, 2, 3, 4))


class Threads:
    """Computes the parts of a batch at once, each on one core.

    For small networks this wastes less than splitting every single operation. The gradients are
    added in the order of the parts, so the sum does not depend on which is ready first.

    Args:
        count: of threads. PyTorch's own are set to as many, for the optimiser.
    """

    def __init__(self, count: int, parameters: Sequence[torch.Tensor]) -> None:
        self.count, self.parameters = count, list(parameters)
        torch.set_num_threads(count)
        torch.set_flush_denormal(True)
        self.pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def backward(self, network: torch.nn.Module, family: Family, batch: Batch) -> torch.Tensor:
        """Set the gradients of the mean `loss`; returns it."""
        size = len(batch.latents)

        def part(rows: Batch) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
            value = loss(network, family, rows).sum() / size
            grads = torch.autograd.grad(value, self.parameters, allow_unused=True)
            return value.detach(), grads

        columns = {k: v.chunk(self.count) for k, v in vars(batch).items() if v is not None}
        parts = [Batch(**dict(zip(columns, rows, strict=True)))
                 for rows in zip(*columns.values(), strict=True)]
        results = list(self.pool.map(part, parts)) if len(parts) > 1 else [part(parts[0])]
        for parameter, *grads in zip(
            self.parameters, *(grads for _, grads in results), strict=True
        ):
            parameter.grad = None
            for grad in grads:
                if parameter.grad is None:
                    parameter.grad = grad
                elif grad is not None:
                    parameter.grad.add_(grad)
        return torch.stack([value for value, _ in results]).sum()


class LevelSampler:
    """Maps uniform numbers to the places in the schedule that `levels` asks for.

    CogVideoX's times are uniform: over a third of them lie under -10 dB, where a small frame is all
    noise, and few over 10 dB, where faces get their edges. The schedule itself stays, so weights
    and sampling stay compatible; only how often each time is drawn changes. Source: a normal
    distribution of the logarithm of the SNR, as in Esser et al. (arXiv 2403.03206, section 3.1)
    for flow matching.

    Args:
        decibels: (T,), the SNR of each time of the schedule, falling; may end at minus infinity.
    """

    def __init__(self, decibels: torch.Tensor, levels: Levels) -> None:
        count = len(decibels)
        finite = decibels.double().clamp(min=float(decibels[decibels.isfinite()].min()))
        width = -torch.gradient(finite)[0]  # dB that each time stands for
        density = torch.exp(-0.5 * ((finite - levels.mean) / levels.deviation) ** 2) * width
        chances = levels.uniform / count + (1 - levels.uniform) * density / density.sum()
        self.cumulative = chances.cumsum(0) / chances.sum()

    def __call__(self, uniform: torch.Tensor) -> torch.Tensor:
        """Numbers (B,) in [0, 1) to places (B,) in [0, 1), as `Family.add_noise` takes them."""
        count = len(self.cumulative)
        cumulative = self.cumulative.to(uniform.device)
        times = torch.searchsorted(cumulative, uniform.double(), right=True).clamp(max=count - 1)
        return ((times + 0.5) / count).to(uniform.dtype)
