"""Downloads of published weights: resumed after a cut, checked by sha256, from a mirror if asked;
licences are shown before, and accepted once where they have to be.

Files of the Hugging Face hub come through huggingface_hub and lie in its cache; files at plain
addresses come through pooch. A mirror has a file as ADDRESS/ENTRY/FILE, and lists the files of a
folder in ADDRESS/ENTRY/SHA256SUMS, as `sha256sum` prints them.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from idbench import published_weights as published
from idbench.errors import UserError
from idbench.files import atomic_path, disk_errors, read_json, write_json
from idbench.output import note, shortened
from idbench.published_weights import Archive, CatalogueFile, Entry
from idbench.resumed_download import AGAIN, CHUNK, retrieve

MIRROR_VARIABLE = "IDBENCH_MIRROR"
SUMS = "SHA256SUMS"
ACCEPTED = "accepted.json"


def get(name: str, folder: Path | None = None) -> Path:
    """Bring the files of an entry to this machine, unless they are here, and check them.

    Args:
        folder: copy from here (FOLDER/ENTRY/FILE or FOLDER/FILE) instead of downloading.

    Returns the entry's file, or its folder. Raises UserError: its licence has to be accepted first
    (see `agree`), offline, no such file, an interrupted download, or a wrong sha256.
    """
    entry = published.catalogue()[name]
    if entry.non_commercial and name not in accepted_names():
        agree(name)
    if entry.folder:
        _get_folder(name, entry, folder)
    else:
        for file in entry.files:
            if published.find_file(name, file) is None:
                _get_file(name, entry, file, folder)
    for found in published.states(name):
        _check(found)
    return published.place(name) or published.store() / name


def _check(found: published.Found) -> None:
    if found.state == "damaged" and found.path is not None:
        found.path.resolve().unlink(missing_ok=True)  # the hub's cache has links to its blobs
        found.path.unlink(missing_ok=True)
        expected = "recorded" if found.name in published.recorded() else "published"
        raise UserError(
            f"{found.name} does not have the {expected} sha256 and was removed; get it again, or "
            "from another source."
        )
    if found.state == "unknown" and found.sha256:
        published.record(found.name, found.sha256)
        note(f"No sha256 is published for {found.name}; recorded {found.sha256}.")


# -- licences


def agree(
    name: str, accepted: bool = False, ask: Callable[[str], bool] | None = None,
    asked_for: str = "",
) -> None:
    """Show the licence of an entry; one that excludes commercial use has to be accepted once.
    Raises UserError: it was not accepted.

    Args:
        accepted: the user has accepted it already.
        ask: puts a question to the user; None: nobody can be asked.
        asked_for: the names after `idbench weights get`, if they are not `name` alone.
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
    write_json(published.store() / ACCEPTED, sorted({*accepted_names(), name}))


def accepted_names() -> list[str]:
    """The entries whose licence the user has accepted."""
    path = published.store() / ACCEPTED
    return list(read_json(path)) if path.is_file() else []


# -- one file


def _get_file(name: str, entry: Entry, file: CatalogueFile, folder: Path | None) -> None:
    target, mirror = published.store() / name / file.name, _mirror(name)
    if folder is not None:
        source = _given(folder, name, file.name)
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    elif not mirror and entry.hub:
        from_hub(name, lambda hub, offline: hub.hf_hub_download(
            entry.hub, file.path or file.name, revision=entry.revision, repo_type=entry.kind,
            local_files_only=offline))
    else:
        _check_online(name)
        if entry.archive and not mirror:
            _unpack(name, entry, entry.archive)
        else:
            retrieve(f"{mirror}/{file.name}" if mirror else str(file.url), file.sha256, target)


def _get_folder(name: str, entry: Entry, folder: Path | None) -> None:
    own, mirror = published.store() / name, _mirror(name)
    if folder is not None:
        source = folder / name
        if not source.is_dir():
            raise UserError(f"There is no folder {source}; put the files of {name} there.")
        with _unfinished(own) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
    elif own.is_dir():
        return
    elif mirror:
        _get_listed(name, mirror, own)
    else:
        from_hub(name, lambda hub, offline: hub.snapshot_download(
            entry.hub, revision=entry.revision, repo_type=entry.kind,
            allow_patterns=list(entry.only) or None, local_files_only=offline))


def _mirror(name: str) -> str | None:
    """Where the mirror has the files of an entry."""
    address = os.environ.get(MIRROR_VARIABLE)
    return f"{address.rstrip('/')}/{name}" if address else None


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """A folder to fill, which then takes the place of `folder`; one that stays is continued."""
    part = folder.with_name(folder.name + ".part")
    with disk_errors(part):
        part.mkdir(parents=True, exist_ok=True)
        yield part
        if folder.is_dir():
            shutil.rmtree(folder)
        os.replace(part, folder)


def _get_listed(name: str, address: str, own: Path) -> None:
    """The files of a mirror's folder, by its list."""
    _check_online(name)
    with _unfinished(own) as part:
        listing = part / SUMS
        listing.unlink(missing_ok=True)  # the mirror may have been filled since
        retrieve(f"{address}/{SUMS}", None, listing)
        for line in listing.read_text(encoding="utf-8").splitlines():
            sha256, _, file = line.partition(" ")
            inside = PurePosixPath(file.lstrip(" *"))
            if len(sha256) != 64 or inside.is_absolute() or ".." in inside.parts:
                raise UserError(
                    f"{address}/{SUMS} is no list of files; write it with "
                    f"`cd {name} && find . -type f ! -name {SUMS} -exec sha256sum {{}} + "
                    f"> {SUMS}`."
                )
            retrieve(f"{address}/{inside}", sha256, part / inside)
        listing.unlink()


def _given(folder: Path, name: str, file: str) -> Path:
    places = [folder / name / file, folder / file, folder / PurePosixPath(file).name]
    for place in places:
        if place.is_file():
            return place
    raise UserError(f"There is no {file} of {name} in {folder}; expected {places[0]}.")


def _unpack(name: str, entry: Entry, source: Archive) -> None:
    """The entry's files out of its archive, whatever folder they are in there."""
    folder = published.store() / name
    archive = folder / PurePosixPath(source.url).name
    retrieve(source.url, source.sha256, archive)
    with zipfile.ZipFile(archive) as packed:
        members = {PurePosixPath(info.filename).name: info for info in packed.infolist()}
        for file in entry.files:
            if file.name not in members:
                raise UserError(f"{archive} has no {file.name}; remove it and get it again.")
            with (atomic_path(folder / file.name) as temporary,
                  packed.open(members[file.name]) as stream, open(temporary, "wb") as written):
                shutil.copyfileobj(stream, written, CHUNK)
    archive.unlink()


# -- the hub


def _check_online(name: str) -> None:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise UserError(
            f"{name} is not on this machine and HF_HUB_OFFLINE is set; unset it, or bring the "
            "files from another machine (--from FOLDER)."
        )


def from_hub(name: str, download: Callable[[Any, bool], str]) -> str:
    """Call `download(huggingface_hub, offline)`, which gives a path. Raises UserError: offline and
    not in its cache, gated, or interrupted."""
    import huggingface_hub
    from huggingface_hub import constants  # an attribute only once it is imported
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    offline = bool(constants.HF_HUB_OFFLINE)
    try:
        return download(huggingface_hub, offline)
    except GatedRepoError as error:
        raise UserError(
            f"{name} is gated: accept its terms on its page, then log in with `hf auth login`."
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError) as error:
        if offline:
            _check_online(name)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = shortened(reason.removeprefix("Got: "), 160)
        if reason.startswith("An error happened while trying to locate the file on the Hub"):
            reason = "the hub does not answer"
        raise UserError(f"{name} could not be downloaded ({reason}); {AGAIN}.") from error
    except Exception as error:  # the network errors of huggingface_hub's HTTP library
        if "http" not in type(error).__module__:
            raise
        raise UserError(
            f"{name} could not be downloaded ({type(error).__name__}); {AGAIN}.") from error
