"""How the networks of the metrics are trained, and written to the embedded weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench import embedded
from idbench.metrics.training.rendered_data import DATA_VERSION
from idbench.training.fit import fit, pace_of
from idbench.training.resumable_loop import Values
from idbench.training.schedule import cosine, warmup

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def train_network(
    recipe: Mapping[str, Any], folder: Path, resume: bool, modules: Mapping[str, nn.Module],
    loss_of: Callable[[int], tuple[torch.Tensor, Values]],
) -> int:
    """Train `modules` with AdamW, see `fit`; returns the finished steps. `recipe` has steps,
    learning_rate, and optionally warmup, weight_decay, clip, precision. The rate rises linearly,
    then falls as half a cosine to a hundredth of the peak."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in modules.values():
        for parameter in module.parameters():
            if parameter.requires_grad:
                # Norms, biases, PReLU slopes and temperatures are not pulled towards zero.
                (decayed if parameter.ndim > 1 else others).append(parameter)
    peak, weight_decay = float(recipe["learning_rate"]), float(recipe.get("weight_decay", 0.05))
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay},
         {"params": others, "weight_decay": 0.0}],
        lr=peak, betas=(0.9, 0.98),
    )
    pace = pace_of(recipe)
    warm = int(recipe.get("warmup", min(100, pace.steps // 10)))
    bfloat16 = recipe.get("precision") == "bfloat16"

    def rate(step: int) -> float:
        rising = step < warm
        return peak * (
            warmup(step, warm) if rising else cosine(step - warm, pace.steps - warm, floor=0.01)
        )

    def mixed(step: int) -> tuple[torch.Tensor, Values]:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=bfloat16):
            return loss_of(step)

    return fit(recipe, folder, modules, optimiser, mixed, rate=rate, resume=resume)


def write_entry(
    recipe: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None, steps: int,
    config: Mapping[str, Any], measured: Mapping[str, Any],
) -> None:
    """Write the trained `state` as the embedded weights `recipe["entry"]`; without one, replace
    only what was measured."""
    if state is None:
        embedded.save_measured(recipe["entry"], measured)
        return
    embedded.save_entry(
        recipe["entry"], state, recipe=recipe["name"], seed=recipe["seed"], steps=steps,
        config=config, measured=measured, data_version=DATA_VERSION,
    )
