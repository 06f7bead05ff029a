"""Writes a trained network to the embedded weights, or new measurements of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from idbench import embedded
from idbench.metrics.training.data import DATA_VERSION


def write_entry(
    recipe: Mapping[str, Any], state: Mapping[str, torch.Tensor] | None, steps: int,
    config: Mapping[str, Any], measured: Mapping[str, Any],
) -> None:
    """The entry of `recipe["entry"]`: with `state` of a training now ended, else measured anew.

    Measuring anew keeps the weights, and what they say of their training, as they are.
    """
    name, version = recipe["entry"], DATA_VERSION
    if state is None:
        found = embedded.entry(name)
        state, steps = embedded.load_state(name), int(found["steps"])
        config, version = found["config"], found["data_version"]
    embedded.save_entry(
        name, state, recipe=recipe["name"], seed=recipe["seed"], steps=steps, config=config,
        measured=measured, data_version=version,
    )
