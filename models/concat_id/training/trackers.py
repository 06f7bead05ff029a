"""Where a training's numbers go: a JSON lines file always, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process

from idbench.files import saying_disk_full, write_text
from idbench.models.concat_id.training.recipe import StageRecipe
from idbench.output import note


class JsonLines(GeneralTracker):
    """One JSON object a line, `step` first.

    Each is said on standard error as well, in words.
    """

    name = "jsonl"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self, path: Path, steps: int) -> None:
        super().__init__()
        self.path, self.steps = path, steps

    @on_main_process
    def cut(self, step: int) -> None:
        """Remove the rows after `step`, which a training from there writes again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except ValueError:  # the line that was being written at a kill
                continue
        write_text(self.path, "".join(kept))

    @property
    def tracker(self) -> Path:
        return self.path

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Nothing: the recipe lies in every checkpoint and in `export`."""

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        line = json.dumps({"step": step, **values})
        with saying_disk_full(self.path), open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        shown = (f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else
                 f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        note(f"step {step} of {self.steps}: {', '.join(shown)}")


def tracker_arguments(step: int) -> dict[str, dict[str, Any]]:
    """accelerate's trackers to use, with their arguments for a session that starts at `step`."""
    if importlib.util.find_spec("tensorboard") is None:
        return {}
    return {"tensorboard": {"purge_step": step + 1}}


def tracker_settings(recipe: StageRecipe) -> dict[str, Any]:
    """The recipe as flat values, what trackers take."""
    return {
        key: value if isinstance(value, int | float | str) else json.dumps(value)
        for key, value in asdict(recipe).items()
    }
