"""Tables: means with intervals and coverage of runs, and apart from them the published rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from idbench.differences import differences, in_words, scoring_differences
from idbench.errors import UserError
from idbench.published_weights import published_name
from idbench.reports import table_output
from idbench.reports.columns import shown
from idbench.reports.marks import mark, part_notes, shares_of_runs
from idbench.reports.published import PublishedTable
from idbench.reports.video_values import estimates, metric_names, pair, video_values
from idbench.runs import Run
from idbench.statistics import Estimate, estimate, holm, sign_flip

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("md", "csv", "json", "latex", "html")
PARTS = ("suite", "protocol", "weights", "detector")
"""What has to be equal in one table."""
NAMED = 8
"""So many references are named in a note."""


@dataclass(frozen=True)
class MeasuredRow:
    """One run in the table: an estimate for each metric. `marks`: metric -> `best`, or `second` if
    it differs significantly from the best of the split."""

    system: str
    run: str
    split: str
    estimates: Mapping[str, Estimate]
    status: str
    marks: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DifferenceRow:
    """Paired difference first - second over the samples that both runs have. `p_values`: by shown
    metric, two-sided, of a sign-flip test of identities, Holm-corrected over all differences."""

    first: str
    second: str
    split: str
    estimates: Mapping[str, Estimate]
    p_values: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tables:
    """What a table command prints: measured rows, paired differences, published tables."""

    caption: str
    rows: tuple[MeasuredRow, ...] = ()
    differences: tuple[DifferenceRow, ...] = ()
    published: tuple[PublishedTable, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return table_output.render(self, "md")

    def _repr_html_(self) -> str:
        return table_output.render(self, "html")


def measured(
    runs: Sequence[Run], published: Sequence[PublishedTable] = (), compare: str | None = None
) -> Tables:
    """The table of `runs`, which must have been measured alike.

    Args:
        published: published tables to stand apart, after it.
        compare: the run, by system or folder, from which the others' differences are taken (other -
            compared). Default: the first of each split, minus each other.

    Raises UserError: suites, protocols or versions differ; says which.
    """
    check_comparable(runs)
    values = [video_values(run) for run in runs]
    names = labels(runs)
    splits = [run.split for run in runs]
    found = shares_of_runs(runs, values)
    marks = mark(values, splits, [share.whole for share in found])
    rows = tuple(
        MeasuredRow(name, str(run.folder), split, estimates(of_run), run.file.status, best)
        for run, name, split, of_run, best in zip(runs, names, splits, values, marks, strict=True)
    )
    chosen = None if compare is None else matching(runs, compare)
    return Tables(
        _caption(runs, any(marks)), rows, tuple(_differences(names, splits, values, chosen)),
        tuple(published), tuple(dict.fromkeys(part_notes(names, splits, found) + _notes(runs))),
    )


def matching(runs: Sequence[Run], name: str) -> list[int]:
    """Places of the runs that `name` means: their system, folder, or name in the table."""
    return [
        place for place, (run, label) in enumerate(zip(runs, labels(runs), strict=True))
        if name in (run.name, label, run.folder.name, str(run.folder))
    ]


def labels(runs: Sequence[Run]) -> list[str]:
    """Names of the runs as shown everywhere: the system's, with the folder if two are alike."""
    names = [run.name for run in runs]
    return [
        name if names.count(name) == 1 else f"{name} ({run.folder.name})"
        for name, run in zip(names, runs, strict=True)
    ]


def check_comparable(runs: Sequence[Run]) -> None:
    """Raise UserError, naming everything that differs, for runs that were not measured alike."""
    for run in runs[1:]:
        first = runs[0]
        before, after = first.file.scoring, run.file.scoring
        found = differences(_part(first, "suite"), _part(run, "suite"), "suite")
        found += sum(scoring_differences(before, after).values(), [])
        for name in sorted(before.metrics.keys() & after.metrics.keys()):
            found += differences(before.metrics[name], after.metrics[name], f"version of {name}")
        if found:
            raise UserError(
                f"{first.folder} and {run.folder} cannot share a table ({in_words(found)}); "
                "rescore one with `idbench score RUN`, or print two tables."
            )


def comparability(run: Run) -> str:
    """Equal for runs that may stand in one table."""
    versions = sorted(set(run.file.scoring.metrics.values()))
    parts = [_part(run, what) for what in PARTS]
    return json.dumps([*parts, [v for v in versions if v.startswith("idbench ")]], sort_keys=True)


def _caption(runs: Sequence[Run], marked: bool) -> str:
    if not runs:
        return ""
    suite = runs[0].file.identity.suite
    protocol = runs[0].file.scoring.protocol_name or "not scored"
    named = f"suite {suite.name} {suite.version}"
    if any(_lacks_published_weights(run) for run in runs):
        protocol += " without the published weights"
    caption = (
        f"Measured: {named.strip()}, protocol {protocol}; mean "
        "[95% interval, bootstrap over identities]; (share scored) where it is under 100%."
    )
    if marked:
        caption += (
            " Bold: best of the split; underlined: second, where its paired difference from the "
            "best is significant (p under 0.05, Holm)."
        )
    return caption


def _lacks_published_weights(run: Run) -> bool:
    """Whether the protocol is defined on published weights and the run was scored with others."""
    scoring = run.file.scoring
    return bool((scoring.protocol or {}).get("networks")) and any(
        published_name(sha256) is None for sha256 in (scoring.weight_files or {}).values())


def _notes(runs: Sequence[Run]) -> list[str]:
    notes = [n for run in runs for n in run.file.scoring.notes]
    notes += [note for run in runs for note in _reference_notes(run)]
    notes += [note for run in runs if (note := _prompt_note(run))]
    notes += [
        f"{run.folder}: the sample {sample} is damaged and left out ({problem})"
        for run in runs for sample, problem in run.damaged.items()
    ]
    return notes + [
        f"{run.folder} is not finished: {len(run.records())} of {len(run.sample_ids)} samples."
        for run in runs if run.file.status != "finished"
    ]


def _prompt_note(run: Run) -> str | None:
    """What to say of prompts that ViCLIP reads in part only."""
    cut = run.file.scoring.prompts_cut
    if not cut:
        return None
    share = sum(cut.values()) / len(cut)
    return (
        f"{run.name}: ViCLIP reads 32 tokens, so {len(cut)} prompts were read in part only "
        f"({share:.0%} of their text on average); --metric +viclip_sentences reads all of it."
    )


def _reference_notes(run: Run) -> list[str]:
    """What was found on references that show no face or several, alike ones in one sentence."""
    alike: dict[str, list[str]] = {}
    for name, note in run.file.scoring.reference_notes.items():
        alike.setdefault(note, []).append(name)
    found = []
    for note, names in alike.items():
        more = len(names) - NAMED
        listed = ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
        found.append(f"Reference {listed}: {note}.")
    return found


def _differences(
    names: Sequence[str], splits: Sequence[str], values: Sequence[pd.DataFrame],
    compared: Sequence[int] | None,
) -> list[DifferenceRow]:
    """Within each split: the first run minus each other, or each other minus the compared."""
    rows: list[tuple[int, int, dict[str, Estimate], dict[str, float | None]]] = []
    for split in dict.fromkeys(splits):
        places = [i for i, s in enumerate(splits) if s == split]
        base = [i for i in places if compared is None or i in compared][:1]
        for other in places:
            if not base or other == base[0]:
                continue
            first, second = (base[0], other) if compared is None else (other, base[0])
            found = _difference(values[first], values[second])
            if found[0]:
                rows.append((first, second, *found))
    keys = [(i, name) for i, row in enumerate(rows) for name in row[3]]
    corrected = holm([rows[i][3][name] for i, name in keys])
    known: list[dict[str, float]] = [{} for _ in rows]
    for (i, name), p in zip(keys, corrected, strict=True):
        if p is not None:
            known[i][name] = p
    return [
        DifferenceRow(names[first], names[second], splits[first], estimates, p_values)
        for (first, second, estimates, _), p_values in zip(rows, known, strict=True)
    ]


def _difference(
    first: pd.DataFrame, second: pd.DataFrame
) -> tuple[dict[str, Estimate], dict[str, float | None]]:
    """Paired estimates of the metrics both have, and p-values of those shown."""
    estimates: dict[str, Estimate] = {}
    p_values: dict[str, float | None] = {}
    for name in (n for n in metric_names(first) if n in second):
        paired, clusters = pair(first, second, name)
        if len(paired) < 2:
            continue
        estimates[name] = estimate(paired, clusters)
        if shown(name):
            p_values[name] = sign_flip(paired, clusters)
    return estimates, p_values


def _part(run: Run, what: str) -> Any:
    if what == "suite":
        return run.file.identity.suite.model_dump()
    return getattr(run.file.scoring, what) or None
