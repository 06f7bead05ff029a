"""`evaluate` and `score`: from a suite, or from finished videos, to a table.

The command line, Python, the pytest fixture and every engine come through here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from idbench import holding, steps
from idbench.baselines.folder import FinishedVideos
from idbench.engines import Engine, make_engine
from idbench.errors import UserError
from idbench.files import real
from idbench.manifest import PROMPTS, Listed, Paths, listed, paths_of
from idbench.names import DEFAULT_PROTOCOL, folder_name
from idbench.progress import Progress
from idbench.records import Identity, ModelName
from idbench.registry import make_model
from idbench.results import Results
from idbench.runs import Shard
from idbench.scoring import Scoring, with_second_opinion
from idbench.suite import Suite, load_suite
from idbench.timings import Timings
from idbench.types import Model
from idbench.video_folders import say_rate


def evaluate(
    suite: str | Path | Suite | Listed, model: str | Model, metrics: Sequence[str] = (),
    protocol: str = DEFAULT_PROTOCOL, out: str | Path | None = None, *, split: str = "single",
    limit: int | None = None, seed: int | Sequence[int] = 0,
    settings: Mapping[str, Any] | None = None,
    weights: Sequence[str] = (), engine: str | Engine = "local", batch: int | None = None,
    device: str = "auto", shard: str | None = None, retry_failed: bool = False,
    force: bool = False, scored: bool = True, rescore: bool = False,
    progress: Progress | None = None, command: Sequence[str] = (),
) -> Results:
    """Generate the videos of a split that are missing, score them, and return the results.

    Args:
        suite: name of an installed suite, the folder of one, or a loaded one.
        model: NAME[@VARIANT] of a registered model, or an `idbench.types.Model`.
        metrics, protocol: only these, or "+NAME" besides the defaults; how they are measured.
        out: the run folder; by default one under runs/ named after what is run.
        limit: only the first samples of the split.
        seed: one seed, or several: each sample is then generated once with each.
        settings: of a model given by name, such as {"steps": 20}.
        weights: NETWORK=SOURCE for each network of the metrics that is not the embedded one.
        engine, batch, device, shard: where, how many at a time; "I/N": only samples I, I + N, ...
        retry_failed, force: try failed samples again; remove an earlier run and start over.
        scored: False generates only.
        rescore: score everything again, also under another protocol or with other weights.
        progress, command: where to report progress; the command line, kept in run.json.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    progress, timings, start = progress or Progress(), Timings(), Path.cwd()
    scoring = Scoring.of(protocol, metrics, weights) if scored else None
    worker, part = make_engine(engine, batch, device), Shard.parse(shard)

    # 1. Load the samples, and the model that makes their videos.
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    seeds = [seed] if isinstance(seed, int) else list(seed)
    of_seeds = [loaded.samples(split, limit, s) for s in seeds]
    with timings.phase("load"):
        made = make_model(model, settings) if isinstance(model, str) else model
    identity = Identity(
        kind=steps.kind_of(made), suite=loaded.title, split=split, seed=seeds[0],
        seeds=seeds if len(seeds) > 1 else [], model=ModelName.of(made))
    samples, mine = steps.plan(of_seeds, made, identity.model, start, part)
    os.chdir(start)  # where the suite's path begins; a model may have changed it
    given = Path(out) if out else Path("runs") / folder_name(identity.folder_name)

    with (steps.absolute(start, given) as folder,
          holding.begin(folder, identity, samples, command, timings, force, part,
                        loaded.size(split)) as run,
          worker.open()):
        if scoring and not rescore:
            scoring.check(run)

        # 2. Generate the videos that are missing.
        todo = steps.unfinished(run, mine, retry_failed)
        if run.generates:
            progress.say(
                f"{len(todo)} of {len(mine)} videos to generate in {given}" if todo else
                f"all {len(mine)} videos are already in {given}")
        steps.generate(run, made, todo, worker, progress)
        os.chdir(start)  # where relative paths of weights begin; a model may have changed it

        # 3. Score those that have no scores yet.
        if scoring:
            steps.score(run, [s.id for s in mine], scoring, worker, progress, rescore)
        run.close(worker.about())
    run.folder = given
    return Results([run])  # 4. The table, and all that is read from the run.


def score(
    videos: Paths = (), references: Paths = (), prompts: str | Sequence[str] = "", *,
    manifest: str | Path | None = None, suite: str | None = None, split: str | None = None,
    name: str | None = None, metrics: Sequence[str] = (), protocol: str = DEFAULT_PROTOCOL,
    weights: Sequence[str] = (), out: str | Path | None = None, limit: int | None = None,
    seed: int = 0, fps: float | None = None, force: bool = False,
    engine: str | Engine = "local", device: str = "auto", shard: str | None = None,
    progress: Progress | None = None, command: Sequence[str] = (),
) -> Results:
    """Score finished videos from anywhere, or a run folder again. Nothing is generated.

    Args:
        videos: files and folders of videos, folders of frames, or one run folder.
        references, prompts: images of the people, left to right; one text for all, or one each.
        manifest: a file that lists videos, prompts and references; see `idbench.manifest`.
        suite, split: the videos are named after the samples of a split.
        name, fps: of the system in tables; frames a second of folders of frames (default 8).
        force: score everything again.
        The others as in `evaluate`.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    paths, people, progress = paths_of(videos), paths_of(references), progress or Progress()
    table = Path(manifest) if manifest else None
    if len(paths) == 1 and (paths[0] / "run.json").is_file() and not (people or table or suite):
        if prompts:
            raise UserError(PROMPTS)
        return Results([steps.score_run(
            paths[0], metrics, protocol, weights, make_engine(engine, None, device),
            Shard.parse(shard), progress, force)])
    found = listed(paths, references=people, prompts=prompts, manifest=table, suite=suite,
                   split=split, limit=limit, seed=seed, say=progress.say)
    say_rate(found.videos.values(), fps, progress.say)
    metrics = with_second_opinion(metrics, found.listed, protocol, weights, progress.say)
    label = name or real(table or paths[0]).stem or "videos"
    return evaluate(
        found, FinishedVideos(label, found.videos, fps), metrics, protocol,
        out or Path("runs") / folder_name(f"score-{label}"), split=found.split, seed=found.seed,
        weights=weights, rescore=force, engine=engine, device=device, shard=shard,
        progress=progress, command=command)
