"""How the networks of the metrics are trained, and written to the embedded weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench import embedded
from idbench.recipes import Trainer
from idbench.training.fit import fit, pace_of
from idbench.training.resumable_loop import Values
from idbench.training.schedule import cosine, warmup

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Config = dict[str, Any]
"""A recipe, or the config of its network."""
Loss = Callable[[int], tuple[torch.Tensor, Values]]
"""From a step to its loss, and values to log."""
Task = tuple[dict[str, nn.Module], Loss]
"""What is trained, the network first, by which loss."""


def trainer(
    task: Callable[[Config, Config, Path], Task],
    measure: Callable[[Config, Config, Path, Any], dict[str, Any]],
    configure: Callable[[Config], Config] = lambda recipe: recipe["network"],
) -> Trainer:
    """The trainer of a kind of recipes, see `idbench.recipes`: it trains a network, measures it,
    and writes both to the embedded weights `recipe["entry"]`. With its argument `evaluate`, it
    only measures the embedded one.

    Args:
        task: of a recipe, the network's config and a folder for rendered data.
        measure: the values for the manifest, of the same and the network (None: the embedded one).
        configure: the network's config of a recipe, as the manifest keeps it.
    """

    def train(recipe: Config, state_dir: Path, resume: bool, evaluate: bool) -> dict[str, Any]:
        config, data = configure(recipe), state_dir.parent / "metrics-data"
        if evaluate:
            measured = measure(recipe, config, data, None)
            embedded.save_measured(recipe["entry"], measured)
            return measured
        torch.manual_seed(recipe["seed"])
        modules, loss_of = task(recipe, config, data)
        steps = train_network(recipe, state_dir, resume, modules, loss_of)
        network = next(iter(modules.values())).float().cpu().eval()
        measured = measure(recipe, config, data, network)
        embedded.save_entry(
            recipe["entry"], network.state_dict(), recipe=recipe["name"], seed=recipe["seed"],
            steps=steps, config=config, measured=measured,
        )
        return measured

    return train


def train_network(
    recipe: Mapping[str, Any], folder: Path, resume: bool, modules: Mapping[str, nn.Module],
    loss_of: Loss,
) -> int:
    """Train `modules` with AdamW, see `fit`; returns the finished steps. `recipe` has steps,
    learning_rate, and optionally warmup, weight_decay, clip, precision. The rate rises linearly,
    then falls as half a cosine to a hundredth of the peak."""
    parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    peak, weight_decay = float(recipe["learning_rate"]), float(recipe.get("weight_decay", 0.05))
    optimiser = torch.optim.AdamW(
        # Norms, biases, PReLU slopes and temperatures are not pulled towards zero.
        [{"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
         {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}],
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
