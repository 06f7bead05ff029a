"""Gradients of a batch in parts, on the cores of a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import torch

from idbench.models.concat_id.training.objective import Batch


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

    def backward(self, loss: Callable[[Batch], torch.Tensor], batch: Batch) -> torch.Tensor:
        """Set the gradients of the mean loss; returns it.

        Args:
            loss: of each row, (B,).
        """
        size = len(batch.latents)

        def part(rows: Batch) -> tuple[torch.Tensor, Sequence[torch.Tensor | None]]:
            value = loss(rows).sum() / size
            grads = torch.autograd.grad(value, self.parameters, allow_unused=True)
            return value.detach(), grads

        given = {f.name: getattr(batch, f.name) for f in fields(batch)}
        columns = {k: v.chunk(self.count) for k, v in given.items() if v is not None}
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
