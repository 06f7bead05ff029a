"""The log of a training: one JSON object per line, and the same in words on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from idbench.files import disk_errors, write_text
from idbench.output import note


class Log:
    """Appends rows to `path`, which a resumed training continues; `steps` of the training are
    shown."""

    def __init__(self, path: Path, steps: int) -> None:
        self.path, self.steps = Path(path), steps

    def write(self, step: int, **values: Any) -> None:
        line = json.dumps({"step": step, **values}) + "\n"
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(line)
        shown = (f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else
                 f"{name.replace('_', ' ')} {value}" for name, value in values.items())
        note(f"step {step} of {self.steps}: {', '.join(shown)}")

    def cut(self, step: int) -> None:
        """Remove the rows after `step`, which a training resumed there writes again."""
        if not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):  # cut off when the training was killed
                continue
        write_text(self.path, "".join(kept))
