"""Score the videos of a run folder again, such as with other metrics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from idbench import holding, runs, steps
from idbench.engines import Engine
from idbench.planning import absolute
from idbench.progress import Progress
from idbench.results import Results
from idbench.scoring import Scoring, with_second_opinion
from idbench.shards import Shard


def score_run(
    given: Path, metrics: Sequence[str], protocol: str, weights: Sequence[str], worker: Engine,
    part: Shard | None, progress: Progress, force: bool,
) -> Results:
    """Score the videos of a run that have no scores yet, or all with `force`.

    Args:
        given: the run folder. The others as in `evaluate.evaluate`.

    Raises:
        UserError: what the caller can fix, in one sentence.
    """
    before = runs.Run.open(given)
    if not before.generates:
        samples = [record.sample for record in before.records()]
        metrics = with_second_opinion(metrics, samples, protocol, weights, progress.say)
    scoring = Scoring.of(protocol, metrics, weights)
    with (absolute(Path.cwd(), given) as folder, holding.reopen(folder, part) as run,
          worker.open(run)):
        mine = part.of(run.sample_ids) if part else run.sample_ids
        steps.score(run, mine, scoring, worker, progress, force)
        run.close(worker.about())
    run.folder = given
    return Results([run])
