"""Tables: means with intervals and coverage of runs, and apart from them the published rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from idbench.differences import Difference, differences, in_words, incomparable
from idbench.errors import UserError
from idbench.measurements import Share, metric_names, metric_of, shares
from idbench.published_weights import published_name
from idbench.reports import table_output
from idbench.reports.columns import shown
from idbench.reports.published import PublishedTable
from idbench.reports.video_values import estimates, pair, video_values
from idbench.runs import Run
from idbench.statistics import Estimate, estimate, holm, sign_flip

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("md", "csv", "json", "latex", "html")
NAMED = 8
"""So many references are named in a note."""
SIGNIFICANT = 0.05
CELLS = "mean [95% interval, bootstrap over identities]; (share scored) where it is under 100%."


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
    found = _shares(runs, values)
    marks = _marks(values, splits, [share.whole for share in found])
    rows = tuple(
        MeasuredRow(name, str(run.folder), split, estimates(of_run), run.file.status, best)
        for run, name, split, of_run, best in zip(runs, names, splits, values, marks, strict=True)
    )
    chosen = None if compare is None else matching(runs, compare)
    notes = [
        f"{name} has {share} of {split}: a part of a split is not comparable, so it is never "
        "marked as best."
        for name, split, share in zip(names, splits, found, strict=True) if not share.whole
    ]
    return Tables(
        _caption(runs, any(marks)), rows, tuple(_differences(names, splits, values, chosen)),
        tuple(published), tuple(dict.fromkeys(notes + _notes(runs))),
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
        if found := unlike(runs[0], run):
            raise UserError(
                f"{runs[0].folder} and {run.folder} cannot share a table ({in_words(found)}); "
                "rescore one with `idbench score RUN`, or print two tables."
            )


def unlike(first: Run, second: Run) -> list[Difference]:
    """What keeps two runs out of one table."""
    before, after = first.file.scoring.metrics, second.file.scoring.metrics
    found = incomparable(first.file, second.file)
    for name in sorted(before.keys() & after.keys()):
        found += differences(before[name], after[name], f"version of {name}")
    return found


def _shares(runs: Sequence[Run], values: Sequence[pd.DataFrame]) -> list[Share]:
    """The share of each run in what the runs of its split were asked for together."""
    groups = [(of_run, len(run.sample_ids) - len(of_run))
              for run, of_run in zip(runs, values, strict=True)]
    found: dict[int, Share] = {}
    for places in _by_split([run.split for run in runs]):
        found |= zip(places, shares([groups[i] for i in places]), strict=True)
    return [found[i] for i in range(len(runs))]


def _by_split(splits: Sequence[str]) -> list[list[int]]:
    """The places of each split."""
    return [[i for i, s in enumerate(splits) if s == split] for split in dict.fromkeys(splits)]


def _marks(
    values: Sequence[pd.DataFrame], splits: Sequence[str], whole: Sequence[bool]
) -> list[dict[str, str]]:
    """The best of each split and metric among runs with the whole split, and the second if it is
    surely worse."""
    marks: list[dict[str, str]] = [{} for _ in values]
    seconds: list[tuple[int, str, float | None]] = []
    for of_split in _by_split(splits):
        places = [i for i in of_split if whole[i]]
        for name in dict.fromkeys(n for i in places for n in metric_names(values[i]) if shown(n)):
            metric = metric_of(name)
            means = {i: float(values[i][name].mean()) for i in places
                     if name in values[i] and values[i][name].notna().any()}
            if metric is None or len(means) < 2:
                continue
            order = sorted(means, key=lambda i: means[i], reverse=metric.higher_is_better)
            best = [i for i in order if means[i] == means[order[0]]]
            for i in best:
                marks[i][name] = "best"
            if len(best) == 1:
                paired = pair(values[order[0]], values[order[1]], name)
                seconds.append((order[1], name, sign_flip(*paired)))
    for (i, name, _), p in zip(seconds, holm([p for _, _, p in seconds]), strict=True):
        if p is not None and p < SIGNIFICANT:
            marks[i][name] = "second"
    return marks


def _caption(runs: Sequence[Run], marked: bool) -> str:
    if not runs:
        return ""
    suite = runs[0].file.identity.suite
    protocol = runs[0].file.scoring.protocol_name or "not scored"
    named = f"suite {suite.name} {suite.version}"
    if any(_lacks_published_weights(run) for run in runs):
        protocol += " without the published weights"
    caption = f"Measured: {named.strip()}, protocol {protocol}; {CELLS}"
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
    rows: list[DifferenceRow] = []
    raw: list[dict[str, float | None]] = []
    for places in _by_split(splits):
        base = [i for i in places if compared is None or i in compared][:1]
        for other in places:
            if not base or other == base[0]:
                continue
            first, second = (base[0], other) if compared is None else (other, base[0])
            estimates, p_values = _difference(values[first], values[second])
            if estimates:
                rows.append(DifferenceRow(
                    names[first], names[second], splits[first], estimates))
                raw.append(p_values)
    corrected = iter(holm([p for of_row in raw for p in of_row.values()]))
    return [
        replace(row, p_values={
            name: p for name, p in zip(of_row, corrected, strict=False) if p is not None})
        for row, of_row in zip(rows, raw, strict=True)
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
