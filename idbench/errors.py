"""Errors that a user can cause and fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

NO_MEMORY = (
    "out of memory", "can't allocate memory", "failed to allocate memory",
    "cannot allocate memory", "failed to map segment",
)
"""What PyTorch, onnxruntime and the system say where they raise no error of their own."""


class UserError(Exception):
    """What is wrong and how to fix it, in one sentence. The command line exits with 2."""


class FatalError(UserError):
    """What every further sample would meet too, so that it ends the run."""


@contextmanager
def explained(what: str, fix: str) -> Iterator[None]:
    """Turn whatever a library raises into the UserError "WHAT (its message); FIX.". `sys.exit` too:
    libraries do not document what damaged files do to them."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        reason = message(error)[:200] or type(error).__name__
        if is_out_of_memory(error) and "memory" not in fix:
            fix = "the memory is full: close other programs, or use a machine with more memory"
        raise UserError(f"{what} ({reason}); {fix}.") from error


def message(error: BaseException) -> str:
    """What an exception says, on one line that UTF-8 can encode; empty if it says nothing."""
    try:
        text = str(error)
    except Exception:  # an exception of another package, itself broken
        return ""
    return encodable(" ".join(text.split()))


def describe(error: BaseException) -> str:
    """An exception in one line, with its type unless it is a UserError."""
    text = message(error)
    if isinstance(error, UserError):
        return text
    return f"{type(error).__name__}: {text[:300]}" if text else type(error).__name__


def encodable(text: str) -> str:
    """`text` with what UTF-8 does not have written as \\udc80 and so on."""
    return text.encode("utf-8", "backslashreplace").decode()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a memory was full, of the GPU or of the processor."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in message(error).lower() for words in NO_MEMORY)
