"""Reads items ahead in a thread, with a bound on the results that wait."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from threading import Condition, Thread
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Ahead(Generic[T, R]):
    """`read(item)` of each item, in order, read ahead in a thread.

    Iterating gives (item, result), or (item, exception) if `read` raised an `Exception`; others,
    such as SystemExit, are raised. At most `limit` results wait, and none is read while those
    waiting are larger than `most` (by `size`). Leaving the iteration stops the thread after its
    current item."""

    def __init__(
        self, items: Sequence[T], read: Callable[[T], R], limit: int,
        size: Callable[[R], int] = lambda result: 0, most: int = 0,
    ) -> None:
        self._items, self._read, self._size = items, read, size
        self._limit, self._most = limit, most
        self._ready: deque[tuple[T, R | BaseException, int]] = deque()
        self._waiting = 0
        self._stop = False
        self._changed = Condition()

    def __iter__(self) -> Generator[tuple[T, R | Exception], None, None]:
        thread = Thread(target=self._work, name="read ahead", daemon=True)
        thread.start()
        try:
            for _ in self._items:
                with self._changed:
                    self._changed.wait_for(lambda: self._ready)
                    item, result, size = self._ready.popleft()
                    self._waiting -= size
                    self._changed.notify_all()
                if isinstance(result, BaseException) and not isinstance(result, Exception):
                    raise result
                yield item, result
                del item, result  # free it while waiting for the next one
        finally:
            with self._changed:
                self._stop = True
                self._changed.notify_all()
            thread.join()

    def _work(self) -> None:
        for item in self._items:
            with self._changed:
                self._changed.wait_for(self._room)
                if self._stop:
                    return
            result: R | BaseException
            size = 0
            try:
                result = self._read(item)
                size = self._size(result)
            except BaseException as error:  # raised where it is awaited, which must not hang
                result = error
            with self._changed:
                self._ready.append((item, result, size))
                self._waiting += size
                self._changed.notify_all()
            del result

    def _room(self) -> bool:
        if self._stop or not self._ready:
            return True
        return len(self._ready) < self._limit and (not self._most or self._waiting < self._most)
