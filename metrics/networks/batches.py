"""Runs a network over parts of its input, and over smaller ones when the memory is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from idbench.errors import is_out_of_memory

R = TypeVar("R")


class Batches:
    """The size of a network's batches; `halved` if it was reduced because the memory was full, so
    that results may differ in their last digits."""

    def __init__(self, size: int) -> None:
        self.size, self.halved = size, False

    def run(self, part: Callable[[int, int], R], count: int) -> list[R]:
        """`part(start, end)` of consecutive parts of `count` items. A part that does not fit into
        memory is tried again with half as many items; a single one that does not fit is an
        error."""
        results: list[R] = []
        start = 0
        while start < count:
            end = min(start + self.size, count)
            try:
                results.append(part(start, end))
                start = end
                continue
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
                if end - start == 1 or not is_out_of_memory(error):
                    raise
            # Not in the block above: the error holds all that the network had computed.
            self.size, self.halved = (end - start + 1) // 2, True
            _free()
        return results


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one array; of none, float32 (0, 0)."""
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
