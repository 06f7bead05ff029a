"""AdamW, or Muon for the matrices of the blocks and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class Optimiser:
    """One or two optimisers behind one `step(rate)`.

    `optimiser: adamw` in a recipe is the paper's; `muon` orthogonalises the momentum of the
    weight matrices inside the blocks (Jordan et al., 2024), with updates scaled to AdamW's
    size so that one learning rate serves both.
    """

    def __init__(self, network: nn.Module, recipe: Mapping[str, Any]) -> None:
        matrices: list[nn.Parameter] = []
        rest: list[nn.Parameter] = []
        muon = recipe.get("optimiser", "adamw") == "muon"
        for name, parameter in network.named_parameters():
            inner = muon and parameter.ndim == 2 and "transformer_blocks" in name
            (matrices if inner else rest).append(parameter)
        decay, rate = recipe["weight_decay"], recipe["learning_rate"]
        betas = tuple(recipe.get("betas", (0.9, 0.95)))
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=rate, betas=betas, weight_decay=decay, fused=True)
        ]
        if matrices:
            self.parts.append(torch.optim.Muon(
                matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))

    def step(self, rate: float) -> None:
        """Update at the given learning rate and clear the gradients."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = rate
            part.step()
            part.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
