"""Whether the values of a recipe are of the kinds that its trainer reads.

A trainer whose recipe has a class of its own checks it there. For all others the installed recipes
of the same trainer are the examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from idbench.errors import UserError

FROM_ZERO = ("seed", "warmup", "decoder_steps", "attributes_alone", "first")
"""Whole numbers that may be 0; all others count from 1."""
OPTIONAL = ("start",)
"""Texts that may be null."""
WHOLE = ("network", "data", "validation", "clips")
"""Mappings that need every field of the examples but `DEFAULTED`."""
DEFAULTED = ("first", "frames", "pairs", "height", "width", "looks", "group", "version")
"""Fields with a default: see `Settings` of `metrics.training.rendered_data`."""


def check_values(
    name: str, recipe: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]
) -> None:
    """Check each value of the recipe `name` against those that `examples` have for it. Raises
    UserError: another kind of value, a number that is negative or not finite, or a mapping without
    a field that it needs."""
    for key, value in recipe.items():
        known = [example[key] for example in examples if key in example]
        if not known or (value is None and key in OPTIONAL):
            continue
        wanted = _wanted(key, value, known)
        if wanted:
            raise UserError(f"{key} of {name} must be {wanted}, not {str(value)[:80]!r}.")
        if isinstance(value, Mapping) and key in WHOLE:
            missing = set.intersection(*map(set, known)) - {*value, *DEFAULTED}
            if missing:
                raise UserError(f"{key} of {name} lacks {', '.join(sorted(missing))}; add it.")
            check_values(f"{key} of {name}", value, known)


def _wanted(key: str, value: Any, known: Sequence[Any]) -> str | None:
    """What the value should be instead; None: it is right."""
    kinds = {type(example) for example in known}
    if kinds <= {int, float}:
        least = 1 if kinds == {int} and key not in FROM_ZERO else 0
        right = isinstance(value, int | float) and not isinstance(value, bool) and (
            math.isfinite(value) and least <= value < 2**63)
        if kinds == {int}:
            return None if right and value == int(value) else f"a whole number from {least}"
        return None if right else "a number from 0"
    if not isinstance(value, tuple(kinds)):
        return {str: "a text", bool: "true or false", dict: "a mapping", list: "a list"}[
            type(known[0])]
    return None if value or isinstance(value, bool) else "non-empty"
