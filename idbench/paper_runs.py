"""`reproduce`: the paper's tables on avatars, from the embedded weights to one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from idbench.errors import UserError
from idbench.evaluate import evaluate, score
from idbench.files import write_text
from idbench.outputs import check_new_folder, check_output
from idbench.progress import Progress
from idbench.reports import paper, paper_output
from idbench.reports.paper_rows import SECTIONS, shipped
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


@dataclass(frozen=True)
class Job:
    """A system and the split that it makes."""

    system: str
    split: str


@dataclass(frozen=True)
class Reproduced:
    """The tables, the page, and what could not be run."""

    tables: tuple[paper.PaperTable, ...]
    page: Path
    problems: tuple[str, ...]


def jobs() -> list[Job]:
    """What has to be generated for all three tables, each once."""
    found = [Job(slot.system, section.split) for section in SECTIONS for slot in section.slots]
    return [job for job in dict.fromkeys(found) if shipped(job.system)]


def plan(todo: Sequence[Job], limit: int, seeds: Sequence[int]) -> str:
    """What `todo` makes, and an estimate of the time, in one line."""
    splits = load_suite(SUITE).splits
    videos = sum(min(limit, splits[job.split]) for job in todo) * len(seeds)
    minutes = (videos * SECONDS_A_VIDEO + len(todo) * SECONDS_A_RUN) / 60
    return (f"{videos} videos in {len(todo)} runs; about {minutes:.0f} minutes on two idle cores "
            "if none is there yet")


def complete_run(
    system: str, split: str, folder: Path, limit: int, seeds: Sequence[int], *,
    settings: Mapping[str, Any] | None = None, progress: Progress, command: Sequence[str],
) -> Results:
    """A run in `folder`: what is missing is generated, and what has no scores is scored, or has
    those of other networks, such as an earlier release's. Raises UserError: as `evaluate`."""
    made = evaluate(
        SUITE, system, out=folder, split=split, limit=limit, settings=settings,
        seed=seeds[0] if len(seeds) == 1 else list(seeds), scored=False, progress=progress,
        command=command,
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
                job.system, job.split, out / f"{job.system}-{job.split}", limit, seeds,
                progress=progress, command=command,
            ).folders
        except UserError as error:
            problems.append(f"{job.system}, {job.split}: {error}")
            progress.say(problems[-1])
    if not folders:
        raise UserError(problems[0] if problems else "There are no embedded weights to run.")
    runs = [Run.open(folder) for folder in folders]
    tables = tuple(table for number in (1, 2, 3) for table in paper.build(number, [runs]))
    about = [f"Made by: {' '.join(command) or 'idbench.paper_runs'}", *problems]
    write_text(out / PAGE, paper_output.page(tables, about))
    return Reproduced(tables, out / PAGE, tuple(problems))
