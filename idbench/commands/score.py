"""`idbench score`: score existing videos, or rescore a run folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

import idbench
from idbench.commands import options as opt


@click.command()
@click.argument("videos", nargs=-1, type=opt.PATH)
@click.option(
    "--manifest", type=opt.PATH,
    help="CSV or JSON lines with video, prompt, reference (several people: a list, or separated by "
    "`;`; several photographs of one person: `|`).",
)
@click.option(
    "--reference", multiple=True, type=opt.PATH,
    help="An image of the person, or several with | between them (quote it). Repeat it for several "
    "people, left to right.",
)
@click.option("--prompt", default="", show_default=False,
              help="The prompt of the video (for ViCLIP).")
@click.option("--suite", shell_complete=opt.suite_names,
              help="The suite of the videos; files are named SAMPLE_ID.mp4.")
@click.option("--split", shell_complete=opt.split_names, help="The split of the suite.")
@click.option("--fps", type=click.FloatRange(0.1, 1000),
              help="Frames a second of folders of frames. Default: 8.")
@click.option("--name", help="Name of the system in tables.")
@click.option("--force", is_flag=True, help="Also rescore videos that have scores.")
@opt.sharing(
    opt.out_option, opt.limit_option, opt.seed_option, opt.protocol_option, opt.metric_option,
    opt.weights_option, opt.device_option, opt.shard_option, *opt.ENGINE, opt.json_option,
)
def score(reference: tuple[Path, ...], prompt: str, as_json: bool, **asked: Any) -> None:
    """Score existing videos, from any source. Generates nothing.

    \b
    idbench score VIDEO... --reference person.png [--prompt TEXT]
    idbench score --manifest videos.csv
    idbench score FOLDER --suite avatars --split single
    idbench score RUN                        (score or rescore a run folder)
    """
    from idbench.commands.outcome import show
    from idbench.progress import Progress

    results = idbench.score(
        references=reference, prompts=prompt, progress=Progress(as_json), command=sys.argv[1:],
        engine=opt.engine_of(asked), **asked,
    )
    show(results, as_json)
