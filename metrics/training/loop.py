"""The training loop that all recipes share: steps, learning rate, checkpoints, resuming."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from idbench.errors import UserError
from idbench.files import atomic_path, sha256_json

CHECKPOINT_SECONDS = 60.0


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to a hundredth of the peak."""
    if step < warmup:
        return peak * (step + 1) / warmup
    share = (step - warmup) / max(1, steps - warmup)
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def train_steps(
    recipe: Mapping[str, Any],
    state_dir: Path,
    resume: bool,
    modules: Mapping[str, nn.Module],
    loss_of: Callable[[int], tuple[torch.Tensor, dict[str, float]]],
) -> int:
    """Train `modules` with AdamW for `recipe["steps"]` steps; returns the steps done.

    Keeps `state_dir/checkpoint.pt` (about once a minute and at the end) and, with `resume`,
    goes on from it. `loss_of(step)` must depend on the step and the modules only.

    Args:
        recipe: steps, learning_rate, and optionally warmup, weight_decay, clip, precision.
        loss_of: loss to minimise and numbers to print, for one step.
    """
    path = Path(state_dir) / "checkpoint.pt"
    steps, peak = int(recipe["steps"]), float(recipe["learning_rate"])
    warmup = int(recipe.get("warmup", min(100, steps // 10)))
    decay: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for module in modules.values():
        module.train()
        for parameter in module.parameters():
            if parameter.requires_grad:
                # Norms, biases, PReLU slopes and temperatures are not pulled towards zero.
                (decay if parameter.ndim > 1 else plain).append(parameter)
    optimizer = torch.optim.AdamW(
        [
            {"params": decay, "weight_decay": float(recipe.get("weight_decay", 0.05))},
            {"params": plain, "weight_decay": 0.0},
        ],
        lr=peak, betas=(0.9, 0.98),
    )
    start = 0
    if resume and path.is_file():
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored["recipe"] != _identity(recipe):
            raise UserError(
                f"{path} was written by another version of this recipe; train without --resume, "
                "or restore the recipe."
            )
        for name, module in modules.items():
            module.load_state_dict(stored["modules"][name])
        optimizer.load_state_dict(stored["optimizer"])
        start = int(stored["step"])
        print(f"going on from step {start} of {steps}", flush=True)
    bfloat = recipe.get("precision", "float32") == "bfloat16"
    device = next(next(iter(modules.values())).parameters()).device.type
    began = last = time.monotonic()
    shown: dict[str, float] = {}
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, warmup)
        with torch.autocast(device, torch.bfloat16, enabled=bfloat):
            loss, numbers = loss_of(step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(decay + plain, float(recipe.get("clip", 1.0)))
        optimizer.step()
        for name, value in {"loss": loss.item(), **numbers}.items():
            shown[name] = value if name not in shown else 0.95 * shown[name] + 0.05 * value
        now = time.monotonic()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            done = step + 1 - start
            left = (now - began) / done * (steps - step - 1)
            text = "  ".join(f"{k} {v:.4f}" for k, v in shown.items())
            print(f"step {step + 1}/{steps}  {text}  left {left:.0f} s", flush=True)
        if now - last > CHECKPOINT_SECONDS or step + 1 == steps:
            _save(path, recipe, modules, optimizer, step + 1)
            last = now
    for module in modules.values():
        module.eval()
    return max(start, steps)


def _identity(recipe: Mapping[str, Any]) -> str:
    """Hash of all that moves the training; more steps may be added to one that has ended."""
    free = ("name", "description", "steps", "validation")
    return sha256_json({k: v for k, v in recipe.items() if k not in free})


def _save(
    path: Path, recipe: Mapping[str, Any], modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer, step: int,
) -> None:
    state = {
        "recipe": _identity(recipe),
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "step": step,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)
