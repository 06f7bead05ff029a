"""Where the time of a run went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

PHASES = ("load", "generate", "encode", "decode", "detect", "embed", "score")
"""The phases of a run, in the order in which tables show them."""


class Timings:
    """Seconds spent in each phase. An inner phase does not count in the outer one."""

    def __init__(self, seconds: Mapping[str, float] | None = None) -> None:
        self._seconds: dict[str, float] = dict(seconds or {})
        self._open: list[float] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        start = time.perf_counter()
        self._open.append(0.0)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            inner = self._open.pop()
            self.add(name, elapsed - inner)
            if self._open:
                self._open[-1] += elapsed

    def add(self, name: str, seconds: float) -> None:
        """Add `seconds` to the phase `name`."""
        self._seconds[name] = self._seconds.get(name, 0.0) + max(seconds, 0.0)

    def include(self, seconds: Mapping[str, float]) -> None:
        """Add the times of an earlier start of the same run."""
        for name, value in seconds.items():
            self.add(name, value)

    def rebase(self, before: Mapping[str, float], now: Mapping[str, float]) -> None:
        """Count what was added since `before` on top of `now`, which others changed meanwhile."""
        own = {n: seconds - before.get(n, 0.0) for n, seconds in self._seconds.items()}
        self._seconds = dict(now)
        self.include(own)

    def split(self, outer: str, parts: Mapping[str, float]) -> None:
        """Move seconds already counted in `outer` to `parts`, as a scorer's own account says."""
        for name, seconds in parts.items():
            self.add(name, seconds)
        self._seconds[outer] = max(self._seconds.get(outer, 0.0) - sum(parts.values()), 0.0)

    def as_dict(self) -> dict[str, float]:
        """Seconds by phase, known phases first, rounded to milliseconds."""
        order = [*PHASES, *sorted(set(self._seconds) - set(PHASES))]
        return {n: round(self._seconds[n], 3) for n in order if n in self._seconds}
