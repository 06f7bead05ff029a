"""The paper's tables measured on avatars, its own rows beside them, and whether its orders hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from idbench.reports import tables
from idbench.reports.marks import SIGNIFICANT
from idbench.reports.paper_rows import Section, Slot, sections
from idbench.runs import Run
from idbench.score_table import long_scores
from idbench.statistics import Estimate, estimate, holm, sign_flip

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("arcsim", "cursim", "viclip", "clipdist")
NOT_MEASURED = "not measured"
PEOPLES_METRICS = ("arcsim", "cursim")
"""Of single people, as in Table 2."""


@dataclass(frozen=True)
class PaperRow:
    """A row of the paper's table: what was measured here (None and empty: not run), and how to run
    it."""

    label: str
    system: str | None
    run: str | None
    estimates: Mapping[str, Estimate]
    how: str


@dataclass(frozen=True)
class Step:
    """One step of a published order: `first` has the higher value.

    `published` is first - second as printed, `measured` the paired difference here (None: not
    measured), `p_value` of a two-sided sign-flip test of identities, by Holm over the paper's
    table."""

    metric: str
    first: str
    second: str
    published: float
    measured: Estimate | None = None
    p_value: float | None = None

    @property
    def verdict(self) -> str:
        """Whether the step holds here."""
        if self.measured is None or self.measured.mean is None or self.p_value is None:
            return NOT_MEASURED
        if self.p_value >= SIGNIFICANT:
            return "not significant"
        return "holds" if self.measured.mean > 0 else "reversed"


@dataclass(frozen=True)
class PaperTable:
    """A section of a table of the paper: what was measured, and the published order tested."""

    section: Section
    caption: str
    rows: tuple[PaperRow, ...]
    steps: tuple[Step, ...]
    notes: tuple[str, ...]


def build(paper: int, groups: Sequence[Sequence[Run]]) -> tuple[PaperTable, ...]:
    """The sections of a table of the paper; of groups of runs measured alike, each section uses the
    one with most of its rows. Raises UserError: a group was not measured alike, or a run has no
    scores."""
    made = [_section(section, groups) for section in sections(paper)]
    steps = [step for table in made for step in table.steps]
    corrected = iter(holm([step.p_value for step in steps]))
    return tuple(
        replace(table, steps=tuple(replace(s, p_value=next(corrected)) for s in table.steps))
        for table in made
    )


def _section(section: Section, groups: Sequence[Sequence[Run]]) -> PaperTable:
    chosen = max(
        ([_choose(slot, section.split, group) for slot in section.slots] for group in groups),
        key=lambda runs: sum(run is not None for run in runs),
        default=[None] * len(section.slots),
    )
    used = list(dict.fromkeys(run for run in chosen if run is not None))
    tables.check_comparable(used)
    values: dict[str, pd.DataFrame] = {}
    rows = []
    for slot, run in zip(section.slots, chosen, strict=True):
        if run is not None:
            values[slot.label] = _values(run, slot.person)
        rows.append(_row(slot, section.split, run, values.get(slot.label)))
    return PaperTable(
        section, _caption(section, used), tuple(rows), tuple(_steps(section, values)),
        tuple(_notes(section, used, chosen)),
    )


def _choose(slot: Slot, split: str, runs: Sequence[Run]) -> Run | None:
    """The run that stands for a row: of its first system, with most samples, the newest."""
    for system in slot.systems:
        found = [run for run in runs if run.name == system and run.split == split]
        if found:
            return max(found, key=lambda run: (len(run.records()), run.file.created))
    return None


def _values(run: Run, person: int | None) -> pd.DataFrame:
    """As `tables.video_values`, of whole videos or of one person of each, by the suite's id."""
    videos = tables.video_values(run)
    if person is None:
        kept = [name for name in METRICS if name in videos]
        return videos[["suite_id", "cluster", *kept]].set_index("suite_id")
    named = {record.id: record.identities[person] for record in run.records()}
    scores = long_scores(run)
    mine = scores[
        scores["frame"].isna() & (scores["identity"] == scores["sample"].map(named))
        & scores["metric"].isin(PEOPLES_METRICS)
    ]
    wide = mine.pivot(index="sample", columns="metric", values="value").astype("float64")
    return videos[["suite_id", "cluster"]].join(wide).set_index("suite_id")


def _row(slot: Slot, split: str, run: Run | None, values: pd.DataFrame | None) -> PaperRow:
    how = slot.how(split)
    if run is None or values is None:
        return PaperRow(slot.label, None, None, {}, how)
    clusters = values["cluster"].tolist()
    estimates = {
        name: estimate(values[name], clusters)
        for name in METRICS if name in values
    }
    return PaperRow(slot.label, run.name, str(run.folder), estimates, how)


def _steps(section: Section, values: Mapping[str, pd.DataFrame]) -> list[Step]:
    found = []
    for claim in section.claims:
        for first, second in zip(claim.labels, claim.labels[1:], strict=False):
            published = section.printed(first, claim.metric) - section.printed(second, claim.metric)
            step = Step(claim.metric, first, second, published)
            both = [values.get(label) for label in (first, second)]
            if all(v is not None and claim.metric in v for v in both):
                step = _measured(step, *both)  # type: ignore[arg-type]
            found.append(step)
    return found


def _measured(step: Step, first: pd.DataFrame, second: pd.DataFrame) -> Step:
    """The step with its paired difference, and its p-value before Holm's correction."""
    both = first[[step.metric, "cluster"]].join(second[step.metric].rename("second"), how="inner")
    paired, clusters = both[step.metric] - both["second"], both["cluster"].tolist()
    return replace(step, measured=estimate(paired, clusters), p_value=sign_flip(paired, clusters))


def _caption(section: Section, used: Sequence[Run]) -> str:
    if not used:
        return f"{section.title}: nothing was measured yet."
    suite = used[0].file.identity.suite
    return (
        f"{section.title}, measured: suite {suite.name} {suite.version}, protocol "
        f"{used[0].file.scoring.protocol_name}; mean [95% interval, bootstrap over identities]; "
        "(share scored) where it is under 100%."
    )


def _notes(section: Section, used: Sequence[Run], chosen: Sequence[Run | None]) -> list[str]:
    notes = [
        f"{run.name} has {len(run.records())} of the {len(run.sample_ids)} samples that it was "
        "asked for." for run in used if len(run.records()) < len(run.sample_ids)
    ]
    counts = {len(run.records()) for run in used}
    if len(counts) > 1:
        notes.append(
            "The rows have different numbers of samples: only the paired differences compare them."
        )
    for slot, run in zip(section.slots, chosen, strict=True):
        if run is not None and run.name != slot.systems[0]:
            notes.append(
                f"{slot.label} is {run.name} here, which is trained longer than the baselines."
            )
    return list(dict.fromkeys(notes))
