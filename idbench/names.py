"""What a user types: names and values, and the sentence where one of them is wrong."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from idbench.errors import UserError

DEFAULT_PROTOCOL = "strict-v3"
ABOUT = ("sample", "identities", "category", "prompt_id", "status")
"""Columns of `measurements.sample_values` that are no metric."""
ADDED = ("cluster", "not_asked")
"""Columns that `reports.video_values` adds to them."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name` (case ignored), or None when none is alike."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def suggestion(name: str, known: Iterable[str], otherwise: str) -> str:
    """"did you mean 'NEAREST'?", or what to say `otherwise`, where no known name is alike."""
    match = nearest(name, known)
    return f"did you mean {match!r}?" if match else otherwise


def folder_name(text: str) -> str:
    """`text` as the name of one folder: without separators, and at most 150 bytes long."""
    plain = re.sub(r"[/\\\0]", "_", text)
    data = plain.encode(errors="backslashreplace")
    if len(data) <= 150:
        return plain
    return f"{data[:130].decode(errors='ignore')}-{hashlib.sha256(data).hexdigest()[:8]}"


def check_variant(model: str, variant: str | None, known: Iterable[str]) -> None:
    """Raise UserError unless a model has the variant that stands after its @."""
    if variant is None or variant in (known := tuple(known)):
        return
    if not known:
        raise UserError(f"{model} has no variants; leave out @{variant}.")
    raise unknown(f"variant of {model}", variant, known)


def one_of(what: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is known. Raises UserError, see `unknown`."""
    if name not in (known := tuple(known)):
        raise unknown(what, name, known)
    return name


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name: names the nearest one and lists what is known."""
    known = sorted(known)
    match = nearest(name, known)
    hint = f": did you mean {match!r}?" if match else "."
    listed = ", ".join(known) if known else "none"
    return UserError(f"Unknown {what} {name!r}{hint} Known: {listed}.")


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
