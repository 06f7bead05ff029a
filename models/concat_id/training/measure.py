"""Counts the FLOPs and stored activations of a training step on the meta device.

Blocks of a transformer are alike, so a step is run with three of them and with two. What one of
them adds, every further one adds: a network of forty blocks is not run whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from idbench.models.concat_id.training.network import Denoiser, blocks_of

COUNTED_BLOCKS = 3
"""The first and the last block may keep more than those between them."""


@dataclass(frozen=True)
class Measured:
    """Of one batch.

    Attributes:
        forward, backward: floating-point operations, a multiply-add counted as two.
        again: those of the blocks' forward pass, what gradient checkpointing does twice.
        outside, inside, inputs: bytes kept for the backward pass outside the blocks, inside all
            of them together, and of the blocks' inputs.
        largest: bytes kept inside the block that keeps most.
    """

    forward: int
    backward: int
    again: int
    outside: int
    inside: int
    inputs: int
    largest: int

    def kept(self, checkpointing: bool) -> int:
        """Bytes of activations at the peak.

        With checkpointing: all blocks' inputs and everything inside the one computed again.
        """
        return self.outside + (self.inputs + self.largest if checkpointing else self.inside)

    def with_more(self, blocks: int, fewer: Measured) -> Measured:
        """Of a network with so many more blocks; `fewer` was measured with one block less."""
        added = {name: value + blocks * (value - getattr(fewer, name))
                 for name, value in vars(self).items() if name != "largest"}
        return replace(self, **added)


def measure(
    transformer: Any, batch: int, frames: int, references: int, height: int, width: int,
    text: tuple[int, int], dtype: torch.dtype,
) -> Measured:
    """Run one step of `transformer`, which is on the meta device.

    Args:
        frames, references: latent frames. height, width: of the latents.
        text: tokens and their width.
        dtype: of the computation.
    """
    nn.Module.to(transformer, dtype)  # diffusers' own `to` warns of what is kept in float32
    name, every = blocks_of(transformer)
    channels = transformer.config.in_channels

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty(batch, *shape, device="meta", dtype=dtype)

    inputs = (
        empty(frames, channels, height, width), empty(references, channels, height, width),
        empty(*text), torch.zeros(batch, device="meta"),
    )

    def with_blocks(count: int) -> Measured:
        blocks = every[:count]
        setattr(transformer, name, blocks)
        network, kept = Denoiser(transformer), _Kept(transformer, list(blocks))
        attention = mock.patch.object(F, "scaled_dot_product_attention", _attention)
        with attention, FlopCounterMode(display=False) as counter, kept.watching(counter):
            output = network(*inputs)
            forward = counter.get_total_flops()
            again = kept.operations
            output.square().mean().backward()
            total = counter.get_total_flops()
        return Measured(
            forward, total - forward, again, kept.outside, sum(kept.of_block), sum(kept.inputs),
            max(kept.of_block),
        )

    try:
        further = len(every) - COUNTED_BLOCKS
        if further <= 0:
            return with_blocks(len(every))
        return with_blocks(COUNTED_BLOCKS).with_more(further, with_blocks(COUNTED_BLOCKS - 1))
    finally:
        setattr(transformer, name, every)


class _Kept:
    """Bytes that autograd keeps, each storage once and no parameter, and operations, by block."""

    def __init__(self, transformer: nn.Module, blocks: list[nn.Module]) -> None:
        self.blocks = blocks
        self.outside, self.operations = 0, 0
        self.of_block = [0] * len(blocks)
        self.inputs = [0] * len(blocks)
        self._now: int | None = None
        self._before = 0
        # Storages by address of their implementation; kept alive, or an address comes again.
        self._seen: dict[int, Any] = {}
        for parameter in transformer.parameters():
            self._is_new(parameter)

    def _is_new(self, tensor: torch.Tensor) -> bool:
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen:
            return False
        self._seen[storage._cdata] = storage
        return True

    def _keep(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._is_new(tensor):
            size = tensor.untyped_storage().nbytes()
            if self._now is None:
                self.outside += size
            else:
                self.of_block[self._now] += size
        return tensor

    @contextmanager
    def watching(self, counter: FlopCounterMode) -> Iterator[None]:
        """Count what is done in this context."""

        def enter(block: nn.Module, arguments: Any, named: Any) -> None:
            self._now = self.blocks.index(block)
            self._before = counter.get_total_flops()
            sizes = {
                a.untyped_storage()._cdata: a.untyped_storage().nbytes()
                for a in (*arguments, *named.values()) if isinstance(a, torch.Tensor)
                if a.requires_grad
            }
            self.inputs[self._now] = sum(sizes.values())

        def leave(block: nn.Module, arguments: Any, output: Any) -> None:
            self._now = None
            self.operations += counter.get_total_flops() - self._before

        saved = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda tensor: tensor)
        with ExitStack() as hooks, saved:
            for block in self.blocks:
                hooks.enter_context(block.register_forward_pre_hook(enter, with_kwargs=True))
                hooks.enter_context(block.register_forward_hook(leave))
            yield


class _Fused(torch.autograd.Function):
    """Attention as fused kernels keep it: q, k, v, output and a row's logarithm of its sum.

    On the meta device PyTorch takes its plain attention, which keeps the whole T x T matrix.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        output = torch.matmul(torch.matmul(q, k.transpose(-1, -2)), v)
        sums = torch.empty(q.shape[:-1], device=q.device, dtype=torch.float32)
        ctx.save_for_backward(q, k, v, output, sums)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # type: ignore[override]
        q, k, v, _, _ = ctx.saved_tensors
        weights = q.new_empty((*q.shape[:-1], k.shape[-2]))
        inner = torch.matmul(gradient, v.transpose(-1, -2))
        return (
            torch.matmul(inner, k), torch.matmul(inner.transpose(-1, -2), q),
            torch.matmul(weights.transpose(-1, -2), gradient),
        )


def _attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> torch.Tensor:
    return _Fused.apply(query, key, value)
