"""Runs a network over parts of its input, and over smaller ones when the memory is full."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

R = TypeVar("R")

NO_MEMORY = ("out of memory", "can't allocate memory", "failed to allocate memory")
"""What PyTorch and onnxruntime say where they raise no error of their own."""


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
            except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is the former
                if end - start == 1 or not is_out_of_memory(error):
                    raise
                self.size, self.halved = (end - start + 1) // 2, True
                _free()
                continue
            start = end
        return results


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """The parts as one array; of none, float32 (0, 0)."""
    return np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a network failed because a memory was full, of the GPU or of the processor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error).lower() for words in NO_MEMORY)


def _free() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
