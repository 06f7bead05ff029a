"""Pools of processes that end with the process that started them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import Any

from idbench.errors import UserError


@contextmanager
def pool(
    workers: int, initializer: Callable[..., object] | None = None, *arguments: Any
) -> Iterator[ProcessPoolExecutor]:
    """`workers` new interpreters; each calls `initializer(*arguments)` first, and ends when its
    parent is gone, even by kill -9: a worker of concurrent.futures alone would wait forever. On
    an error, what has not begun is dropped, and on Ctrl-C what runs too. Raises UserError: a worker
    died."""
    with ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=_start,
        initargs=(initializer, arguments),
    ) as processes:
        try:
            yield processes
        except BrokenProcessPool as error:
            raise UserError(
                "A worker process died, often because of low memory; run the same command again "
                "with fewer workers: finished work is kept."
            ) from error
        except BaseException as error:
            running = list((processes._processes or {}).values())
            interrupted = isinstance(error, KeyboardInterrupt)
            processes.shutdown(wait=not interrupted, cancel_futures=True)
            if interrupted:
                for process in running:
                    process.terminate()  # a job may take minutes
            raise


def _start(initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    if initializer is not None:
        initializer(*arguments)


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
