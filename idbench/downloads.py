"""Downloads of published weights: resumed after a cut, checked by sha256, from a mirror if asked.

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
from idbench.files import atomic_path, disk_errors
from idbench.licences import accepted_names, agree
from idbench.output import note, shortened
from idbench.published_weights import CatalogueFile, Entry
from idbench.resumed_download import AGAIN, CHUNK, retrieve

MIRROR_VARIABLE = "IDBENCH_MIRROR"
SUMS = "SHA256SUMS"

Say = Callable[[str], None]


def get(name: str, folder: Path | None = None, say: Say = note) -> Path:
    """Bring the files of an entry to this machine, unless they are here, and check them.

    Args:
        folder: copy from here (FOLDER/ENTRY/FILE or FOLDER/FILE) instead of downloading.
        say: told what has no published sha256.

    Returns the entry's file, or its folder. Raises UserError: its licence has to be accepted first
    (see `licences.agree`), offline, no such file, an interrupted download, or a wrong sha256.
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
        _check(found, say)
    return published.place(name) or published.store() / name


def _check(found: published.Found, say: Say) -> None:
    if found.state == "damaged" and found.path is not None:
        found.path.resolve().unlink(missing_ok=True)  # the hub's cache has links to its blobs
        found.path.unlink(missing_ok=True)
        raise UserError(
            f"{found.name} does not have the {_expected(found.name)} sha256 and was removed; get "
            "it again, or from another source."
        )
    if found.state == "unknown" and found.sha256:
        published.record(found.name, found.sha256)
        say(f"No sha256 is published for {found.name}; recorded {found.sha256}.")


def _expected(name: str) -> str:
    return "recorded" if name in published.recorded() else "published"


# -- one file


def _get_file(name: str, entry: Entry, file: CatalogueFile, folder: Path | None) -> None:
    target = published.store() / name / file.name
    mirror = os.environ.get(MIRROR_VARIABLE)
    if folder is not None:
        _copy(_given(folder, name, file.name), target)
    elif mirror:
        _check_online(name)
        retrieve(f"{mirror.rstrip('/')}/{name}/{file.name}", file.sha256, target)
    elif entry.archive:
        _check_online(name)
        _unpack(name, entry)
    elif file.url:
        _check_online(name)
        retrieve(file.url, file.sha256, target)
    else:
        from_hub(name, lambda hub, offline: hub.hf_hub_download(
            str(entry.hub), file.path or file.name, revision=entry.revision,
            repo_type=entry.kind, local_files_only=offline))


def _get_folder(name: str, entry: Entry, folder: Path | None) -> None:
    own, mirror = published.store() / name, os.environ.get(MIRROR_VARIABLE)
    if folder is not None:
        source = folder / name
        if not source.is_dir():
            raise UserError(f"There is no folder {source}; put the files of {name} there.")
        with unfinished(own) as part:
            shutil.copytree(source, part, dirs_exist_ok=True)
    elif own.is_dir():
        return
    elif mirror:
        _get_listed(name, f"{mirror.rstrip('/')}/{name}", own)
    else:
        from_hub(name, lambda hub, offline: hub.snapshot_download(
            str(entry.hub), revision=entry.revision, repo_type=entry.kind,
            allow_patterns=list(entry.only) or None, local_files_only=offline))


@contextmanager
def unfinished(folder: Path) -> Iterator[Path]:
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
    with unfinished(own) as part:
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


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _unpack(name: str, entry: Entry) -> None:
    """The entry's files out of its archive, whatever folder they are in there."""
    assert entry.archive is not None
    folder = published.store() / name
    archive = folder / PurePosixPath(entry.archive.url).name
    retrieve(entry.archive.url, entry.archive.sha256, archive)
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
