"""Steps per second of the embedded stages: images of `base` and `single`, and clips.

    idbench train aligned_data && idbench train aligned_latents
    python benchmarks/embedded_steps.py .training --steps 40

A few rendered and encoded shards are enough. The stages continue from their own embedded
weights, and none are written.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from idbench.models.concat_id.training import loop
from idbench.models.concat_id.training.recipe import read_stage
from idbench.recipes import load_recipe

IMAGES = {"image_one": 0.5, "image_two": 0.5}
CLIPS = {"clip_one": 0.5, "clip_two": 0.5}
STAGES = {"base": ("base", IMAGES), "single": ("single", IMAGES), "clips": ("single", CLIPS)}


class Measured(loop.Session):
    """A session that keeps what it trained to itself."""

    def export(self, measured: Any) -> None:
        pass

    def checkpoint(self, progress: Any) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("home", type=Path, help="folder with aligned_data and aligned_latents")
    parser.add_argument("--steps", type=int, default=40)
    options = parser.parse_args()
    for name, (stage, groups) in STAGES.items():
        content = load_recipe(stage)[1]
        recipe = read_stage({
            **content, "init": f"embedded:{content['entry']}", "groups": groups, "phases": [],
            "steps": options.steps, "log_every": 1, "validate_every": 0,
        })
        samples = loop.open_samples(recipe, options.home / "benchmark")
        with tempfile.TemporaryDirectory() as folder:
            Measured(recipe, samples, Path(folder)).run()
            rows = [json.loads(row) for row in (Path(folder) / "log.jsonl").open()]
        print(f"{name}: {median(row['steps_per_second'] for row in rows[2:]):.2f} steps a second")


if __name__ == "__main__":
    main()
