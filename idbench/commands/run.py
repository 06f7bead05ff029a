"""`idbench run`: generate, embed, score, and print the table."""

from __future__ import annotations

import sys
from typing import Any

import click

import idbench
from idbench.commands import options as opt


@click.command()
@click.option("--model", required=True, metavar="NAME[@VARIANT]", shell_complete=opt.model_names,
              help="See `idbench list models`.")
@click.option("--split", required=True, shell_complete=opt.split_names,
              help="single, multi, multi3, tryon or background.")
@opt.sharing(
    opt.suite_option, opt.out_option, opt.limit_option, opt.seeds_option, opt.set_option,
    opt.protocol_option, opt.metric_option, opt.weights_option, opt.device_option,
    opt.shard_option, *opt.ENGINE,
)
@click.option(
    "--batch", type=opt.COUNT,
    help="Samples generated together; does not change videos. Default: the model's choice.",
)
@click.option("--retry-failed", is_flag=True, help="Retry samples that failed before.")
@click.option("--force", is_flag=True,
              help="Remove an earlier run from the run folder and generate everything again.")
@click.option("--no-score", is_flag=True, help="Only generate; `idbench score RUN` scores later.")
@opt.json_option
def run(
    settings: tuple[str, ...], no_score: bool, as_json: bool, seeds: list[int], **asked: Any,
) -> None:
    """Generate the videos of a split with a model, score them, and print the table.

    Run the same command again to resume; a finished run generates nothing.
    """
    from idbench.commands.outcome import show
    from idbench.progress import Progress

    results = idbench.evaluate(
        settings=opt.parse_settings(settings), seed=seeds, scored=not no_score,
        progress=Progress(as_json), command=sys.argv[1:], engine=opt.engine_of(asked), **asked,
    )
    show(results, as_json, scored=not no_score)
