"""What a run, or several, came to: tidy pandas frames, a table and a report.

    import idbench
    results = idbench.load("runs/mine")            # or "runs/*", or several
    results.videos.groupby("system")["arcsim"].mean()

The columns are described in idbench/schemas.py (as JSON Schema in docs/schemas/); their
version is `SCHEMA`. Columns may be added within a version; nothing is renamed or removed.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from idbench.errors import UserError
from idbench.runs import Run
from idbench.score_table import COLUMNS, long_scores, wide_scores

if TYPE_CHECKING:
    import pandas as pd

    from idbench.reports.tables import Tables

SCHEMA = 1
"""Version of the frames of `Results`."""


class Results:
    """Runs and their scores.

    Attributes:
        folders: the run folders.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)
        self.folders = [run.folder for run in self._runs]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row per run: how it was made, and under which protocol it was scored."""
        import pandas as pd

        return pd.DataFrame([_run_row(run) for run in self._runs])

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row a finished sample: what was asked, and what became of it."""
        import pandas as pd

        return pd.concat([_samples(run) for run in self._runs], ignore_index=True)

    @cached_property
    def videos(self) -> pd.DataFrame:
        """One row per finished sample: columns of `samples`, then a float64 column per metric.

        NaN: unscored. What most analyses start from.
        """
        import pandas as pd

        parts = [_samples(run).join(wide_scores(run), on="sample") for run in self._runs]
        return pd.concat(parts, ignore_index=True)

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One row a value, long form.

        A row without identity and frame is of the video, one with an identity of that person,
        one with both of that person in that frame. `value` is NaN exactly where `reason` says
        why.
        """
        import pandas as pd

        parts = []
        for run in self._runs:
            of_sample = _samples(run).set_index("sample")[["run", "system", "split", "suite_id"]]
            joined = of_sample.join(long_scores(run).set_index("sample"), how="inner")
            parts.append(joined.reset_index().astype(_SCORE_TYPES)[list(_SCORE_TYPES)])
        return pd.concat(parts, ignore_index=True)

    def table(self, compare: str | None = None) -> Tables:
        """Means with 95% intervals and coverage; prints as text, and as HTML in a notebook.

        Args:
            compare: a run, by its system or folder, from which the others' differences are taken.

        Raises:
            UserError: the runs were not measured alike, or one has no scores.
        """
        from idbench.reports import tables

        return tables.measured(self._runs, compare=compare)

    def report(self, path: str | Path) -> Path:
        """Write the HTML report of the runs to `path`."""
        from idbench.reports.report_page import build_report

        return build_report(self.folders, Path(path))

    def __repr__(self) -> str:
        runs = ", ".join(
            f"{run.name} ({len(run.records())} of {len(run.sample_ids)} samples of {run.split})"
            for run in self._runs
        )
        return f"Results: {runs}\n\n{self._or_reason(str)}"

    def _repr_html_(self) -> str:
        return self._or_reason(lambda table: table._repr_html_())

    def _or_reason(self, shown: Callable[[Tables], str]) -> str:
        try:
            return shown(self.table())
        except UserError as error:
            return str(error)


def load(*paths: str | Path) -> Results:
    """Run folders, of this and every earlier version.

    Args:
        paths: run folders, patterns such as "runs/*", or folders that hold run folders.

    Raises:
        UserError: nothing there is a run, or one has no scores yet, is damaged, or of a newer
            idbench.
    """
    results = Results([Run.open(folder) for folder in _folders(paths)])
    for run in results._runs:
        wide_scores(run)  # says now what would fail later
    return results


_TYPES = {
    **dict.fromkeys(("run", "system", "split", "sample", "suite_id", "identities", "category",
                     "prompt_id", "prompt", "status", "reason"), "string"),
    "seconds": "float64", "video": "string",
}
_SCORE_TYPES = {
    **dict.fromkeys(("run", "system", "split", "sample", "suite_id"), "string"), **COLUMNS}


def _samples(run: Run) -> pd.DataFrame:
    """A row a finished sample, in the suite's order: `_TYPES`, and its references' paths."""
    import pandas as pd

    rows = [
        (str(run.folder), run.name, run.split, r.id, r.suite_id, "+".join(r.identities),
         r.category, r.prompt_id, r.prompt, r.status, r.reason, r.seconds,
         None if r.video_name is None else f"{run.folder}/samples/{r.id}/{r.video_name}",
         [f"{run.folder}/{image}" for i in r.references for image in i.images])
        for r in run.records()
    ]
    return pd.DataFrame(rows, columns=[*_TYPES, "references"]).astype(_TYPES)


def _folders(paths: Iterable[str | Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        pattern = str(Path(path))
        runs = [run for match in sorted(map(Path, glob.glob(pattern))) for run in _inside(match)]
        if not runs and not glob.has_magic(pattern):
            Run.open(Path(path))  # says what to do
        found.update(dict.fromkeys(runs))
    if not found:
        named = ", ".join(map(str, paths)) or "nothing"
        raise UserError(
            f"There is no run in {named}; pass run folders, such as idbench.load('runs/mine')."
        )
    return list(found)


def _inside(folder: Path) -> list[Path]:
    if (folder / "run.json").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("*/run.json"))


def _run_row(run: Run) -> dict[str, Any]:
    file = run.file
    suite, model, scoring = file.identity.suite, file.identity.model, file.scoring
    return {
        "run": str(run.folder), "system": run.name, "split": run.split,
        "seed": file.identity.seed, "suite": suite.name, "suite_version": suite.version,
        "model": model.name, "variant": model.variant, "revision": model.revision,
        "settings": model.settings, "protocol": scoring.protocol_name,
        "weights": scoring.weights, "idbench": file.packages.get("idbench"),
        "status": file.status, "created": file.created, "planned": len(run.sample_ids),
        "failed": file.counts.failed, "seconds": sum(file.timings.values()),
    }
