"""Names that a user types: the default, the nearest known one, and the error if there is none."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterable

from idbench.errors import UserError

DEFAULT_PROTOCOL = "strict-v3"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name` (case ignored), or None when none is alike."""
    by_lower = {k.lower(): k for k in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[matches[0]] if matches else None


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
