"""State of a training: atomic checkpoints, averaged weights, a log, a limit of time."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """`torch.save` under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    torch.save(state, temporary)
    os.replace(temporary, path)


def averaging_weight(decay: float, step: int) -> float:
    """Share of the parameters of `step` in a moving average: 1 - min(decay, (1 + s) / (10 + s)).

    The warm-up keeps a short training from being dominated by its initial weights.
    """
    return 1.0 - min(decay, (1 + step) / (10 + step))


class Average:
    """Exponential moving average of parameters, warmed up from the first step."""

    def __init__(self, parameters: Iterable[torch.Tensor], decay: float) -> None:
        self.decay = decay
        self.live = [p for p in parameters]
        self.values = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        weight = averaging_weight(self.decay, step)
        torch._foreach_lerp_(self.values, [p.detach() for p in self.live], weight)

    @torch.no_grad()
    def restart(self) -> None:
        """Go on from the averaged weights: they become the live ones too."""
        for value, parameter in zip(self.values, self.live, strict=True):
            parameter.copy_(value)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange live and averaged weights; a second call exchanges them back."""
        for value, parameter in zip(self.values, self.live, strict=True):
            held = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(held)


class Log:
    """Appends one JSON object a line; a resumed training goes on in the same file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, **row: Any) -> None:
        rounded = {k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()}
        line = json.dumps(rounded)
        with open(self.path, "a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def truncate(self, step: int) -> None:
        """Drop rows after `step`: they are of a run that died after its last checkpoint."""
        if not self.path.exists():
            return
        rows = [json.loads(line) for line in self.path.read_text().splitlines() if line.strip()]
        kept = [row for row in rows if row.get("step", 0) <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self.path, text.encode())


class Clock:
    """Says when to stop (minutes used up, or SIGTERM/SIGINT) and when to write a checkpoint.

    `used` counts the seconds of training over all sessions; `minutes` limits that sum.
    """

    def __init__(self, minutes: float | None, every: float, used: float = 0.0) -> None:
        self.minutes = minutes
        self.every = every
        self.before = used
        self.start = time.monotonic()
        self.last = self.start
        self.asked_to_stop = False
        for name in (signal.SIGTERM, signal.SIGINT):
            try:
                signal.signal(name, self._stop)
            except ValueError:  # not in the main thread: the caller handles signals
                pass

    def _stop(self, *_: object) -> None:
        self.asked_to_stop = True

    @property
    def used(self) -> float:
        return self.before + time.monotonic() - self.start

    def over(self) -> bool:
        out_of_time = self.minutes is not None and self.used >= self.minutes * 60
        return self.asked_to_stop or out_of_time

    def checkpoint_due(self) -> bool:
        if time.monotonic() - self.last < self.every * 60:
            return False
        self.last = time.monotonic()
        return True

    def progress(self) -> float:
        """Share of the allowed time that is used up, 0 to 1 (0 without a limit)."""
        return 0.0 if self.minutes is None else min(1.0, self.used / (self.minutes * 60))
