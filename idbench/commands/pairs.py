"""`idbench pairs`: training pairs from a folder of videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from idbench.commands import options as opt
from idbench.files import real
from idbench.models.concat_id.pairs.settings import make_settings, read_settings
from idbench.output import echo, echo_json
from idbench.provenance import cores


@click.group()
def pairs() -> None:
    """Build training pairs of a video and references."""


@pairs.command(short_help="Filter videos, match people across videos, write pairs.")
@click.argument("videos", type=opt.PATH)
@click.option("--captions", type=opt.PATH, required=True,
              help="CSV, TSV, JSON lines or JSON with video (path inside VIDEOS) and caption.")
@click.option("--out", type=opt.PATH, help="Output folder. Default: runs/pairs-NAME.")
@click.option("--recipe", type=opt.PATH,
              help="YAML file with settings, such as `cross: [0.7, 0.9]`.")
@click.option("--seed", type=opt.SEED, help="Random seed. Default: 0.")
@click.option("--workers", type=opt.COUNT,
              help="Processes that read videos. Default: one per core.")
@click.option("--device", default="cpu", help="A torch device, such as cuda.")
@click.option(
    "--subjects", type=click.Choice(["files", "parser", "none"]), default="files",
    help="Garment and background references: files next to the videos, the face parser, or none.",
)
@click.option(
    "--aesthetic", help="Scores for Stage III: a file with video and score, or module:function."
)
@click.option("--calibrate", type=opt.PATH,
              help="File with video and identity: fit the cosine ranges to the recogniser.")
@click.option("--truth", type=opt.PATH,
              help="File with video and identity: report precision and recall.")
@click.option(
    "--alignment", type=click.Choice(["upright", "arcface"]),
    help="Face crops: a window around the head, or ArcFace's template as in Concat-ID's release. "
    "Default: arcface with an insightface pack, else upright.",
)
@opt.sharing(
    opt.weights_option, opt.settings_option("A threshold, such as count_share=0.2."),
    opt.json_option,
)
def build(
    videos: Path, captions: Path, out: Path | None, recipe: Path | None, seed: int | None,
    workers: int | None, device: str, subjects: str, aesthetic: str | None,
    calibrate: Path | None, truth: Path | None, alignment: str | None, weights: tuple[str, ...],
    settings: tuple[str, ...], as_json: bool,
) -> None:
    """Build training pairs from the video files in VIDEOS.

    Drops videos whose caption mentions no person or whose people change, then matches faces across
    the other videos. Writes one parquet file per stage, summary.json and pairs.html. Run the same
    command again to resume or to change thresholds; no video is read twice.
    """
    chosen = make_settings(
        read_settings(recipe) if recipe else {}, {} if seed is None else {"seed": seed},
        opt.parse_settings(settings),
    )
    # Report wrong thresholds before loading torch.
    from idbench.models.concat_id.pairs.curation import BuildRequest
    from idbench.models.concat_id.pairs.curation import build as build_pairs
    from idbench.models.concat_id.pairs.reader import ReaderSettings

    file = Path(aesthetic) if aesthetic and ":" not in aesthetic else None
    reader = ReaderSettings(
        chosen, weights, subjects, None if file else aesthetic, device, alignment
    )
    folder = out or Path("runs") / f"pairs-{real(videos).name or 'videos'}"
    built = build_pairs(BuildRequest(
        videos, captions, folder, reader, workers or cores(), file, calibrate, truth,
        quiet=as_json,
    ))
    if as_json:
        echo_json(built.summary)
        return
    _print(built.summary, built.read, folder)


def _print(summary: dict[str, Any], read: int, folder: Path) -> None:
    videos = summary["videos"]
    kept = sum(videos["kept_by_people"].values())
    echo(f"{videos['found']} videos: {kept} kept, {read} read now.")
    for reason, count in videos["dropped"].items():
        if count:
            echo(f"  dropped, {reason}: {count}")
    for video in summary["unreadable"][:5]:
        echo(f"  unreadable: {video['problem']}")
    captions = summary["captions_without_a_term"]
    for video in captions[:3]:
        echo(f"  no human term: {video['video']}: {video['caption'][:60]}")
    if captions:
        echo("  (--set human_terms=none keeps them; the face detector then decides)")
    copies = summary["copies"]
    if copies["pairs"]:
        echo(f"{copies['pairs']} pairs of near-copies are no partners:")
        for first, second in copies["videos"][:5]:
            echo(f"  {first} and {second}")
    if summary["calibration"]:
        echo("Calibration:")
        for step in summary["calibration"]["steps"]:
            echo(f"  {step}")
    if summary["aesthetic"] != "given":
        echo(summary["aesthetic"])
    for name, output in summary["outputs"].items():
        echo(f"{name}: {output['pairs']} of {output['candidates']} videos")
        for reason, count in output["dropped"].items():
            if count:
                echo(f"  dropped, {reason}: {count}")
    for name, found in (summary["truth"] or {}).items():
        recall = found["recall"] if "recall" in found else found["recall_of_kept"]
        echo(f"{name}: precision {_share(found['precision'])}, recall {_share(recall)}")
    echo(f"Overview: {folder / 'pairs.html'}; pairs: {folder}/*.parquet.")


def _share(value: float | None) -> str:
    return "unknown" if value is None else f"{100 * value:.1f}%"
