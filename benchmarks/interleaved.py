"""Ratios of two computations within one run: they take turns, so that what else the machine does
meets both alike, and the median counts. Time is that of the process's own threads."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np


def seconds(work: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def median_ratio(
    first: Callable[[], object], second: Callable[[], object], rounds: int = 9
) -> float:
    """Median of first / second after one round to warm up."""
    ratios = []
    for number in range(rounds + 1):
        # Whoever goes second finds the caches warm: the order changes every round.
        if number % 2:
            b = seconds(second)
            a = seconds(first)
        else:
            a = seconds(first)
            b = seconds(second)
        ratios.append(a / b)
    return float(np.median(ratios[1:]))
