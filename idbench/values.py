"""Values a user typed: numbers and switches, and one sentence where they are not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from idbench.errors import UserError


def choose(asked: Sequence[str], usual: Iterable[str]) -> list[str]:
    """What `--metric` means: only the NAMEs, or the `usual` ones, and every +NAME in addition."""
    only = [name for name in asked if not name.startswith("+")]
    return list(dict.fromkeys([*(only or usual), *(n[1:] for n in asked if n.startswith("+"))]))


def whole(name: str, value: Any) -> int:
    """`value` as an int. Raises UserError, with `name`: no whole number."""
    found = number(name, value)
    if not math.isfinite(found) or found != int(found):
        raise UserError(f"{name} must be a whole number, not {value!r}.")
    return int(value)


def number(name: str, value: Any) -> float:
    """`value` as a float. Raises UserError, with `name`: no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise UserError(f"{name} must be a number, not {value!r}.")
    return float(value)


def finite(name: str, text: Any) -> float:
    """The finite number in a cell of a table, text or number. Raises UserError, with `name`:
    none."""
    try:
        found = float(text)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise UserError(f"{name} must be a number, not {text!r}.")
    return found


def switch(name: str, value: Any) -> bool:
    """`value` as a bool. Raises UserError, with `name`: neither true nor false."""
    if not isinstance(value, bool):
        raise UserError(f"{name} must be true or false, not {value!r}.")
    return value
