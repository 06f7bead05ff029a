"""Exponential moving average (EMA) of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch.distributed.tensor import DTensor


def averaging_weight(decay: float, step: int) -> float:
    """Share of the weights after `step` steps in the average: 1 - min(decay, (1 + s) / (10 + s)).
    The warm-up keeps the initial weights from dominating the average of a short training."""
    return 1.0 - min(decay, (1 + step) / (10 + step))


def own_part(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that this process holds, sharing the parameter's memory."""
    data = parameter.detach()
    return data.to_local() if isinstance(data, DTensor) else data


class Average:
    """Exponential moving average of parameters in float32; with FSDP, of this process's part.

    `decay` is 0 (no averaging) to below 1, reached after a warm-up (`averaging_weight`); `device`:
    where the average, `values`, is kept (None: next to the parameters)."""

    def __init__(
        self, parameters: Iterable[torch.Tensor], decay: float, device: str | None = None
    ) -> None:
        self.decay, self.live = decay, list(parameters)
        self.values = [
            torch.empty_like(p, dtype=torch.float32, device=device or p.device).copy_(p)
            for p in map(own_part, self.live)
        ]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Include the parameters as they are after `step` steps."""
        weight = averaging_weight(self.decay, step)
        for value, parameter in zip(self.values, self.live, strict=True):
            value.lerp_(own_part(parameter).to(value.device, torch.float32), weight)

    def restart(self) -> None:
        """Continue training from the averaged weights."""
        self._write(self.values)

    def load(self, values: Iterable[torch.Tensor]) -> None:
        """Take over stored `values`."""
        for value, stored in zip(self.values, values, strict=True):
            value.copy_(stored)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within this context, the parameters hold the averaged weights."""
        held = [own_part(p).to("cpu", copy=True) for p in self.live]
        self._write(self.values)
        try:
            yield
        finally:
            self._write(held)

    @torch.no_grad()
    def _write(self, values: Iterable[torch.Tensor]) -> None:
        for value, parameter in zip(values, self.live, strict=True):
            own_part(parameter).copy_(value)
