"""Downloads of published weights: resumed after a cut, checked by sha256, from a mirror if asked.

Files of the Hugging Face hub come through huggingface_hub and lie in its cache; files at plain
addresses come through pooch. A mirror has a file as ADDRESS/ENTRY/FILE, and lists the files of a
folder in ADDRESS/ENTRY/SHA256SUMS, as `sha256sum` prints them.
"""

from __future__ import annotations

import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from idbench import published_weights as published
from idbench.errors import UserError
from idbench.files import atomic_path
from idbench.licences import accepted_names, agree
from idbench.output import note
from idbench.progress import transfer
from idbench.published_weights import CatalogueFile, Entry

MIRROR_VARIABLE = "IDBENCH_MIRROR"
CONNECT_SECONDS, STALL_SECONDS = 10.0, 30.0
"""Without an answer, or without a byte, for so long, a download is tried again."""
TRIES = 5
"""Tries in a row that bring nothing, before a download is given up."""
CHUNK = 1 << 16
AGAIN = "check the network and run the same command again: it continues where it stopped"
UNREACHABLE = "cannot be reached"

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
        _retrieve(f"{mirror.rstrip('/')}/{name}/{file.name}", file.sha256, target)
    elif entry.archive:
        _check_online(name)
        _unpack(name, entry)
    elif file.url:
        _check_online(name)
        _retrieve(file.url, file.sha256, target)
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
        _retrieve(f"{address}/{SUMS}", None, listing)
        for line in listing.read_text(encoding="utf-8").splitlines():
            sha256, _, file = line.partition(" ")
            inside = PurePosixPath(file.lstrip(" *"))
            if len(sha256) != 64 or inside.is_absolute() or ".." in inside.parts:
                raise UserError(
                    f"{address}/{SUMS} is no list of files; write it with "
                    f"`cd {name} && find . -type f ! -name {SUMS} -exec sha256sum {{}} + "
                    f"> {SUMS}`."
                )
            _retrieve(f"{address}/{inside}", sha256, part / inside)
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
    _retrieve(entry.archive.url, entry.archive.sha256, archive)
    with zipfile.ZipFile(archive) as packed:
        members = {PurePosixPath(info.filename).name: info for info in packed.infolist()}
        for file in entry.files:
            if file.name not in members:
                raise UserError(f"{archive} has no {file.name}; remove it and get it again.")
            with (atomic_path(folder / file.name) as temporary,
                  packed.open(members[file.name]) as stream, open(temporary, "wb") as written):
                shutil.copyfileobj(stream, written, CHUNK)
    archive.unlink()


# -- the two libraries


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
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    offline = bool(huggingface_hub.constants.HF_HUB_OFFLINE)
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
        reason = reason.removeprefix("Got: ")
        raise UserError(f"{name} could not be downloaded ({reason[:160]}); {AGAIN}.") from error
    except Exception as error:  # the network errors of huggingface_hub's HTTP library
        if "http" not in type(error).__module__:
            raise
        raise UserError(
            f"{name} could not be downloaded ({type(error).__name__}); {AGAIN}.") from error


def _retrieve(url: str, sha256: str | None, target: Path) -> None:
    """A file at a plain address, resumed and checked. Raises UserError: it cannot be downloaded, or
    has another sha256."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        pooch.retrieve(
            url, f"sha256:{sha256}" if sha256 else None, target.name, target.parent,
            downloader=lambda url, output, _: _resume(url, part, Path(output)),
        )
    except ValueError as error:
        if "hash" not in str(error):
            raise
        raise UserError(
            f"{url} does not have the published sha256: it is damaged or another file; get it "
            "from another source."
        ) from error


def _resume(url: str, part: Path, output: Path) -> None:
    """Download to `part`, continued where an earlier try stopped, then move it to `output`."""
    import requests

    trouble, failures = "", 0
    while failures < TRIES:
        before = _size(part)
        try:
            _continue(url, part)
            os.replace(part, output)
            return
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if status < 500:
                raise UserError(f"{url} answers {status}; check the address.") from error
            trouble = f"the server answers {status}"
        except (requests.ConnectionError, requests.Timeout) as error:
            trouble = _trouble(error)
        except requests.RequestException as error:
            trouble = type(error).__name__
        failures = 0 if _size(part) > before else failures + 1
    done = _size(part)
    if trouble == UNREACHABLE and not done:
        raise UserError(
            f"{url} {trouble}; check the network, or bring the files from another machine "
            "(--from FOLDER)."
        )
    raise UserError(
        f"The download of {url} stopped after {done / 1e6:.1f} MB ({trouble}); {AGAIN}.")


def _trouble(error: Exception) -> str:
    """What stopped a download, in words."""
    import requests

    text = str(error)
    never = ("Failed to resolve", "Failed to establish", "NewConnectionError", "Name or service")
    if isinstance(error, requests.ConnectTimeout) or any(word in text for word in never):
        return UNREACHABLE
    return f"no byte for {STALL_SECONDS:.0f} s" if "timed out" in text else "cut"


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _continue(url: str, part: Path) -> None:
    import requests

    done = _size(part)
    asked = {"Range": f"bytes={done}-"} if done else {}
    with requests.get(
        url, stream=True, headers={"Accept-Encoding": "identity", **asked},
        timeout=(CONNECT_SECONDS, STALL_SECONDS),
    ) as answer:
        if answer.status_code == 416:  # nothing is left, or the file is another one now
            complete = answer.headers.get("Content-Range") == f"bytes */{done}"
            if complete:
                return
            part.unlink()
            raise requests.ConnectionError("the file has changed")
        answer.raise_for_status()
        resumed = answer.status_code == 206
        left = int(answer.headers.get("Content-Length") or 0)
        total = left + done if resumed else left
        name = part.name.removesuffix(".part")
        with open(part, "ab" if resumed else "wb") as stream, transfer(name, total) as advance:
            advance(done if resumed else 0)
            for chunk in answer.iter_content(CHUNK):
                stream.write(chunk)
                advance(len(chunk))
