"""What commands print at their end: tables, and what became of a run."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from idbench import output
from idbench.errors import UserError
from idbench.reports import table_output, terminal
from idbench.reports.tables import Tables
from idbench.results import Results
from idbench.runs import Run


def usual_form(as_json: bool = False) -> str:
    """How tables are printed where no form was chosen."""
    return "json" if as_json else "terminal" if sys.stdout.isatty() else "md"


def print_tables(made: Sequence[Tables], form: str) -> None:
    """Print tables as `terminal` or in one of `tables.FORMATS`; several as JSON are one list."""
    if form == "terminal":
        for one in made:
            terminal.show_parts(table_output.parts(one), Console(highlight=False))
        return
    texts = [table_output.render(one, form) for one in made]
    several = form == "json" and len(texts) > 1
    output.echo(f"[{', '.join(texts)}]" if several else "\n\n".join(texts))


def show(results: Results, as_json: bool = False, scored: bool = True) -> None:
    """Print the table of the one run of `results`, its failures, times and folder.
    Raises UserError: every sample failed."""
    (run,) = results._runs
    scored = scored and (run.shard is None or (run.folder / "scores.parquet").is_file())
    reasons = [record.reason for record in run.records() if record.status == "failed"]
    first = _in_a_sentence((reasons[0] if reasons else None) or "of an unknown fault")
    all_failed = bool(reasons) and len(reasons) == run.file.counts.planned
    if as_json:
        table = table_output.as_json(results.table()) if scored else None
        output.echo_json({
            "run": str(run.folder), "counts": run.file.counts.model_dump(),
            "timings": run.file.timings, "peak_memory_gb": run.file.peak_memory_gb, "table": table,
        })
    else:
        if scored:
            print_tables([results.table()], usual_form())
        if reasons and not all_failed:
            hint = f" Retry them with --retry-failed; see {run.folder}/errors.log."
            output.echo(
                f"{len(reasons)} of {len(run.sample_ids)} samples failed, the first because "
                f"{first}.{hint if run.generates else ''}"
            )
        _show_times(run)
    if all_failed:
        again = " with --retry-failed" if run.generates else ""
        told = ("The only sample failed" if len(reasons) == 1 else
                f"All {len(reasons)} samples failed, the first")
        raise UserError(
            f"{told} because {first}. Fix that and run the same command again{again}.")


def _in_a_sentence(reason: str) -> str:
    """A reason, of which many are sentences themselves, as a part of another sentence."""
    word, _, rest = reason.rstrip(".").partition(" ")
    return f"{word.lower() if word in ('A', 'An', 'No', 'The', 'There') else word} {rest}".rstrip()


def _show_times(run: Run) -> None:
    if output.level() == output.QUIET:
        return
    times = run.file.timings
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items())
    peak = run.file.peak_memory_gb
    memory = f"; peak memory {peak} GB" if peak else ""
    output.echo(f"Seconds: {parts}; total {sum(times.values()):.1f}{memory}.")
    output.echo(f"Run folder: {run.folder}")
