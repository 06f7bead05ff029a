"""Pools of processes that end with the process that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process
from typing import Any


def pool(
    workers: int, initializer: Callable[..., object] | None = None, *arguments: Any
) -> ProcessPoolExecutor:
    """`workers` new interpreters; each calls `initializer(*arguments)` first, and ends when its
    parent is gone, even by kill -9: a worker of concurrent.futures alone would wait forever."""
    return ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start,
        initargs=(initializer, arguments),
    )


def _start(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
