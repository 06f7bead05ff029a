"""Files that are complete or not there: atomic writes, hashes, and disk errors in a sentence."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from idbench.errors import UserError, message
from idbench.leftovers import clear_once, is_temporary, temporary_name

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_SAYS_FULL = re.compile(r"No space left|\d+ requested and \d+ written")
"""Of libraries that give words and no number; the second is NumPy's."""
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FILES = {errno.EMFILE, errno.ENFILE}
_DISK = {getattr(errno, name) for name in (
    "EIO", "ENXIO", "ENODEV", "EFBIG", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN",
    "EHOSTUNREACH", "EREMOTEIO", "ENOLINK",
) if hasattr(errno, name)}
"""Errors of a disk, or of a network folder whose server is gone."""


class DiskError(UserError):
    """The output disk cannot be used: every further file would meet the same."""


class DiskFull(DiskError):
    """The output disk is full."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn disk errors, also those inside libraries, into a sentence. Raises DiskFull; DiskError:
    the disk fails, or too many files are open; UserError: the folder may not be written."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # safetensors and PyTorch raise no OSError
        number = error.errno if isinstance(error, OSError) else None
        if number in _NO_SPACE or _SAYS_FULL.search(str(error)):
            raise DiskFull(
                f"The disk with {_lasting(path.parent)} is full; free some space and run the same "
                "command again: finished work is kept."
            ) from error
        if number in _NO_PERMISSION:
            raise UserError(
                f"{_lasting(path)} may not be written; choose another place or change its "
                "permissions."
            ) from error
        if number in _NO_FILES:
            raise DiskError(too_many_files()) from error
        if number in _DISK or "Input/output error" in str(error):
            told = (isinstance(error, OSError) and error.strerror) or message(error)[:100]
            raise DiskError(
                f"{_lasting(path)} cannot be written ({told}); check the disk or the "
                "network folder and run the same command again: finished work is kept."
            ) from error
        raise


def _lasting(path: Path) -> Path:
    """`path`, or the folder that holds the temporary folder it is in."""
    for outer in (path, *path.parents):
        if is_temporary(outer.name):
            return outer.parent
    return path


def too_many_files() -> str:
    """What to do when the system opens no further file."""
    return (
        "Too many files are open; raise the limit (`ulimit -n 1024`) and run the same command "
        "again."
    )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` (same suffix), renamed to it when the block succeeds, else
    removed; Ctrl-C leaves `path` untouched."""
    path = Path(path)
    with disk_errors(path):
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
    """A temporary folder beside `target` (missing or empty), renamed to it when the block succeeds,
    else removed."""
    target = Path(target)
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_once(str(target.parent))
        folder = target.parent / temporary_name(target.name)
        folder.mkdir()
        try:
            yield folder
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
    """Write `text` (UTF-8) atomically, without waiting for the disk: after a power loss the file
    may be empty, so only for what can be computed again."""
    with disk_errors(path):  # as `atomic_path`, in half the time: there are two a video
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
    """The JSON value in `path`. Raises UserError: when the file is missing or no JSON."""
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
    clear_once(folder or ".")
    name = os.path.join(folder, temporary_name(file))
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    try:
        return os.open(name, flags, 0o666), name
    except FileNotFoundError:
        os.makedirs(folder or ".", exist_ok=True)
        return os.open(name, flags, 0o666), name
