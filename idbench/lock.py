"""One process at a time in a run folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from idbench.errors import UserError
from idbench.files import saying_disk_full


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold `folder` (made if missing) until the block ends. A killed process holds nothing.

    Raises:
        UserError: another process holds it; says which.
    """
    with saying_disk_full(folder / "run.json"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
            raise UserError(
                f"The folder {folder} cannot be created ({error.strerror}); choose another with "
                "--out."
            ) from error
        guard = FileLock(folder / ".lock")
        holder = folder / ".holder"
        try:
            guard.acquire(blocking=False)
        except Timeout as error:
            raise UserError(
                f"The run folder {folder} is in use by {_read(holder)}; wait for it to end, or "
                "choose another folder with --out."
            ) from error
    try:
        with saying_disk_full(holder):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        guard.release()


def _read(holder: Path) -> str:
    try:
        return holder.read_text(encoding="utf-8") or "another process"
    except OSError:
        return "another process"
