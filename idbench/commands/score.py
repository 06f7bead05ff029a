"""`idbench score`: finished videos, from anywhere; or the videos of a run folder once more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from idbench.commands import completing
from idbench.commands import options as opt
from idbench.errors import UserError

if TYPE_CHECKING:
    from idbench.commands.finishing import Scoring
    from idbench.finished import Finished


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
@opt.sharing(
    opt.out_option, opt.limit_option, opt.seed_option, opt.protocol_option, opt.metric_option,
    opt.weights_option, opt.json_option,
)
def score(
    videos: tuple[Path, ...], manifest: Path | None, reference: tuple[Path, ...], prompt: str,
    suite: str | None, split: str | None, name: str | None, out: Path | None, limit: int | None,
    seed: int, protocol: str, metrics: tuple[str, ...], weights: tuple[str, ...],
    as_json: bool,
) -> None:
    """Score finished videos, from anywhere. Nothing is generated.

    \b
    idbench score VIDEO... --reference person.png [--prompt TEXT]
    idbench score --manifest videos.csv
    idbench score FOLDER --suite avatars --split single
    idbench score RUN                        (score a run folder, again or for the first time)
    """
    from idbench.commands.finishing import Scoring

    asked = Scoring.of(protocol, metrics, weights)
    ways = [bool(manifest), bool(reference), bool(suite or split)]
    if sum(ways) > 1:
        raise UserError("Give one of --manifest, --reference and --suite, not several.")
    if not any(ways):
        if len(videos) == 1 and (videos[0] / "run.json").is_file():
            _rescore(videos[0], asked, as_json)
            return
        raise UserError(
            "Say whom the videos should show: --reference IMAGE, --manifest FILE, or --suite "
            "NAME --split NAME; or give one run folder."
        )
    items, about = _collect(videos, manifest, reference, prompt, suite, split, limit, seed)
    label = name or _label(videos, manifest)
    _score(items, about, label, out or Path("runs") / f"score-{label}", asked, as_json)


def _collect(
    videos: Sequence[Path], manifest: Path | None, reference: Sequence[Path], prompt: str,
    suite: str | None, split: str | None, limit: int | None, seed: int,
) -> tuple[list[Finished], dict[str, Any]]:
    """The finished videos, and the suite's part of the run's identity."""
    from idbench import finished
    from idbench.files import sha256_file
    from idbench.suite import load_suite

    if manifest:
        items = finished.from_manifest(manifest, videos[0] if videos else None)[:limit]
        part = {"name": manifest.name, "version": "", "sha256": sha256_file(manifest)}
        return items, {"suite": part, "split": "finished", "seed": 0}
    if not videos:
        raise UserError("Name the videos to score, or the folder that holds them.")
    if reference:
        items = finished.from_files(finished.videos_of(videos), reference, prompt)[:limit]
        part = {"name": "videos", "version": "", "sha256": ""}
        return items, {"suite": part, "split": "finished", "seed": 0}
    if not split:
        raise UserError("Give --split with --suite, such as --split single.")
    loaded = load_suite(suite or "avatars")
    items = finished.from_suite(loaded, split, videos[0], limit, seed)
    part = {"name": loaded.name, "version": loaded.version, "sha256": loaded.sha256}
    return items, {"suite": part, "split": split, "seed": seed}


def _score(
    items: Sequence[Finished], about: dict[str, Any], label: str, folder: Path, scoring: Scoring,
    as_json: bool,
) -> None:
    from idbench import runs
    from idbench.commands.finishing import finish
    from idbench.files import sha256_file, sha256_json
    from idbench.timings import Timings

    model: dict[str, Any] = {
        "name": label, "variant": None, "revision": "finished videos", "settings": {},
        "weights": {},
    }
    identity = {"kind": "videos", **about, "model": model}
    with runs.locked(folder):
        # The video is part of the sample's id: another video under the same name is another one.
        digests = [
            sha256_file(i.video) if i.video and i.video.is_file() else "missing" for i in items
        ]
        ids = [
            (item.sample.id, sha256_json([item.sample.id, label, digest])[:16])
            for item, digest in zip(items, digests, strict=True)
        ]
        current = runs.start(
            folder, identity=identity, request={"kind": "videos"}, samples=ids, command=sys.argv[1:]
        )
        timings = Timings(current.meta["timings"])
        scoring.check(current)
        with finish(current, timings, scoring, [i for _, i in ids], as_json):
            for item, (suite_id, run_id) in zip(items, ids, strict=True):
                if current.record(run_id) is None:
                    _take(current, item, suite_id, run_id)


def _take(run: Any, item: Finished, suite_id: str, run_id: str) -> None:
    """Copy a finished video into the run folder and finish its sample."""
    from idbench import runs

    sample = replace(item.sample, id=run_id)
    if item.video is None or not item.video.is_file():
        reason = f"there is no video {item.video}" if item.video else "there is no video"
        run.finish(sample, suite_id, video=None, reason=reason)
        return
    target = run.path(run_id, f"video{item.video.suffix.lower()}")
    runs.copy_video(item.video, target)
    run.finish(sample, suite_id, video=target, source=str(item.video))


def _rescore(folder: Path, scoring: Scoring, as_json: bool) -> None:
    from idbench import runs
    from idbench.commands.finishing import finish
    from idbench.timings import Timings

    with runs.locked(folder):
        current = runs.Run.open(folder)
        timings = Timings(current.meta["timings"])
        with finish(current, timings, scoring, current.sample_ids, as_json):
            pass


def _label(videos: Sequence[Path], manifest: Path | None) -> str:
    path = manifest or videos[0]
    return path.resolve().stem or "videos"
