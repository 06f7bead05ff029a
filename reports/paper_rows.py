"""Which systems stand for the rows of the Concat-ID paper's tables on avatars, and what it claims.

Source: arXiv 2503.14151 v3, Tables 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass

from idbench.embedded import entries
from idbench.recipes import recipe_files
from idbench.reports.published import PublishedTable, published_tables


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


def sections(paper: int) -> tuple[Section, ...]:
    """Those of one table of the paper."""
    return tuple(section for section in SECTIONS if section.paper == paper)
