"""Licences of published weights: shown before a download, and accepted once where they have to be.
"""

from __future__ import annotations

from collections.abc import Callable

from idbench import published_weights as published
from idbench.errors import UserError
from idbench.files import read_json, write_json
from idbench.output import note

FILE = "accepted.json"


def agree(
    name: str, accepted: bool = False, ask: Callable[[str], bool] | None = None,
    asked_for: str = "",
) -> None:
    """Show the licence of an entry; one that excludes commercial use has to be accepted once.

    Args:
        accepted: the user has accepted it already.
        ask: puts a question to the user; None: nobody can be asked.
        asked_for: the names after `idbench weights get`, if they are not `name` alone.

    Raises:
        UserError: it was not accepted.
    """
    entry = published.catalogue()[name]
    note(f"{name}: licence {entry.licence}; {entry.terms}")
    if not entry.non_commercial or name in accepted_names():
        return
    if not accepted:
        if ask is None:
            raise UserError(
                f"{name} is not for commercial use ({entry.licence}); read {entry.terms} and run "
                f"`idbench weights get {asked_for or name} --accept-licence`."
            )
        if not ask("Do you accept this licence?"):
            raise UserError(f"The licence of {name} was not accepted; nothing was downloaded.")
    write_json(published.store() / FILE, sorted({*accepted_names(), name}))


def accepted_names() -> list[str]:
    """The entries whose licence the user has accepted."""
    path = published.store() / FILE
    return list(read_json(path)) if path.is_file() else []
