"""Reads every video that was not read before, in this process or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from idbench import progress
from idbench.models.concat_id.pairs import filter as rules
from idbench.models.concat_id.pairs.reader import Reader, ReaderSettings
from idbench.models.concat_id.pairs.store import Row, Store
from idbench.models.concat_id.pairs.tracking import VideoRecord
from idbench.pools import pool
from idbench.video import UnreadableVideo

Make = Callable[[ReaderSettings], Reader]
Result = tuple[str | None, VideoRecord | None, np.ndarray | None]

_reader: Reader | None = None
"""Of a worker process."""


def read_videos(
    store: Store, folder: Path, out: Path, reader: Reader, make: Make, settings: ReaderSettings,
    workers: int, quiet: bool = False,
) -> int:
    """Read what is not yet in the store; returns the number of videos read. The result for a video
    depends on that video alone. Raises UserError: a worker process died."""
    terms = settings.pairs.human_terms
    total = sum(1 for _ in _unread(store, terms))
    workers = min(workers, max(total // 4, 1))
    if workers == 1:
        one_thread()
        results: Iterator[tuple[Row, Result]] = (
            (row, _read(reader, folder, row.name, out)) for row in _unread(store, terms)
        )
    else:
        results = _in_processes(_unread(store, terms), folder, out, make, settings, workers)
    with progress.steps("read videos", total, quiet) as step:
        for row, result in results:
            store.put(row, *result)
            step(row.name)
    return total


def one_thread() -> None:
    """Compute with one thread, so that sums do not depend on the number of threads."""
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def _unread(store: Store, terms: str) -> Iterator[Row]:
    for row in store.rows(vectors=False):
        if not row.finished and rules.has_human_term(row.caption or "", terms):
            yield row


def _read(reader: Reader, folder: Path, name: str, out: Path) -> Result:
    try:
        return (None, *reader.read(folder / name, name, out))
    except UnreadableVideo as error:
        return str(error), None, None


def _in_processes(
    rows: Iterator[Row], folder: Path, out: Path, make: Make, settings: ReaderSettings,
    workers: int,
) -> Iterator[tuple[Row, Result]]:
    """Results as they come, with at most four videos a worker in flight."""
    running: dict[Future[Result], Row] = {}
    with pool(workers, _start, make, settings) as processes:
        while True:
            for row in islice(rows, 4 * workers - len(running)):
                running[processes.submit(_work, folder, row.name, out)] = row
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _start(make: Make, settings: ReaderSettings) -> None:
    """Start a worker."""
    global _reader
    one_thread()
    _reader = make(settings)


def _work(folder: Path, name: str, out: Path) -> Result:
    assert _reader is not None
    return _read(_reader, folder, name, out)
