"""Everything that `reproduce` runs, trained by recipe into a folder of weights of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idbench.embedded import entries
from idbench.files import disk_errors
from idbench.recipes import load_recipe, load_trainer, recipe_files

ORDER = (
    "arcface", "curricularface", "clip", "viclip", "face_parser", "expression", "text_encoder",
    "concat_id_data", "vae", "concat_id_latents", "first_base", "first_single", "aligned_data",
    "aligned_latents", "base", "single", "stages_data", "stages_latents", "continued", "stage2",
    "stage3", "multi", "multi3", "multi_scratch", "equal_concat_id", "consisid", "id_animator",
    "ingredients",
)
"""Recipes, each after those that it starts from; those that are not installed are left out."""
RECORDED: dict[str, float | None] = {
    "concat_id_data": 9.0, "concat_id_latents": 11.0, "aligned_data": 8.0, "aligned_latents": None,
    "stages_data": 12.0, "stages_latents": 22.0,
}
"""Minutes of recipes that leave no weights, as measured (those of `stages` with one worker), or
None. Source: docs/training.md."""
LOOP = "idbench.models.concat_id.training.loop:train"
PACE = "base"
"""The recipe whose pace stands for other transformers without a recorded time."""


@dataclass(frozen=True)
class Training:
    """One recipe to train. `minutes`: as `recorded` for the shipped weights, else a lower bound by
    the pace of `PACE`, or None; `done`: its weights exist."""

    recipe: str
    entry: str | None
    steps: int
    minutes: float | None
    recorded: bool
    done: bool


def plan(folder: Path) -> list[Training]:
    """What has to be trained into `folder`, in order, with the times known."""
    shipped, pace = entries(), None
    with weights_in(folder):
        made = entries()
    measured = {e["recipe"]: e["measured"] for e in shipped.values()}
    if "minutes" in measured.get(PACE, {}):
        pace = measured[PACE]["minutes"] / measured[PACE]["step"]
    found = []
    for name in (n for n in ORDER if n in recipe_files()):
        content = load_recipe(name)[1]
        data = name in RECORDED
        entry = None if data else str(content.get("entry", name))
        minutes = RECORDED.get(name, measured.get(name, {}).get("minutes"))
        recorded = minutes is not None
        steps = int(content.get("steps", 0))
        if not recorded and pace is not None and content["trainer"] == LOOP:
            minutes = steps * pace
        found.append(Training(name, entry, steps, minutes, recorded, entry in made))
    return found


def lines(trainings: list[Training]) -> list[str]:
    """The plan with its estimate, in words."""
    found = []
    for one in trainings:
        steps = f"{one.steps} steps" if one.steps else ""
        if one.done:
            time = "done"
        elif one.minutes is None:
            time = "time not recorded"
        else:
            time = f"{'' if one.recorded else 'at least '}{one.minutes:.0f} minutes"
        found.append(f"  {one.recipe:20} {steps:>12}  {time}")
    left = [one for one in trainings if not one.done]
    known = sum(one.minutes or 0 for one in left)
    unknown = sum(one.minutes is None for one in left)
    total = f"At least {known / 60:.1f} hours on two cores are left"
    if unknown:
        total += f", not counting recipes without a recorded time ({unknown})"
    return [*found, f"{total}. Ctrl-C is safe: the same command continues."]


def train(folder: Path, say: Callable[[str], None]) -> None:
    """Train what is missing in `folder`: weights in `weights`, states in `training`.
    Raises UserError: a recipe that cannot be trained here."""
    todo = plan(folder / "weights")
    with disk_errors(folder / "weights"):
        (folder / "weights").mkdir(parents=True, exist_ok=True)
    for one in todo:
        if one.done:
            continue
        name, content = load_recipe(one.recipe)
        recipe: dict[str, Any] = {**content, "name": content.get("name", name)}
        state = folder / "training" / one.recipe
        with weights_in(folder / "weights"), disk_errors(state):
            resume = state.is_dir()
            state.mkdir(parents=True, exist_ok=True)
            say(f"training {one.recipe}{' (continued)' if resume else ''}")
            load_trainer(name, content)(recipe, state, resume, False)


@contextmanager
def weights_in(folder: Path) -> Iterator[None]:
    """The embedded weights are those in `folder`."""
    before = os.environ.get("IDBENCH_WEIGHTS")
    os.environ["IDBENCH_WEIGHTS"] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("IDBENCH_WEIGHTS")
        else:
            os.environ["IDBENCH_WEIGHTS"] = before
