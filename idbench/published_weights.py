"""The published weights: a catalogue of what they are, and what of them is on this machine.

A file is in the folder of `store()`, or in the cache of huggingface_hub; `downloads` gets it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from idbench import yaml_text
from idbench.errors import UserError
from idbench.files import read_json, sha256_once, write_json
from idbench.names import one_of
from idbench.stored import InsidePath

PUBLISHED = "published"
"""Stands for the entries that the published protocols are defined on."""
CACHE_VARIABLE = "IDBENCH_CACHE"

State = Literal["published", "recorded", "unknown", "damaged", "missing"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogueFile(_Strict):
    """A file of an entry.

    `path` is its place in the hub's repository, if not `name`; `bytes` and `sha256` as a public
    source states them, None if none does."""

    name: InsidePath
    path: str | None = None
    url: str | None = None
    bytes: int | None = Field(None, gt=0)
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")


class Archive(_Strict):
    """A zip file that holds an entry's files."""

    url: str
    bytes: int = Field(gt=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Entry(_Strict):
    """Weights that belong together.

    Attributes:
        about: one line.
        licence, terms: as labelled at the source, and where to read it.
        non_commercial: whether the licence has to be accepted before a download.
        source: the place in words, where it is no hub.
        hub, revision: a repository of the Hugging Face hub (None: its main branch).
        kind: of that repository, `model` or `space`.
        folder: all files of that repository, or those that `only` names (patterns).
        unconfirmed: names of the above that no public source was seen to state.
        networks: what `--weights published` uses it for: network -> the form of its source.
    """

    about: str
    licence: str
    terms: str
    non_commercial: bool = False
    source: str = ""
    hub: str | None = None
    revision: str | None = None
    kind: Literal["model", "space"] = "model"
    folder: bool = False
    only: tuple[str, ...] = ()
    unconfirmed: str = ""
    archive: Archive | None = None
    files: tuple[CatalogueFile, ...] = ()
    networks: dict[str, str] = {}

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        plain = all(file.url for file in self.files) and bool(self.files)
        if sum([bool(self.hub), bool(self.archive), plain]) != 1:
            raise ValueError("give one of hub, archive, or a url for each file")
        if self.folder == bool(self.files):
            raise ValueError("give files, or folder: true")
        if self.only and not self.folder:
            raise ValueError("`only` belongs to folder: true")
        return self

    @property
    def hashed(self) -> bool:
        """Whether a public source states the sha256 of every file."""
        return bool(self.files) and all(file.sha256 for file in self.files)


@dataclass(frozen=True)
class Found:
    """A file of the catalogue and its state on this machine: `published` (the published sha256),
    `recorded` (none is published; as first downloaded), `unknown` (neither), `damaged` or
    `missing`. `name` is ENTRY/FILE."""

    name: str
    state: State
    path: Path | None = None
    sha256: str | None = None


@cache
def catalogue() -> dict[str, Entry]:
    """The entries by name."""
    text = files("idbench.weights").joinpath("catalogue.yaml").read_text(encoding="utf-8")
    return TypeAdapter(dict[str, Entry]).validate_python(yaml_text.parse(text))


def store() -> Path:
    """The folder of downloaded weights: $IDBENCH_CACHE/weights, or the system's cache folder."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("idbench")) / "weights"


def chosen(names: Sequence[str]) -> list[str]:
    """The entries of these names; `published` stands for several. Raises UserError: an unknown
    name."""
    found: list[str] = []
    for name in names:
        if name == PUBLISHED:
            found += [n for n, entry in catalogue().items() if entry.networks]
        else:
            found.append(one_of("weights", name, [*catalogue(), PUBLISHED]))
    return list(dict.fromkeys(found))


# -- what is here


def find_file(name: str, file: CatalogueFile) -> Path | None:
    """Where a file of the entry `name` lies on this machine, or None."""
    own = store() / name / file.name
    entry = catalogue()[name]
    if own.is_file() or not entry.hub:
        return own if own.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(
        entry.hub, file.path or file.name, revision=entry.revision, repo_type=entry.kind)
    return Path(cached) if isinstance(cached, str) else None


def find_folder(name: str) -> Path | None:
    """The folder of an entry on this machine with all its files, or None."""
    entry = catalogue()[name]
    own = store() / name
    if not entry.folder:
        roots = {_root(find_file(name, file), file.path or file.name) for file in entry.files}
        return roots.pop() if len(roots) == 1 else None
    if own.is_dir():
        return own
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        found = Path(snapshot_download(
            str(entry.hub), revision=entry.revision, repo_type=entry.kind,
            allow_patterns=list(entry.only) or None, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    return found if all(any(found.glob(pattern)) for pattern in entry.only) else None


def place(name: str) -> Path | None:
    """The file of an entry on this machine, its folder if it has several files, or None."""
    files = catalogue()[name].files
    return find_file(name, files[0]) if len(files) == 1 else find_folder(name)


def _root(path: Path | None, name: str) -> Path | None:
    """The folder under which `path` is called `name`; else its own folder."""
    if path is None:
        return None
    parts = len(Path(name).parts)
    return path.parents[parts - 1] if path.parts[-parts:] == Path(name).parts else path.parent


def states(name: str) -> list[Found]:
    """The files of an entry, with their state; reads every byte of them."""
    entry = catalogue()[name]
    if entry.folder:
        folder = find_folder(name)
        inside = sorted(p for p in folder.rglob("*") if p.is_file()) if folder else []
        if folder is None or not inside:
            return [Found(name, "missing")]
        return [_state(f"{name}/{p.relative_to(folder).as_posix()}", p, None) for p in inside]
    return [
        _state(f"{name}/{file.name}", find_file(name, file), file.sha256) for file in entry.files
    ]


def _state(name: str, path: Path | None, published: str | None) -> Found:
    if path is None:
        return Found(name, "missing")
    sha256, state = sha256_once(path), "unknown"
    expected = published or recorded().get(name)
    if expected:
        good = "published" if published else "recorded"
        state = good if sha256 == expected else "damaged"
    return Found(name, state, path, sha256)  # type: ignore[arg-type]


def recorded() -> dict[str, str]:
    """ENTRY/FILE -> sha256 at its first download, of files without a published one."""
    path = store() / "recorded.json"
    return dict(read_json(path)) if path.is_file() else {}


def record(name: str, sha256: str) -> None:
    """Keep the sha256 of a first download; one that is known already stays."""
    write_json(store() / "recorded.json", {name: sha256, **recorded()})


# -- any file, by its content


def published_name(sha256: str) -> str | None:
    """"FILE of ENTRY" for the sha256 of a published file."""
    return _by_hash().get(sha256)


@cache
def _by_hash() -> dict[str, str]:
    return {
        file.sha256: f"{file.name} of {name}"
        for name, entry in reversed(catalogue().items()) for file in entry.files if file.sha256
    }


def describe_file(file: str, sha256: str, size: int | None = None) -> str:
    """"published: ...", "unknown: ..." or "damaged: ..." for a file that a user named."""
    known = published_name(sha256)
    if known:
        return f"published: {known}"
    if sha256 in recorded().values():
        return "recorded: as first downloaded, no sha256 is published"
    for name, entry in catalogue().items():
        for one in entry.files:
            if Path(one.name).name == file and one.sha256:
                if one.bytes and size is not None and size < one.bytes:
                    return f"damaged: {size} of the {one.bytes} bytes of {file} of {name}"
                return f"unknown: not the published {file} of {name}"
    return "unknown: not a file of the catalogue"


# -- as sources of networks


def published_weights(weights: Sequence[str], networks: Iterable[str]) -> tuple[str, ...]:
    """`weights`, with `published` replaced by NETWORK=SOURCE for each of `networks` that is not
    named besides. Raises UserError: a file is not on this machine."""
    if PUBLISHED not in weights:
        return tuple(weights)
    named = [text for text in weights if text != PUBLISHED]
    wanted = set(networks) - {text.partition("=")[0] for text in named}
    for name, entry in catalogue().items():
        for network, form in entry.networks.items():
            if network not in wanted:
                continue
            found = place(name)
            if found is None:
                raise UserError(
                    f"The published weights {name} ({network}) are not on this machine; run "
                    f"`idbench weights get {PUBLISHED}`, or name a file with --weights "
                    f"{network}=..."
                )
            named.append(f"{network}={form}:{found}")
    return tuple(named)
