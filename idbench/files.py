"""Files that are complete or not there: atomic writes, hashes, and a full disk said plainly."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from idbench.errors import UserError

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_PROCESS = secrets.token_hex(4)
_COUNTER = itertools.count()


class DiskFull(UserError):
    """The output disk is full."""


@contextmanager
def saying_disk_full(path: Path) -> Iterator[None]:
    """Turn the system's "no space" (also inside libraries) into a `DiskFull`.

    Raises:
        DiskFull: naming the folder of `path`.
        UserError: when the folder may not be written.
    """
    try:
        yield
    except OSError as error:
        # Some libraries give the words and no number.
        if error.errno in _NO_SPACE or "No space left" in str(error):
            raise DiskFull(
                f"The disk with {path.parent} is full; free some space and run the same command "
                "again: finished videos are kept."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise UserError(
                f"{path} may not be written; choose another place or change its permissions."
            ) from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` (same suffix), renamed to `path` when the block succeeds.

    On any error, Ctrl-C included, the temporary file is removed and `path` is untouched.
    """
    path = Path(path)
    with saying_disk_full(path):
        handle, name = _temporary(path)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, renamed to it when the block succeeds, else removed."""
    with saying_disk_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(".part", f".{target.name}.", target.parent))
        try:
            yield folder
            folder.chmod(0o755)
            folder.replace(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_derived(path: Path, text: str) -> None:
    """Write `text` (UTF-8) atomically but without waiting for the disk.

    For what can be computed again: after a loss of power the file may be missing or empty, and
    whoever reads it treats a damaged one as missing.
    """
    with saying_disk_full(path):  # as `atomic_path`, in half the time: there are two a video
        handle, temporary = _temporary(path)
        try:
            with open(handle, "wb") as stream:
                stream.write(text.encode("utf-8"))
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`.

    Raises:
        UserError: when the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; check the path.") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}); restore it or remove its folder."
        ) from error


def real(path: Path) -> Path:
    """`path` as an absolute one without symbolic links; a loop of them raises only when opened."""
    return Path(os.path.realpath(path))


def sha256_file(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_once(path: Path) -> str:
    """As `sha256_file`, computed once a process for each state of the file (time and size)."""
    state = path.stat()
    return _sha256(real(path), state.st_mtime_ns, state.st_size)


@cache
def _sha256(path: Path, changed_ns: int, size: int) -> str:
    return sha256_file(path)


def sha256_json(value: Any) -> str:
    """Hexadecimal sha256 of `value` as canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _temporary(path: Path) -> tuple[int, str]:
    """A new empty file next to `path`, whose folder is made: its descriptor, open, and its name."""
    folder, file = os.path.split(path)
    stem, suffix = os.path.splitext(file)
    # No other process, and no other thread of this one, makes the same name.
    part = f".{stem}.{_PROCESS}{os.getpid():x}-{next(_COUNTER):x}.part{suffix}"
    name = os.path.join(folder, part)
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(name, flags, 0o666), name
    except FileNotFoundError:
        os.makedirs(folder or ".", exist_ok=True)
        return os.open(name, flags, 0o666), name
