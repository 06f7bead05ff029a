"""Who may write into a folder: one process alone, or several that each hold a part of it.

A lock ends with its process, however that ends.

    .lock            held by the process that holds the folder alone; by parts only for a moment
    .lock-PART       held by a part: a shard of a run, or a worker of the process that holds it
    .holder(-PART)   names the process that holds it
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import AcquireReturnProxy, FileLock, Timeout

from idbench.errors import UserError
from idbench.files import disk_errors

WAIT_SECONDS = 20.0
"""Workers of a killed process end within seconds; the next one waits for them this long."""


class InUse(UserError):
    """Another process holds a folder, or a part of it."""


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) until the block ends. A killed process holds nothing.
    Raises UserError: another process holds it, or a part of it; says which."""
    _make(folder)
    with take(folder):
        _clear_parts(folder)
        with _named(folder / ".holder"):
            yield


@contextmanager
def part(folder: Path, name: str) -> Iterator[None]:
    """Hold the part `name`, such as shard-I-of-N, of `folder` (made if missing) until the block
    ends. Raises UserError: another process holds the part, the whole folder, or a shard of another
    N."""
    _make(folder)
    with briefly(folder):
        for path in folder.glob(".lock-shard-*"):
            if path.name.rpartition("-")[2] != name.rpartition("-")[2] and not _is_free(path):
                raise _in_use(path)
        held = take(folder, name)
    with held, _named(folder / f".holder-{name}"):
        try:
            yield
        finally:
            # A part that is done leaves nothing; who waits for the lock sees that its file is gone.
            with suppress(OSError):
                (folder / f".lock-{name}").unlink()


def take(folder: Path, name: str = "") -> AcquireReturnProxy[FileLock]:
    """Hold the part `name`, or the folder itself, until the end of a `with` block or of the
    process. Raises UserError: another process holds it."""
    path = folder / (f".lock-{name}" if name else ".lock")
    guard = FileLock(path, is_singleton=True)
    with disk_errors(folder / "run.json"):
        try:
            return guard.acquire(blocking=False)
        except Timeout as error:
            raise _in_use(path) from error


@contextmanager
def briefly(folder: Path) -> Iterator[None]:
    """Change a folder that several parts share; waits while another part does so.
    Raises UserError: a process holds the whole folder."""
    holder = folder / ".holder"
    start = time.monotonic()
    while True:
        try:
            guard = take(folder)
            break
        except InUse:
            if holder.exists() and time.monotonic() - start > 1:
                raise
            time.sleep(0.05)
    with guard:
        holder.unlink(missing_ok=True)  # of a process that was killed
        yield


def held_parts(folder: Path) -> list[str]:
    """Names of the parts that some process holds."""
    return sorted(
        path.name.removeprefix(".lock-") for path in folder.glob(".lock-*") if not _is_free(path)
    )


def wait_for_parts(folder: Path, names: Sequence[str]) -> None:
    """Wait until no process holds the parts, and remove their locks."""
    end = time.monotonic() + WAIT_SECONDS
    for path in (folder / f".lock-{name}" for name in names):
        if path.exists():
            _is_free(path, end - time.monotonic())
        path.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    with disk_errors(folder / "run.json"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"The folder {folder} cannot be created ({error.strerror}); choose another with "
                "--out."
            ) from error


@contextmanager
def _named(holder: Path) -> Iterator[None]:
    """Say who holds it while the block runs."""
    try:
        with disk_errors(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)


def _clear_parts(folder: Path) -> None:
    """Remove what parts left; those of a killed process may take a moment to end."""
    end = time.monotonic() + WAIT_SECONDS
    for path in folder.glob(".lock-*"):
        worker = path.name.startswith(".lock-worker-")
        if not _is_free(path, end - time.monotonic() if worker else 0.0):
            raise _in_use(path)
        path.unlink(missing_ok=True)
        _holder(path).unlink(missing_ok=True)


def _is_free(path: Path, wait: float = 0.0) -> bool:
    """Whether no process holds a lock, or none does any more within `wait` seconds."""
    guard = FileLock(path)
    try:
        guard.acquire(timeout=max(wait, 0.0))
    except Timeout:
        return False
    guard.release()
    return True


def _holder(path: Path) -> Path:
    return path.with_name(path.name.replace(".lock", ".holder", 1))


def _in_use(path: Path) -> InUse:
    """The error where a process holds the lock `path`; names both."""
    try:
        who = _holder(path).read_text(encoding="utf-8") or "another process"
    except OSError:
        who = "another process"
    name = path.name.removeprefix(".lock").removeprefix("-")
    return InUse(
        f"The run folder {path.parent} is in use by {who}{f' ({name})' if name else ''}; wait for "
        "it to end, or choose another folder with --out."
    )
