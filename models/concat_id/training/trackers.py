"""Where a training's numbers go: the log, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.training.log import Log
from idbench.training.save import saying_full


def tracker_arguments(step: int) -> dict[str, dict[str, Any]]:
    """accelerate's trackers to use, with their arguments for a session that starts at `step`."""
    if importlib.util.find_spec("tensorboard") is None:
        return {}
    return {"tensorboard": {"purge_step": step + 1}}


class Trackers:
    """Writes rows to the log and to accelerate's trackers, on the main process alone."""

    def __init__(self, accelerator: Accelerator, recipe: StageRecipe, path: Path) -> None:
        self.accelerator, self.recipe = accelerator, recipe
        self.log = Log(path, recipe.steps)

    def start(self, step: int) -> None:
        """Start, or continue at `step`. Raises DiskFull, as `write` does."""
        if self.accelerator.is_main_process:
            self.log.cut(step)
        flat = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in asdict(self.recipe).items()
        }
        _silence_tensorboard()
        with saying_full(self.log.path):
            self.accelerator.init_trackers(self.recipe.name, flat, tracker_arguments(step))

    def write(self, step: int, **values: Any) -> None:
        if self.accelerator.is_main_process:
            self.log.write(step, **values)
        with saying_full(self.log.path):
            self.accelerator.log(values, step=step)


def _silence_tensorboard() -> None:
    """Print no traceback of the thread that writes TensorBoard's files: what it could not write is
    raised again at the next write."""
    before = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):
            before(failure)

    threading.excepthook = hook
