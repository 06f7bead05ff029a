"""`idbench merge`: join run folders that hold parts of the same run."""

from __future__ import annotations

from pathlib import Path

import click

from idbench.commands import options as opt


@click.command()
@opt.runs_argument
@click.option("-o", "--out", required=True, type=opt.PATH, help="The run folder to make.")
@opt.json_option
def merge(run: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Join run folders of the same model, suite and split, such as those that `--shard` made.

    Files are copied; the folders stay. Run the same command again to resume.
    """
    from idbench.commands.outcome import show
    from idbench.holding import merge as merge_runs
    from idbench.results import Results

    made = merge_runs(run, out)
    show(Results([made]), as_json, scored=(out / "scores.parquet").is_file())
