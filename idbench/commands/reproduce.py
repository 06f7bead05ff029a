"""`idbench reproduce`: the paper's tables on avatars by one command."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.progress import Progress


@click.command()
@click.option("--out", type=opt.FOLDER, default=Path("runs/paper"),
              help="Folder of the runs and of the page, paper.html.")
@click.option("--limit", type=opt.COUNT, default=72,
              help="Samples of each split at most; 144 is the whole of the split single.")
@opt.seeds_option
@click.option("--from-scratch", is_flag=True,
              help="First train every network by its recipe, into OUT/weights. Takes many hours.")
@click.option("--beyond", is_flag=True,
              help="Instead, tables beyond the paper: how references enter at sampling.")
@click.option("--plan", is_flag=True, help="Only print what would be done, and how long it takes.")
@opt.json_option
def reproduce(
    out: Path, limit: int, seeds: list[int], from_scratch: bool, beyond: bool, plan: bool,
    as_json: bool,
) -> None:
    """Generate, score and print Tables 1, 2 and 3 of the paper, and write them to one page.

    Run the same command again to resume; a finished one only prints.
    """
    from idbench import paper_runs
    from idbench.commands.outcome import print_tables, usual_form
    from idbench.reports import paper_output

    progress, form = Progress(as_json), usual_form(as_json)
    command = ["idbench", *sys.argv[1:]]
    if not plan:
        paper_runs.check_folder(out)
    if beyond:
        if from_scratch:
            raise UserError("--beyond does not take --from-scratch; leave one of them out.")
        progress.say(paper_runs.plan(paper_runs.ablations(), limit, seeds))
        if not plan:
            print_tables(
                paper_runs.beyond(out, limit, seeds, progress=progress, command=command), form)
        return
    with contextlib.ExitStack() as weights:
        if from_scratch:
            for line in paper_runs.in_words(paper_runs.trainings(out / "weights")):
                progress.say(line)
            if not plan:
                with contextlib.redirect_stdout(sys.stderr):
                    paper_runs.train(out, progress.say)
                weights.enter_context(paper_runs.weights_in(out / "weights"))
        progress.say(paper_runs.plan(paper_runs.jobs(), limit, seeds))
        if plan:
            return
        found = paper_runs.reproduce(out, limit, seeds, progress=progress, command=command)
    paper_output.print_tables(found.tables, form)
    for problem in found.problems:
        progress.say(f"Not run: {problem}")
    progress.say(f"Page: {found.page}")
