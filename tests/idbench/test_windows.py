"""Videos read ahead in a thread, a window at a time: order, failures, bounds, and its end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from idbench import video_scorer
from idbench.timings import Timings
from idbench.video import Clip

Read = Callable[[int], int]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_scorer, "WINDOW", 3)
    monkeypatch.setattr(video_scorer, "sha256_file", lambda path: "-")


def windows(count: int, read: Read) -> Any:
    """Windows of `count` records; `read` gives the bytes of the video of each number."""
    def open(path: Path, digest: str) -> Clip:
        return Clip(1, 8.0, {0: np.zeros((read(int(path.name)), 1, 1), np.uint8)})

    run: Any = SimpleNamespace(timings=Timings())
    scorer: Any = SimpleNamespace(open=open)
    records: Any = [SimpleNamespace(video=Path(str(i)), video_sha256="-") for i in range(count)]
    return video_scorer._windows(run, records, scorer)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def running() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("read ahead")]


def test_everything_comes_in_order_and_failures_in_their_place() -> None:
    def read(item: int) -> int:
        if item % 3 == 1:
            raise ValueError(f"bad {item}")
        return item * 10

    found = [[(int(record.video.name), opened.bytes if isinstance(opened, Clip) else str(opened))
              for record, opened in window] for window in windows(8, read)]
    assert [item for window in found for item in window] == [
        (i, f"bad {i}" if i % 3 == 1 else i * 10) for i in range(8)]
    assert [len(window) for window in found] == [3, 3, 2]
    assert not running()
    assert list(windows(0, read)) == []


@pytest.mark.parametrize(("most", "size", "each"), [
    (10**9, 1, 3), (3, 1, 3), (3, 2, 2), (3, 100, 1),
])
def test_no_more_is_read_than_the_bounds_allow(
    monkeypatch: pytest.MonkeyPatch, most: int, size: int, each: int
) -> None:
    """A window, and one ahead of it."""
    monkeypatch.setattr(video_scorer, "WINDOW_BYTES", most)
    read: list[int] = []
    found = windows(40, lambda i: read.append(i) or size)
    for taken in range(1, 10):
        assert len(next(found)) == each
        wait_until(lambda taken=taken: len(read) == (taken + 1) * each)
        time.sleep(0.01)
        assert len(read) == (taken + 1) * each
    found.close()
    assert not running() and len(read) < 40


def test_an_exit_in_the_thread_ends_the_iteration_and_does_not_hang() -> None:
    def read(item: int) -> int:
        if item == 4:
            raise SystemExit("refused")
        return item

    seen = []
    with pytest.raises(SystemExit, match="refused"):
        for window in windows(9, read):
            seen.append(len(window))
    assert seen == [3]
    wait_until(lambda: not running())


def test_leaving_early_ends_the_thread_after_the_video_that_it_reads() -> None:
    read: list[int] = []

    def slow(item: int) -> int:
        read.append(item)
        time.sleep(0.05)
        return item

    with pytest.raises(KeyboardInterrupt):
        for _ in windows(1000, slow):
            raise KeyboardInterrupt
    wait_until(lambda: not running())
    assert len(read) <= 3 + 2
