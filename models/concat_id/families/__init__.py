"""CogVideoX and Wan: how each family's networks are used, once for sampling and training."""

from __future__ import annotations

from idbench.models.concat_id.families.base import (
    Defaults,
    Family,
    Network,
    Noised,
    check_size,
    check_steps,
    guide,
)
from idbench.models.concat_id.families.cogvideox import CogVideoX, DetailCogVideoX
from idbench.models.concat_id.families.cogvideox_released import (
    ReleasedCogVideoX,
    use_released_epsilon,
)
from idbench.models.concat_id.families.wan import Wan

FAMILIES: dict[str, type[CogVideoX] | type[Wan]] = {"cogvideox": CogVideoX, "wan": Wan}


def family_of(class_name: str) -> type[CogVideoX] | type[Wan]:
    """The family of a class of networks or pipelines in diffusers' naming.

    `ConcatIDWanTransformer3DModel` and `AutoencoderKLWan` are Wan's; every other name is
    CogVideoX's.
    """
    return Wan if "Wan" in class_name else CogVideoX


__all__ = [
    "FAMILIES", "CogVideoX", "Defaults", "DetailCogVideoX", "Family", "Network", "Noised",
    "ReleasedCogVideoX", "Wan", "check_size", "check_steps", "family_of", "guide",
    "use_released_epsilon",
]
