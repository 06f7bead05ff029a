"""Files that are complete or not there: atomic writes, hashes, disk errors in a sentence, and no
file replaced that the same kind of command did not write."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from idbench.errors import FatalError, UserError, message
from idbench.leftovers import clear_once, is_temporary, temporary_name

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_SAYS_FULL = re.compile(r"No space left|\d+ requested and \d+ written")
"""Of libraries that give words and no number; the second is NumPy's."""
_NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}
_NO_FILES = {errno.EMFILE, errno.ENFILE}
TOO_MANY_FILES = (
    "Too many files are open; raise the limit (`ulimit -n 1024`) and run the same command again.")
_DISK = {getattr(errno, name) for name in (
    "EIO", "ENXIO", "ENODEV", "EFBIG", "ESTALE", "ENOTCONN", "ETIMEDOUT", "EHOSTDOWN",
    "EHOSTUNREACH", "EREMOTEIO", "ENOLINK",
) if hasattr(errno, name)}
"""Errors of a disk, or of a network folder whose server is gone."""
_END = 65_536
"""Bytes looked at from each end of an existing file."""

KINDS = {
    "run": rb'"identity": ',
    "report": rb"content=\"idbench report\"|media-src data:( file: 'self')?; style-src",
    "leaderboard": rb'content="idbench leaderboard"',
    "leaderboard's data": rb'"ranked_by": ',
    "reference": rb'"kind": "idbench reference"',
    "embeddings": rb"^PK\x03\x04[\s\S]{26}bundle\.json",
    "submission": rb'"kind": "idbench submission"',
    "JUnit file": rb'<testsuite name="idbench check"',
    "Markdown summary": rb"^### idbench: ",
    "figure": rb"idbench figure",
    "study page": rb'content="idbench study"|<title>Comparing videos</title>',
    "summary of pairs": rb'"lowest_cosine_searched": |"different_references": ',
    "page of pairs": rb"<title>idbench: training pairs</title>",
    "store of videos": rb"fingerprint TEXT, problem TEXT",
    "pairs": rb"references[\s\S]*candidates|other_count_share",
    "page of tables": rb"content=\"idbench paper\"|<title>The paper's tables on avatars</title>",
    "measurement of levels": rb'"people": \d+,\s+"weights": |idbench levels',
    "validation": rb'content="idbench validation"|"prefers_true_prompt": ',
    "embedded pictures": rb"^PK\x03\x04[\s\S]{26}embeddings\.npy",
}
"""Kind of output -> a pattern that every file of the kind holds near its beginning or end."""


class DiskError(FatalError):
    """The output disk cannot be used."""


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
            raise DiskError(TOO_MANY_FILES) from error
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


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` (same suffix), renamed to it when the block succeeds, else
    removed; Ctrl-C leaves `path` untouched."""
    with _replacing(Path(path)) as (handle, temporary):
        os.close(handle)
        yield Path(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())


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


def check_output(path: Path, kind: str) -> None:
    """Raise UserError unless `path` is missing, empty, or a file of `kind`, a key of `KINDS`."""
    with _missing_or_usable(path):
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a folder, a device, a pipe
            raise UserError(f"{path} is not a file that can be replaced; name another one.")
        with open(path, "rb") as stream:
            data = stream.read(_END)
            if state.st_size > _END:
                stream.seek(max(_END, state.st_size - _END))
                data += stream.read()
        if data and not re.search(KINDS[kind], data):
            raise UserError(
                f"{path} exists and is not a {kind} of idbench; name another file, or remove it."
            )


def check_new_folder(path: Path, known_by: Sequence[str] = ()) -> None:
    """Raise UserError unless `path` is missing, an empty folder, or one that the same command wrote
    before, which has a file that matches one of the patterns `known_by`."""
    with _missing_or_usable(path):
        filled = not stat.S_ISDIR(path.stat().st_mode) or any(path.iterdir())
        if filled and not any(any(path.glob(pattern)) for pattern in known_by):
            raise UserError(f"{path} already exists; name a new or empty folder, or remove it.")


@contextmanager
def _missing_or_usable(path: Path) -> Iterator[None]:
    """Ends the block where `path` is missing. Raises UserError: it cannot be written."""
    try:
        yield
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        shown = f"{str(path)[:200]}..." if len(str(path)) > 200 else path
        if isinstance(error, NotADirectoryError):
            file = next(parent for parent in path.parents if parent.exists())
            raise UserError(
                f"{shown} cannot be written: {file} is a file, not a folder; name another path."
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{shown} cannot be written ({reason}); name another path.") from error


def write_bytes(path: Path, data: bytes, wait: bool = True) -> None:
    """Write `data` to `path` atomically. Without `wait` for the disk, the file may be empty after a
    power loss: only for what can be computed again."""
    with _replacing(Path(path)) as (handle, _), open(handle, "wb") as stream:
        stream.write(data)
        stream.flush()
        if wait:
            os.fsync(handle)


def write_text(path: Path, text: str, wait: bool = True) -> None:
    """Write `text` (UTF-8) to `path`, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"), wait)


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


@contextmanager
def _replacing(path: Path) -> Iterator[tuple[int, str]]:
    """A new empty file beside `path`, whose folder is made: its descriptor, open, and its name. It
    takes the place of `path` if the block succeeds, and is removed otherwise."""
    folder, file = os.path.split(path)
    with disk_errors(path):
        clear_once(folder or ".")
        temporary = os.path.join(folder, temporary_name(file))
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            handle = os.open(temporary, flags, 0o666)
        except FileNotFoundError:
            os.makedirs(folder or ".", exist_ok=True)
            handle = os.open(temporary, flags, 0o666)
        try:
            yield handle, temporary
            os.replace(temporary, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
