"""Where released files lie that a user names by path, by catalogue name, or by hub id.

The names of `idbench weights list` stand for the files of an entry, NAME/INNER for one inside:
`viclip`, `buffalo_l`, `concat-id/single-identity`. A path that exists comes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from idbench import downloads
from idbench import published_weights as published
from idbench.errors import UserError, explained


def local(text: str | Path) -> Path:
    """The path `text`, or the files of the catalogue that it names. Raises UserError: a name of the
    catalogue whose files are not on this machine."""
    path = Path(text).expanduser()
    if path.exists() or not path.parts or path.parts[0] not in published.catalogue():
        return path
    found = from_catalogue(path.parts[0])
    return found.joinpath(*path.parts[1:]) if found.is_dir() else found


def from_catalogue(name: str) -> Path:
    """The file of an entry on this machine, or its folder if it has several. Raises UserError: not
    on this machine; says how to get it."""
    found = published.place(name)
    if found is None:
        raise UserError(f"{name} is not on this machine; run `idbench weights get {name}`.")
    return found


def released_folder(source: str | None, entry: str | None, files: Sequence[str] = ()) -> Path:
    """The folder of a release. Raises UserError: not on this machine and not to be fetched.

    Args:
        source: a folder, a name of the catalogue, or a hub id, which is then fetched once; None:
            the entry as it is on this machine.
        entry: what of the catalogue `source` stands for by default; None: nothing.
        files: files and folders (or patterns) that are needed of it; all where empty.
    """
    if source is None:
        assert entry is not None
        return _folder(entry)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    name = _entry_of(source, entry)
    if name is not None:
        found = published.find_folder(name)
        if found is None or not all(any(found.glob(file)) for file in files):
            downloads.get(name)
        return _folder(name)
    owner, _, repository = source.partition("/")
    if path.exists() or not owner.strip("./~") or not repository or "/" in repository:
        example = entry or "clip-l14"
        raise UserError(
            f"There is no folder {source}; name a folder, a name of `idbench weights list` such "
            f"as {example}, or a hub id."
        )
    from huggingface_hub import snapshot_download

    patterns = [*files, *(f"{file}/*" for file in files)] or None
    what = f"{source} is not a folder here and cannot be fetched from the hub"
    with explained(what, "download it and pass its folder"):
        return Path(snapshot_download(source, allow_patterns=patterns))


def _folder(name: str) -> Path:
    found = published.find_folder(name)
    if found is None:
        raise UserError(
            f"The released files of {name} are not on this machine; run `idbench weights get "
            f"{name}`, or name their folder."
        )
    return found


def _entry_of(source: str, usual: str | None) -> str | None:
    """The entry that a name or a hub id stands for: the usual one, one of a whole folder, any."""
    entries = published.catalogue()
    if source in entries:
        return source
    found = [name for name, entry in entries.items() if entry.hub == source]
    found.sort(key=lambda name: (name != usual, not entries[name].folder))
    return found[0] if found else None
