"""Writes a trained network to the embedded weights, or new measurements of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from idbench import embedded
from idbench.metrics.training.data import DATA_VERSION


def write_entry(
    recipe: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None, steps: int,
    config: Mapping[str, Any], measured: Mapping[str, Any], half: bool = True,
) -> None:
    """The entry of `recipe["entry"]`: with `state` of a training now ended, else measured anew.

    Measuring anew keeps the weights, and what they say of their training, as they are. `half`
    stores floating tensors as float16.
    """
    if state is None:
        embedded.save_measured(recipe["entry"], measured)
        return
    embedded.save_entry(
        recipe["entry"], state, recipe=recipe["name"], seed=recipe["seed"], steps=steps,
        config=config, measured=measured, half=half, data_version=DATA_VERSION,
    )
