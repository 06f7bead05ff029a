"""The samples of a run as its model makes them, and where they are made."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Literal, cast

from pydantic import ConfigDict, TypeAdapter

from idbench.errors import UserError, explained
from idbench.records import ModelName
from idbench.runs import Shard, sample_id
from idbench.stored import PlainName
from idbench.types import Abilities, Model, Sample

_REPORT = "report this to its authors"
_NAMES = TypeAdapter(list[PlainName], config=ConfigDict(strict=True))


@contextmanager
def absolute(start: Path, given: Path) -> Iterator[Path]:
    """`given`, seen from the directory `start`, as an absolute path, since models change
    directories. Errors name it as given; at the end the working directory is `start` again."""
    folder = start / given
    try:
        yield folder
    except UserError as error:
        error.args = (str(error).replace(str(folder), str(given)),)
        raise
    finally:
        os.chdir(start)


def plan(
    of_seeds: Sequence[Sequence[Sample]], model: Model, name: ModelName, start: Path,
    shard: Shard | None,
) -> tuple[list[Sample], list[Sample]]:
    """All samples of a run, and those of a shard, with their ids in the run.

    `of_seeds`: the suite's samples with each seed; `start`: where relative paths of images begin.
    Raises UserError: the model cannot take a sample's references, or its own `check` refuses them.
    """
    samples = [sample for of_seed in of_seeds for sample in of_seed]
    abilities: Abilities | None = getattr(model, "abilities", None)
    if abilities is not None and not isinstance(abilities, Abilities):
        raise UserError(
            f"The model {name.title} has a {type(abilities).__name__} as `abilities`, not an "
            "idbench.types.Abilities; report this to its authors."
        )
    for sample in samples:
        if abilities and (reason := abilities.refusal(sample)):
            raise UserError(
                f"The model {name.title} cannot make the samples of this split: it {reason}; "
                "choose another --split or --model."
            )
    most = max((len(s.references) for s in samples), default=0)
    if most > model.maximum_references:
        raise UserError(
            f"The model {name.title} takes at most {model.maximum_references} reference(s), the "
            f"split has samples with {most}; choose another variant of the model or another "
            "--split."
        )
    check = getattr(model, "check", None)
    if callable(check):
        with explained(f"The model {name.title} cannot check its samples", _REPORT):
            check(samples)
    identify = getattr(model, "sample_id", lambda s: sample_id(s.suite_id, name))

    def named(sample: Sample) -> Sample:
        references = tuple(
            replace(r, image=start / r.image, more=tuple(start / path for path in r.more))
            for r in sample.references
        )
        return replace(sample, id=identify(sample), references=references)

    with explained(f"The model {name.title} cannot name its samples", _REPORT):
        planned = [[named(sample) for sample in of_seed] for of_seed in of_seeds]
        ids = _NAMES.validate_python([sample.id for sample in chain(*planned)])
        if len(set(ids)) < len(ids):
            raise ValueError("two samples have the same id")
    mine = planned if shard is None else [shard.of(of_seed) for of_seed in planned]
    return list(chain(*planned)), list(chain(*mine))


def kind_of(model: Model) -> Literal["generate", "videos"]:
    """Whether a model generates its videos, or has finished ones. Raises UserError: it says
    something else."""
    kind = getattr(model, "kind", "generate")
    if kind not in ("generate", "videos"):
        raise UserError(
            f"The model {model.name} has the kind {str(kind)[:40]!r}, which is neither 'generate' "
            f"nor 'videos'; {_REPORT}."
        )
    return cast(Literal["generate", "videos"], kind)
