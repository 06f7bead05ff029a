"""Ablations beyond the paper that need no training: how references enter at sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from idbench.paper_runs import Job, complete_run
from idbench.progress import Progress
from idbench.reports import tables
from idbench.reports.paper_rows import shipped
from idbench.runs import Run

USUAL = "given"
ROWS = {
    ("concat_id@single", "single"): ("zeroed", "both_branches", "noisy"),
    ("concat_id@multi", "multi"): ("zeroed", "both_branches", "shared_index"),
}
"""System and split -> the values of `references` beside `given`; see `concat_id.model`."""
WORDS = {
    USUAL: "references guided as the text is, each at its own position",
    "zeroed": "references zeroed (control)",
    "both_branches": "references in both branches of guidance (as the paper)",
    "noisy": "references with the noise of training",
    "shared_index": "references at one shared position",
}
TRAINING = (
    "These rows change sampling alone, of networks trained as the paper does. What the same choice "
    "does to a network trained with it needs a training, and so does channel concatenation instead "
    "of sequence concatenation, which is another network (ConsisID's low-frequency path is one).",
)


def jobs() -> list[Job]:
    """The runs of all tables."""
    return [Job(system, split) for (system, split), values in ROWS.items()
            if shipped(system) for _ in (USUAL, *values)]


def run(
    out: Path, limit: int, seeds: Sequence[int] = (0,), *, progress: Progress | None = None,
    command: Sequence[str] = (),
) -> list[tables.Tables]:
    """Generate and score what is missing in `out`; one table per split, with paired differences.
    The plain runs are those of `reproduce`."""
    progress, found = progress or Progress(), []
    for (system, split), values in ROWS.items():
        if not shipped(system):
            continue
        runs = []
        for value in (USUAL, *values):
            progress.say(f"{system}, {split}: {WORDS[value]}")
            name = f"{system}-{split}" + ("" if value == USUAL else f"-{value}")
            runs += complete_run(
                system, split, out / name, limit, seeds, progress=progress, command=command,
                settings={} if value == USUAL else {"references": value},
            ).folders
        found.append(_table([Run.open(folder) for folder in runs], (USUAL, *values)))
    return found


def _table(runs: Sequence[Run], values: Sequence[str]) -> tables.Tables:
    """The table of the runs, named after what they change."""
    made = tables.measured(runs, compare=str(runs[0].folder))
    named = {label: WORDS[value] for label, value in zip(tables.labels(runs), values, strict=True)}
    return replace(
        made,
        rows=tuple(replace(row, system=named[row.system]) for row in made.rows),
        differences=tuple(
            replace(d, first=named[d.first], second="as by default") for d in made.differences),
        notes=(*made.notes, *TRAINING),
    )
