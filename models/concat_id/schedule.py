"""What a step of an embedded training does: its phase, its group of samples, its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from idbench.errors import UserError

REQUIRED = (
    "name", "entry", "data", "latents", "seed", "threads", "bfloat16", "network", "references",
    "cross", "groups", "batch", "steps", "learning_rate", "weight_decay", "warmup", "decay", "clip",
    "ema", "text_dropout", "reference_dropout", "log_every", "sample_every", "checkpoint_minutes",
)
"""Lines without which a recipe of an embedded transformer says too little."""


def check_recipe(recipe: Mapping[str, Any]) -> None:
    """See that a recipe has all lines, and phases in order.

    Raises:
        UserError: it does not.
    """
    missing = [line for line in REQUIRED if line not in recipe]
    if missing:
        raise UserError(f"The recipe lacks {', '.join(missing)}; see `single.yaml`.")
    phases = recipe.get("phases", [])
    if not isinstance(phases, list) or not all(
        isinstance(phase, dict) and isinstance(phase.get("until"), int) for phase in phases
    ):
        raise UserError("phases: a list of settings, each with the step `until` which they hold.")
    ends = [phase["until"] for phase in phases]
    if ends != sorted(set(ends)) or (ends and ends[0] < 1):
        raise UserError(f"phases end at {ends}; each must end after the one before.")


def pick_group(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """A group's name, drawn by share."""
    names = list(shares)
    weights = np.array([shares[n] for n in names], dtype=float)
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


def phase_at(step: int, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """The settings of a step, and the steps since its phase began.

    A recipe may have `phases`, a list of settings that hold `until` a step, each in place of the
    recipe's own; the last phase ends with the recipe. Every phase has a learning rate schedule
    of its own over its `steps`. One with `restart: true` begins with the averaged weights as they
    are stored and a new optimiser, see `Run.restart`.
    """
    start = 0
    for phase in recipe.get("phases", ()):
        until = min(phase["until"], recipe["steps"])
        if step < until:
            return {**recipe, **phase, "steps": until - start}, step - start
        start = until
    return {**recipe, "steps": recipe["steps"] - start}, step - start


def restarts_at(step: int, recipe: Mapping[str, Any]) -> bool:
    """Whether a phase with `restart: true` begins at this step."""
    settings, since = phase_at(step, recipe)
    return since == 0 and bool(settings.get("restart"))


def learning_rate(step: int, recipe: Mapping[str, Any]) -> float:
    """Warm-up, constant, then linear decay over the last `decay` share of the phase's steps."""
    settings, step = phase_at(step, recipe)
    total, warm = settings["steps"], settings["warmup"]
    decay = max(1.0, settings["decay"] * total)
    share = min(1.0, (step + 1) / warm, max(0.02, (total - step) / decay))
    return settings["learning_rate"] * share
