"""Where a training's numbers go: the log, and TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.training.log import Log


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
        """Start, or continue at `step`."""
        if self.accelerator.is_main_process:
            self.log.cut(step)
        flat = {
            key: value if isinstance(value, int | float | str) else json.dumps(value)
            for key, value in asdict(self.recipe).items()
        }
        self.accelerator.init_trackers(self.recipe.name, flat, tracker_arguments(step))

    def write(self, step: int, **values: Any) -> None:
        if self.accelerator.is_main_process:
            self.log.write(step, **values)
        self.accelerator.log(values, step=step)
