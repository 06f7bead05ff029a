"""What `run` and `score` print at their end."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console

from idbench import output
from idbench.errors import UserError
from idbench.reports import table_output, tables
from idbench.results import Results
from idbench.runs import Run


def show(results: Results, as_json: bool = False, scored: bool = True) -> None:
    """Print the table of the one run of `results`, its failures, times and folder.

    Raises:
        UserError: every sample failed.
    """
    (run,) = results._runs
    failed = [record for record in run.records() if record.status == "failed"]
    if as_json:
        _show_json(run, results, scored)
    else:
        _show_text(run, results, scored, failed[0].reason if failed else None, len(failed))
    if failed and len(failed) == run.file.counts.planned:
        again = " with --retry-failed" if run.generates else ""
        raise UserError(
            f"All {len(failed)} samples failed, the first because {failed[0].reason}; fix that "
            f"and run it again{again}."
        )


def _show_json(run: Run, results: Results, scored: bool) -> None:
    table = json.loads(tables.render(results.table(), "json")) if scored else None
    click.echo(json.dumps({
        "run": str(run.folder), "counts": run.file.counts.model_dump(),
        "timings": run.file.timings, "peak_memory_gb": run.file.peak_memory_gb, "table": table,
    }, indent=2))


def _show_text(run: Run, results: Results, scored: bool, reason: str | None, failed: int) -> None:
    if scored and sys.stdout.isatty():
        table_output.show(results.table(), Console(highlight=False))
    elif scored:
        click.echo(tables.render(results.table(), "md"))
    if failed:
        hint = f" Retry them with --retry-failed; see {run.folder}/errors.log."
        click.echo(
            f"{failed} of {len(run.sample_ids)} samples failed, the first because {reason}."
            f"{hint if run.generates else ''}"
        )
    if output.level() == output.QUIET:
        return
    times = run.file.timings
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items())
    peak = run.file.peak_memory_gb
    memory = f"; peak memory {peak} GB" if peak else ""
    click.echo(f"Seconds: {parts}; total {sum(times.values()):.1f}{memory}.")
    click.echo(f"Run folder: {run.folder}")
