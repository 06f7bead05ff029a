"""Names that a user types: the default, the nearest known one, and the error if there is none."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from idbench.errors import UserError

DEFAULT_PROTOCOL = "strict-v3"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name` (case ignored), or None when none is alike."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


def check_variant(model: str, variant: str | None, known: Iterable[str]) -> None:
    """Raise UserError unless a model has the variant that stands after its @."""
    if variant is None or variant in (known := tuple(known)):
        return
    if not known:
        raise UserError(f"{model} has no variants; leave out @{variant}.")
    raise unknown(f"variant of {model}", variant, known)


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for an unknown name: names the nearest one and lists what is known."""
    known = sorted(known)
    match = nearest(name, known)
    hint = f": did you mean {match!r}?" if match else "."
    listed = ", ".join(known) if known else "none"
    return UserError(f"Unknown {what} {name!r}{hint} Known: {listed}.")
