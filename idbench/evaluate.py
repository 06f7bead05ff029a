"""`evaluate` and `score`: the whole way from a suite, or from finished videos, to a table.

The command line, Python, the pytest fixture and every engine come through here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from idbench import runs, steps
from idbench.baselines.finished_videos import FinishedVideos
from idbench.engine import ENGINES, LocalEngine
from idbench.errors import UserError
from idbench.manifest import listed
from idbench.progress import Progress
from idbench.records import Identity, ModelName, plain
from idbench.registry import make_model
from idbench.results import Results
from idbench.scoring import DEFAULT_PROTOCOL, Scoring
from idbench.suite import Suite, load_suite
from idbench.timings import Timings
from idbench.types import Model, Sample

Paths = str | Path | Sequence[str | Path]


def evaluate(
    suite: str | Path | Suite, model: str | Model, metrics: Sequence[str] = (),
    protocol: str = DEFAULT_PROTOCOL, out: str | Path | None = None, *, split: str = "single",
    limit: int | None = None, seed: int = 0, settings: Mapping[str, Any] | None = None,
    weights: Sequence[str] = (), engine: str = "local", batch: int | None = None,
    retry_failed: bool = False, force: bool = False, scored: bool = True,
    progress: Progress | None = None, command: Sequence[str] = (),
) -> Results:
    """Generate the videos of a split with a model, score them, and return the results.

    Called again, it goes on where it stopped; a finished run generates nothing.

    Args:
        suite: name of an installed suite, the folder of one, or a loaded suite.
        model: NAME or NAME@VARIANT of a registered model, or an object such as
            `idbench.types.Model`.
        metrics: only these; "+NAME" adds one to the defaults.
        protocol: how the videos are scored.
        out: the run folder; by default one under runs/ named after what is run.
        limit: only the first samples of the split.
        settings: of a model given by name, such as {"steps": 20}.
        weights: NETWORK=SOURCE for each network of the metrics that is not the embedded one.
        engine, batch: where and how samples are worked through; neither changes a video.
        retry_failed: try samples again that failed before.
        force: generate everything anew.
        scored: False generates only.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    scoring = Scoring.of(protocol, metrics, weights) if scored else None
    timings = Timings()
    loaded = suite if isinstance(suite, Suite) else load_suite(suite)
    samples = loaded.samples(split, limit, seed)
    with timings.phase("load"):
        made = make_model(model, settings) if isinstance(model, str) else model
    identity = Identity(suite=loaded.title, split=split, seed=seed, model=_described(made))
    folder = Path(out) if out else Path("runs") / _folder_name(identity)
    size = batch or getattr(made, "batch", None) or 4
    return _carry_out(
        made, samples, identity, folder, scoring, engine=ENGINES[engine](size),
        retry_failed=retry_failed, force=force, progress=progress, command=command,
        timings=timings)


def score(
    videos: Paths = (), references: Paths = (), prompts: str | Sequence[str] = "", *,
    manifest: str | Path | None = None, suite: str | None = None, split: str | None = None,
    name: str | None = None, metrics: Sequence[str] = (), protocol: str = DEFAULT_PROTOCOL,
    weights: Sequence[str] = (), out: str | Path | None = None, limit: int | None = None,
    seed: int = 0, force: bool = False, progress: Progress | None = None,
    command: Sequence[str] = (),
) -> Results:
    """Score finished videos from anywhere, or one run folder again. Nothing is generated.

    Args:
        videos: files and folders of videos, or one run folder.
        references: images of the people in every video, left to right.
        prompts: one for all videos, or one for each.
        manifest, suite, split: the other ways to say what the videos show; see
            `idbench.manifest.listed`.
        name: what to call the system in tables.
        force: score also what has scores.
        Others as in `evaluate`.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    scoring = Scoring.of(protocol, metrics, weights)
    paths, people = _paths(videos), _paths(references)
    listing = Path(manifest) if manifest else None
    if len(paths) == 1 and (paths[0] / "run.json").is_file() and not (people or listing or suite):
        with runs.reopen(paths[0]) as run:
            steps.score(run, run.sample_ids, scoring, progress or Progress(), force)
            run.close()
        return Results([run])
    found = listed(
        paths, references=people, prompts=prompts, manifest=listing, suite=suite, split=split,
        limit=limit, seed=seed)
    label = name or (listing or paths[0]).resolve().stem or "videos"
    model = FinishedVideos(label, found.videos)
    identity = Identity(
        kind="videos", suite=found.suite, split=found.split, seed=found.seed,
        model=_described(model))
    return _carry_out(
        model, found.samples, identity, Path(out) if out else Path("runs") / f"score-{label}",
        scoring, force_scores=force, progress=progress, command=command)


def _carry_out(
    model: Model, samples: Sequence[Sample], identity: Identity, folder: Path,
    scoring: Scoring | None, *, engine: LocalEngine | None = None, retry_failed: bool = False,
    force: bool = False, force_scores: bool = False, progress: Progress | None = None,
    command: Sequence[str] = (), timings: Timings | None = None,
) -> Results:
    """Load the samples, generate, score, table: each step reads what the one before wrote."""
    progress = progress or Progress()
    planned = _planned(model, samples, identity)
    with runs.begin(folder, identity, planned, command=command, timings=timings,
                    force=force) as run:
        if scoring and not force_scores:
            scoring.check(run)
        todo = steps.unfinished(run, planned, retry_failed)
        if run.generates:
            progress.say(
                f"{len(todo)} of {len(planned)} videos to generate in {folder}" if todo else
                f"all {len(planned)} videos are there in {folder}")
        steps.generate(run, model, todo, engine or LocalEngine(1), progress)
        if scoring:
            steps.score(run, [s.id for s in planned], scoring, progress, force_scores)
        run.close()
    return Results([run])


def _planned(model: Model, samples: Sequence[Sample], identity: Identity) -> list[Sample]:
    """The samples with their ids in the run.

    Raises:
        UserError: a sample has more references than the model takes.
    """
    most = max((len(s.references) for s in samples), default=0)
    if most > model.maximum_references:
        raise UserError(
            f"The model {identity.model.title} takes at most {model.maximum_references} "
            f"reference(s), the split has samples with {most}; choose another variant of the "
            "model or another --split."
        )
    own = getattr(model, "sample_id", None)
    return [
        replace(s, id=own(s) if own else runs.sample_id(s.suite_id, identity.model))
        for s in samples
    ]


def _described(model: Model) -> ModelName:
    return ModelName(**plain({
        "name": model.name, "variant": getattr(model, "variant", None),
        "revision": model.revision, "settings": dict(model.settings()),
        "weights": dict(model.weight_hashes()),
    }))


def _folder_name(identity: Identity) -> str:
    seed = f"-seed{identity.seed}" if identity.seed else ""
    return f"{identity.model.title}-{identity.suite.name}-{identity.split}{seed}"


def _paths(given: Paths) -> list[Path]:
    return [Path(given)] if isinstance(given, str | Path) else [Path(path) for path in given]
