"""Temporary files and folders: named after the process that writes them, so that others clean up.

A process that is killed leaves its temporary files behind. Their names state the machine, the
process and its start. A later process on the same machine sees that the owner is dead and removes
them; those of living processes, and of other machines, stay.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import shutil
import socket
from contextlib import suppress
from functools import cache

_COUNTER = itertools.count()
_CLEARED: set[str] = set()
_NAME = re.compile(
    r"\..*\.ib-(?P<machine>[0-9a-f]{8})-(?P<pid>[0-9a-f]+)-(?P<start>[0-9a-f]+)-[0-9a-f]+"
    r"\.part(\.[^.]*)?"
)


def temporary_name(name: str) -> str:
    """A name for the temporary file of `name`, with its suffix; unique to this process and call."""
    stem, suffix = os.path.splitext(name)
    pid = os.getpid()
    owner = f"ib-{_machine()}-{pid:x}-{_own_start(pid):x}-{next(_COUNTER):x}"
    return f".{stem[:40]}.{owner}.part{suffix}"


def is_temporary(name: str) -> bool:
    """Whether `temporary_name` made it."""
    return _NAME.fullmatch(name) is not None


def clear_once(folder: str) -> None:
    """As `clear`, at the first call for a folder: before the first file is written into it."""
    if folder not in _CLEARED:
        _CLEARED.add(folder)
        clear(folder)


def clear(folder: str, everyone: bool = False) -> None:
    """Remove temporary files and folders of dead processes from `folder`; `everyone`: also those of
    other machines, if the caller knows that nobody else writes here."""
    with suppress(OSError):
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if entry.name.startswith(".")]
        for entry in found:
            if (match := _NAME.fullmatch(entry.name)) and (everyone or _is_dead(match)):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    with suppress(OSError):
                        os.unlink(entry.path)


def _is_dead(owner: re.Match[str]) -> bool:
    """Whether the process that made a name has ended; one of another machine may still run."""
    if owner["machine"] != _machine():
        return False
    pid = int(owner["pid"], 16)
    return pid != os.getpid() and _start(pid) != int(owner["start"], 16)


@cache
def _machine() -> str:
    """This machine and, on Linux, this space of process numbers (a container has its own)."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return hashlib.sha256(f"{socket.gethostname()} {space}".encode()).hexdigest()[:8]


def _start(pid: int) -> int:
    """When a process started, in ticks: process numbers are used again. -1: it has ended."""
    with suppress(OSError, IndexError, ValueError):
        with open(f"/proc/{pid}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
        return -1 if fields[0] in (b"Z", b"X") else int(fields[19])
    if os.path.isdir("/proc/self"):
        return -1
    try:  # a system without /proc
        os.kill(pid, 0)
    except ProcessLookupError:
        return -1
    except OSError:
        pass
    return 0


_own_start = cache(_start)
