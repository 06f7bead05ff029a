"""Reading ahead in a thread: order, failures, bounds, and its end."""

from __future__ import annotations

import threading
import time

import pytest

from idbench.ahead import Ahead


def wait_until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def running() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "read ahead"]


def test_everything_comes_in_order_and_failures_in_their_place() -> None:
    def read(item: int) -> int:
        if item % 3 == 1:
            raise ValueError(f"bad {item}")
        return item * 10

    found = [(i, str(r)) for i, r in Ahead(range(8), read, 3)]
    assert found == [(i, f"bad {i}" if i % 3 == 1 else str(i * 10)) for i in range(8)]
    assert not running()
    assert list(Ahead([], read, 3)) == []


@pytest.mark.parametrize(
    ("limit", "most", "size", "ahead"), [(4, 0, 1, 4), (4, 3, 1, 3), (4, 3, 2, 2), (4, 3, 100, 1)]
)
def test_no_more_is_read_than_the_bounds_allow(
    limit: int, most: int, size: int, ahead: int
) -> None:
    read: list[int] = []
    results = iter(Ahead(range(20), lambda i: read.append(i) or i, limit, lambda _: size, most))
    for taken in range(1, 15):
        next(results)
        wait_until(lambda taken=taken: len(read) == taken + ahead)
        time.sleep(0.01)
        assert len(read) == taken + ahead
    results.close()
    assert not running() and len(read) < 20


def test_an_exit_in_the_thread_ends_the_iteration_and_does_not_hang() -> None:
    def read(item: int) -> int:
        if item == 2:
            raise SystemExit("refused")
        return item

    seen = []
    with pytest.raises(SystemExit, match="refused"):
        for item, _ in Ahead(range(9), read, 3):
            seen.append(item)
    assert seen == [0, 1]
    wait_until(lambda: not running())


def test_leaving_early_ends_the_thread() -> None:
    with pytest.raises(KeyboardInterrupt):
        for item, _ in Ahead(range(1000), lambda i: i, 4):
            if item == 3:
                raise KeyboardInterrupt
    wait_until(lambda: not running())
