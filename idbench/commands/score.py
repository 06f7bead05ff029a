"""`idbench score`: finished videos from anywhere, or the videos of a run folder again."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from idbench.commands import completing
from idbench.commands import options as opt


@click.command(short_help="Score finished videos, from anywhere.")
@click.argument("videos", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--manifest", type=click.Path(path_type=Path),
    help="CSV or JSON lines with video, prompt and reference (several: a list, or `;`).",
)
@click.option(
    "--reference", multiple=True, type=click.Path(path_type=Path),
    help="A picture of the person; repeat it for several people, left to right.",
)
@click.option("--prompt", default="", help="What the video was asked to show (for ViCLIP).")
@click.option(
    "--suite", shell_complete=completing.suites,
    help="The videos are of this suite: files named SAMPLE_ID.mp4.",
)
@click.option("--split", shell_complete=completing.splits, help="The split of the suite.")
@click.option("--name", help="What to call the system in tables.")
@click.option("--force", is_flag=True, help="Score also the videos that have scores.")
@opt.sharing(
    opt.out_option, opt.limit_option, opt.seed_option, opt.protocol_option, opt.metric_option,
    opt.weights_option, opt.json_option,
)
def score(
    reference: tuple[Path, ...], prompt: str, as_json: bool, **asked: Any,
) -> None:
    """Score finished videos, from anywhere. Nothing is generated.

    \b
    idbench score VIDEO... --reference person.png [--prompt TEXT]
    idbench score --manifest videos.csv
    idbench score FOLDER --suite avatars --split single
    idbench score RUN                        (score a run folder, again or for the first time)
    """
    import idbench
    from idbench.commands.outcome import show
    from idbench.progress import Progress

    results = idbench.score(
        references=reference, prompts=prompt, progress=Progress(as_json), command=sys.argv[1:],
        **asked,
    )
    show(results, as_json)
