"""CogVideoX and Wan: how each family's networks are used, once for sampling and training."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from idbench.models.concat_id.families.cogvideox import (
    FINAL_EPSILON,
    CogVideoX,
    DetailCogVideoX,
    ReleasedCogVideoX,
)
from idbench.models.concat_id.families.family import Family, check_size, check_steps
from idbench.models.concat_id.families.wan21 import Wan

Kind = type[CogVideoX] | type[Wan]
FAMILIES: dict[str, Kind] = {"cogvideox": CogVideoX, "wan": Wan}

BASELINES = {
    "consisid": ("ConsisIDTransformer3DModel", "ConsisIDFamily"),
    "ingredients": ("IngredientsTransformer3DModel", "IngredientsFamily"),
    "id_animator": ("IDAnimatorTransformer3DModel", "IDAnimatorFamily"),
}
"""Transformer and family of the baselines at the embedded scale, imported when they are used."""


def family_named(name: str) -> Any:
    """The family of this name: one of `FAMILIES` or `BASELINES`."""
    if name in BASELINES:
        return getattr(import_module("idbench.baselines.embedded_models"), BASELINES[name][1])
    return FAMILIES[name]


def family_of(class_name: str) -> Any:
    """The family of a class of networks or pipelines in diffusers' naming: Wan's with `Wan` in it,
    the transformers of `BASELINES` their own, all others CogVideoX's."""
    for name, (transformer, _) in BASELINES.items():
        if class_name == transformer:
            return family_named(name)
    return Wan if "Wan" in class_name else CogVideoX


__all__ = [
    "BASELINES", "FAMILIES", "FINAL_EPSILON", "CogVideoX", "DetailCogVideoX", "Family", "Kind",
    "ReleasedCogVideoX", "Wan", "check_size", "check_steps", "family_named", "family_of",
]
