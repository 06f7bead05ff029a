"""`reproduce`: the paper's tables on avatars, from the embedded weights to one page, or from
scratch: every network is first trained by its recipe, into a folder of weights of its own.

Beyond the paper: ablations that need no training, of how references enter at sampling.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any
from unittest import mock

from idbench.embedded import entries
from idbench.errors import UserError
from idbench.evaluate import evaluate, score
from idbench.files import check_new_folder, check_output, disk_errors, write_text
from idbench.progress import Progress
from idbench.recipes import load_recipe, load_trainer, recipe_files
from idbench.reports import paper, paper_output, tables
from idbench.reports.paper import SECTIONS, shipped
from idbench.results import Results
from idbench.runs import Run
from idbench.suite import load_suite

SUITE = "avatars"
LIMIT = 72
"""Samples of a split: each of the 24 people three times. Keeps the whole within half an hour."""
SECONDS_A_VIDEO = 2.6
"""On two cores, scoring included. Source: docs/performance.md, 48 videos in 125 s."""
SECONDS_A_RUN = 15
"""To load the networks that generate and score."""
PAGE = "paper.html"
KNOWN_BY = (PAGE, "*/run.json", "weights/manifest.json", "training/*")
"""Files by which the folder of an earlier `reproduce` is known."""
GIVEN = "given"
ABLATIONS = {
    ("concat_id@single", "single"): ("zeroed", "both_branches", "noisy"),
    ("concat_id@multi", "multi"): ("zeroed", "both_branches", "shared_index"),
}
"""System and split -> the values of `references` beside `given`; see `concat_id.model`."""
WORDS = {
    GIVEN: "references guided as the text is, each at its own position",
    "zeroed": "references zeroed (control)",
    "both_branches": "references in both branches of guidance (as the paper)",
    "noisy": "references with the noise of training",
    "shared_index": "references at one shared position",
}
TRAINING = (
    "These rows change sampling alone, of networks trained as the paper does. What the same choice "
    "does to a network trained with it needs a training, and so does channel concatenation instead "
    "of sequence concatenation, which is another network (ConsisID's low-frequency path is one)."
)
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
class Job:
    """A system, the split that it makes, and how its references enter, one of `WORDS`."""

    system: str
    split: str
    references: str = GIVEN

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        return f"{self.system}-{self.split}" + f"-{self.references}" * (self.references != GIVEN)


@dataclass(frozen=True)
class Reproduced:
    """The tables, the page, and what could not be run."""

    tables: tuple[paper.PaperTable, ...]
    page: Path
    problems: tuple[str, ...]


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


def jobs() -> list[Job]:
    """What has to be generated for all three tables, each once."""
    found = [Job(slot.system, section.split) for section in SECTIONS for slot in section.slots]
    return [job for job in dict.fromkeys(found) if shipped(job.system)]


def ablations() -> list[Job]:
    """The runs of all tables beyond the paper; the plain ones are among `jobs`."""
    return [Job(system, split, value) for (system, split), values in ABLATIONS.items()
            if shipped(system) for value in (GIVEN, *values)]


def plan(todo: Sequence[Job], limit: int, seeds: Sequence[int]) -> str:
    """What `todo` makes, and an estimate of the time, in one line."""
    splits = load_suite(SUITE).splits
    videos = sum(min(limit, splits[job.split]) for job in todo) * len(seeds)
    minutes = (videos * SECONDS_A_VIDEO + len(todo) * SECONDS_A_RUN) / 60
    return (f"{videos} videos in {len(todo)} runs; about {minutes:.0f} minutes on two idle cores "
            "if none is there yet")


def complete_run(
    job: Job, out: Path, limit: int, seeds: Sequence[int], *, progress: Progress,
    command: Sequence[str],
) -> Results:
    """A run in its folder of `out`: what is missing is generated, and what has no scores is scored,
    or has those of other networks, such as an earlier release's. Raises UserError: as `evaluate`.
    """
    made = evaluate(
        SUITE, job.system, out=out / job.folder, split=job.split, limit=limit,
        settings={} if job.references == GIVEN else {"references": job.references},
        seed=seeds, scored=False, progress=progress, command=command,
    )
    return score(made.folders, progress=progress)


def check_folder(out: Path) -> None:
    """Raise UserError if `out` holds files of others, or a page of others in the page's place."""
    check_new_folder(out, KNOWN_BY)
    check_output(out / PAGE, "page of tables")


def reproduce(
    out: Path, limit: int = LIMIT, seeds: Sequence[int] = (0,), *,
    progress: Progress | None = None, command: Sequence[str] = (),
) -> Reproduced:
    """Generate and score what is missing in `out`, and write its page; a finished one only reads.

    `limit` is the most samples of each split; `command` is kept in the runs and printed on the
    page. Raises UserError: nothing could be run, or `out` holds other files."""
    check_folder(out)
    progress = progress or Progress()
    folders, problems = [], []
    todo = jobs()
    for number, job in enumerate(todo, 1):
        progress.say(f"{number} of {len(todo)}: {job.system}, {job.split}")
        try:
            folders += complete_run(
                job, out, limit, seeds, progress=progress, command=command).folders
        except UserError as error:
            problems.append(f"{job.system}, {job.split}: {error}")
            progress.say(problems[-1])
    if not folders:
        raise UserError(problems[0] if problems else "There are no embedded weights to run.")
    runs = [Run.open(folder) for folder in folders]
    made = tuple(table for number in (1, 2, 3) for table in paper.build(number, [runs]))
    about = [f"Made by: {' '.join(command) or 'idbench.paper_runs'}", *problems]
    write_text(out / PAGE, paper_output.page(made, about))
    return Reproduced(made, out / PAGE, tuple(problems))


def beyond(
    out: Path, limit: int, seeds: Sequence[int], *, progress: Progress, command: Sequence[str]
) -> list[tables.Tables]:
    """Generate and score what is missing of `ablations` in `out`; one table per split, with paired
    differences."""
    found = []
    for _, group in groupby(ablations(), attrgetter("split")):
        folders: list[Path] = []
        todo = list(group)
        for job in todo:
            progress.say(f"{job.system}, {job.split}: {WORDS[job.references]}")
            folders += complete_run(
                job, out, limit, seeds, progress=progress, command=command).folders
        found.append(_table([Run.open(folder) for folder in folders], todo))
    return found


def _table(runs: Sequence[Run], made: Sequence[Job]) -> tables.Tables:
    """The table of the runs, named after what they change."""
    table = tables.measured(runs, compare=str(runs[0].folder))
    named = {label: WORDS[job.references]
             for label, job in zip(tables.labels(runs), made, strict=True)}
    return replace(
        table,
        rows=tuple(replace(row, system=named[row.system]) for row in table.rows),
        differences=tuple(
            replace(d, first=named[d.first], second="as by default") for d in table.differences),
        notes=(*table.notes, TRAINING),
    )


def trainings(folder: Path) -> list[Training]:
    """What has to be trained into `folder`, in order, with the times known."""
    embedded, pace = entries(), None
    with weights_in(folder):
        made = entries()
    measured = {e["recipe"]: e["measured"] for e in embedded.values()}
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


def in_words(planned: list[Training]) -> list[str]:
    """The plan with its estimate, in words."""
    found = []
    for one in planned:
        steps = f"{one.steps} steps" if one.steps else ""
        if one.done:
            time = "done"
        elif one.minutes is None:
            time = "time not recorded"
        else:
            time = f"{'' if one.recorded else 'at least '}{one.minutes:.0f} minutes"
        found.append(f"  {one.recipe:20} {steps:>12}  {time}")
    left = [one for one in planned if not one.done]
    known = sum(one.minutes or 0 for one in left)
    unknown = sum(one.minutes is None for one in left)
    total = f"At least {known / 60:.1f} hours on two cores are left"
    if unknown:
        total += f", not counting recipes without a recorded time ({unknown})"
    return [*found, f"{total}. Ctrl-C is safe: the same command continues."]


def train(folder: Path, say: Callable[[str], None]) -> None:
    """Train what is missing in `folder`: weights in `weights`, states in `training`.
    Raises UserError: a recipe that cannot be trained here."""
    todo = trainings(folder / "weights")
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


def weights_in(folder: Path) -> AbstractContextManager[Any]:
    """The embedded weights are those in `folder`."""
    return mock.patch.dict(os.environ, IDBENCH_WEIGHTS=str(folder.resolve()))
