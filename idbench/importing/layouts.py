"""The layouts that a suite can be imported from, by name or recognised by their files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from idbench.errors import UserError
from idbench.importing.contents import Source
from idbench.importing.public_layouts import is_consisid, is_opens2v, read_consisid, read_opens2v
from idbench.importing.sources import read_own
from idbench.names import unknown


def read_source(folder: Path, layout: str = "auto") -> Source:
    """What lies in `folder`, read in the layout of that name (`auto`: recognised by its files).
    Raises UserError: no such folder or layout, nothing recognised, or a wrong row."""
    readers: dict[str, Callable[[Path], Source]] = {
        "own": read_own, "consisid": read_consisid, "opens2v": read_opens2v,
    }
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; pass the folder with the references.")
    if layout == "auto":
        layout = "opens2v" if is_opens2v(folder) else "consisid" if is_consisid(folder) else "own"
    if layout not in readers:
        raise unknown("layout", layout, [*readers, "auto"])
    return readers[layout](folder)
