"""The paper's tables measured on avatars: which systems stand for its rows, and whether its orders
hold.

Source of rows and orders: arXiv 2503.14151 v3, Tables 1 to 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from idbench.embedded import entries
from idbench.recipes import recipe_files
from idbench.reports import tables
from idbench.reports.published import PublishedTable, published_tables
from idbench.reports.video_values import pair, video_values
from idbench.runs import Run
from idbench.score_table import long_scores
from idbench.statistics import Estimate, estimate, holm, sign_flip

if TYPE_CHECKING:
    import pandas as pd

METRICS = ("arcsim", "cursim", "viclip", "clipdist")
NOT_MEASURED = "not measured"
PEOPLES_METRICS = ("arcsim", "cursim")
"""Of single people, as in Table 2."""


def shipped(system: str) -> bool:
    """Whether idbench has embedded weights of `NAME[@VARIANT]`."""
    name, _, variant = system.partition("@")
    return (f"transformer_{variant}" if variant else name) in entries()


@dataclass(frozen=True)
class Slot:
    """A row of a table, labelled as in `published.yaml`. The first of `systems` (NAME[@VARIANT])
    that was run stands for it. `person`: which person of each video is measured, from the left;
    None: all."""

    label: str
    systems: tuple[str, ...]
    person: int | None = None

    @property
    def system(self) -> str:
        """The first system with embedded weights; where none has, the first."""
        return next((name for name in self.systems if shipped(name)), self.systems[0])

    def how(self, split: str) -> str:
        """The commands that run it, or why there are none."""
        run, recipe = f"idbench run --model {self.system} --split {split}", self.system
        if shipped(self.system):
            return run
        if recipe in recipe_files():
            return f"idbench train {recipe}; {run}"
        return "this version has no embedded weights of it"


@dataclass(frozen=True)
class Claim:
    """An order that the paper's numbers show: rows of one metric, the highest value first."""

    metric: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """A table of the paper, or one half of it."""

    paper: int
    split: str
    title: str
    slots: tuple[Slot, ...]
    claims: tuple[Claim, ...]

    @property
    def published(self) -> tuple[PublishedTable, ...]:
        """As printed, the newest version first."""
        return tuple(
            t for t in published_tables() if t.paper == self.paper and t.section == self.split
        )

    def printed(self, label: str, metric: str) -> float:
        """The published value of a row."""
        rows = {row.label: row.values for row in self.published[0].rows}
        return rows[label][metric]


WITHOUT, WITH = "Concat-ID without pre-training", "Concat-ID with pre-training"
PEOPLE = ("identity 1", "identity 2")
CONTROL = "Concat-ID Stage I, continued"
"""As many more steps of Stage I as Stage II has: a row of ours, not of the paper."""
STAGES = ("Concat-ID Stage I", "Concat-ID Stage II", "Concat-ID Stage III")

SECTIONS = (
    Section(
        1, "single", "Table 1, one person",
        (
            Slot("ID-Animator", ("id_animator",)), Slot("ConsisID", ("consisid",)),
            # `equal` and `multi_scratch`: trained with the baselines' data and steps.
            Slot("Concat-ID", ("concat_id@equal", "concat_id@stage3")),
        ),
        tuple(Claim(m, ("Concat-ID", "ConsisID", "ID-Animator")) for m in ("arcsim", "cursim")),
    ),
    Section(
        1, "multi", "Table 1, two people",
        (
            Slot("Ingredients", ("ingredients",)),
            Slot("Concat-ID", ("concat_id@multi_scratch", "concat_id@multi")),
        ),
        tuple(Claim(m, ("Concat-ID", "Ingredients")) for m in ("arcsim", "cursim")),
    ),
    Section(
        2, "multi", "Table 2, pre-training on one person",
        tuple(
            Slot(f"{form}, {person}", (system,), place)
            for form, system in ((WITHOUT, "concat_id@multi_scratch"), (WITH, "concat_id@multi"))
            for place, person in enumerate(PEOPLE)
        ),
        tuple(
            Claim(metric, (f"{WITH}, {person}", f"{WITHOUT}, {person}"))
            for person in PEOPLE for metric in ("arcsim", "cursim")
        ),
    ),
    Section(
        3, "single", "Table 3, training stages",
        tuple(
            Slot(label, (system,)) for label, system in zip(
                STAGES, ("concat_id@single", "concat_id@stage2", "concat_id@stage3"), strict=True)
        ) + (Slot(CONTROL, ("concat_id@continued",)),),
        (
            Claim("arcsim", (STAGES[0], STAGES[2], STAGES[1])),
            Claim("cursim", (STAGES[0], STAGES[2], STAGES[1])),
            Claim("clipdist", (STAGES[1], STAGES[2], STAGES[0])),
        ),
    ),
)


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
        if self.p_value >= tables.SIGNIFICANT:
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
    made = [_section(section, groups) for section in SECTIONS if section.paper == paper]
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
        row = PaperRow(slot.label, None, None, {}, slot.how(section.split))
        if run is not None:
            of_row = values[slot.label] = _values(run, slot.person)
            clusters = of_row["cluster"].tolist()
            row = replace(row, system=run.name, run=str(run.folder), estimates={
                name: estimate(of_row[name], clusters) for name in METRICS if name in of_row})
        rows.append(row)
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
    """As `video_values`, of whole videos or of one person of each."""
    videos = video_values(run)
    if person is None:
        return videos
    named = {record.id: record.identities[person] for record in run.records()}
    scores = long_scores(run)
    mine = scores[
        scores["frame"].isna() & (scores["identity"] == scores["sample"].map(named))
        & scores["metric"].isin(PEOPLES_METRICS)
    ]
    wide = mine.pivot(index="sample", columns="metric", values="value").astype("float64")
    return videos[["sample", "cluster"]].join(wide, on="sample")


def _steps(section: Section, values: Mapping[str, pd.DataFrame]) -> list[Step]:
    """With p-values before Holm's correction."""
    found = []
    for claim in section.claims:
        for first, second in pairwise(claim.labels):
            published = section.printed(first, claim.metric) - section.printed(second, claim.metric)
            step = Step(claim.metric, first, second, published)
            both = [values[label] for label in (first, second)
                    if claim.metric in values.get(label, ())]
            if len(both) == 2:
                paired = pair(both[0], both[1], claim.metric)
                step = replace(step, measured=estimate(*paired), p_value=sign_flip(*paired))
            found.append(step)
    return found


def _caption(section: Section, used: Sequence[Run]) -> str:
    if not used:
        return f"{section.title}: nothing was measured yet."
    suite = used[0].file.identity.suite
    return (
        f"{section.title}, measured: suite {suite.name} {suite.version}, protocol "
        f"{used[0].file.scoring.protocol_name}; {tables.CELLS}"
    )


def _notes(section: Section, used: Sequence[Run], chosen: Sequence[Run | None]) -> list[str]:
    counts = [len(run.records()) for run in used]
    notes = [
        f"{run.name} has {count} of the {len(run.sample_ids)} samples that it was asked for."
        for run, count in zip(used, counts, strict=True) if count < len(run.sample_ids)
    ]
    if len(set(counts)) > 1:
        notes.append(
            "The rows have different numbers of samples: only the paired differences compare them."
        )
    for slot, run in zip(section.slots, chosen, strict=True):
        if run is not None and run.name != slot.systems[0]:
            notes.append(
                f"{slot.label} is {run.name} here, which is trained longer than the baselines."
            )
    return list(dict.fromkeys(notes))
