"""Learning rate schedules, as factors of the peak rate, and phases of a training.

Steps count from 0: the factor of `step` is that of the update after `step` finished steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from idbench.errors import UserError


def warmup(step: int, steps: int, first: float = 0.0) -> float:
    """Linear rise from `first` to 1 over `steps` steps."""
    return min(1.0, first + (1 - first) * (step + 1) / max(1, steps))


def linear(step: int, steps: int, last: float = 1.0, floor: float = 0.0) -> float:
    """1, then a linear decay to 0 at `steps` over the `last` share of them; at least `floor`."""
    return min(1.0, max(floor, (steps - step) / max(1.0, last * steps)))


def sat_linear(step: int, steps: int, warmup: int) -> float:
    """1 until the end of the warm-up, then less by 1 / `steps` a step: the last one has
    `warmup` / `steps`.

    Source: SwissArmyTransformer, sat/training/learning_rates.py (decay style `linear`).
    """
    return min(1.0, 1.0 - (step + 1 - warmup) / steps)


def cosine(step: int, steps: int, floor: float = 0.0) -> float:
    """Half a cosine from 1 to `floor` over `steps` steps."""
    share = min(1.0, step / max(1, steps))
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * share))


def check_phases(phases: Sequence[Mapping[str, Any]]) -> None:
    """Check the `phases` of a recipe. Raises UserError: they are not settings in order."""
    ends: list[Any] = [phase.get("until") for phase in phases]
    if not all(isinstance(end, int) for end in ends):
        raise UserError("`phases` must be a list of settings, each with its last step `until`.")
    if ends != sorted(set(ends)) or (ends and ends[0] < 1):
        raise UserError(f"`phases` end at {ends}; each must end after the one before.")


def phase_at(step: int, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The settings of a step, and the number of steps since its phase began.

    Each of a recipe's `phases` replaces the recipe's settings until step `until`; the last ends
    with the recipe. The `steps` returned are those of the phase, so each has its own learning rate
    schedule."""
    start = 0
    for phase in recipe.get("phases", ()):
        until = min(phase["until"], recipe["steps"])
        if step < until:
            return {**recipe, **phase, "steps": until - start}, step - start
        start = until
    return {**recipe, "steps": recipe["steps"] - start}, step - start
