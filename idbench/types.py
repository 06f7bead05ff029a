"""The data that travels between suite, model, metrics and report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Reference:
    """One reference image of a sample.

    Attributes:
        kind: `face`, `garment` or `background`.
        name: the identity's name in the suite (for a face), else the item's name.
        image: path of an RGB image file.
        more: further photographs of the same person. Metrics compare with the mean of all; a
            model is given `image` alone.
    """

    kind: str
    name: str
    image: Path
    more: tuple[Path, ...] = ()

    @property
    def images(self) -> tuple[Path, ...]:
        """Every photograph."""
        return (self.image, *self.more)

    def moved(self, place: Callable[[Path], Path]) -> Reference:
        """The same, with each photograph at its `place`."""
        return replace(self, image=place(self.image), more=tuple(map(place, self.more)))


@dataclass(frozen=True)
class Sample:
    """One unit of work: what to generate.

    Attributes:
        id: the sample's id in a run; before a model is known, `suite_id`.
        references: left to right, as the people in the video.
        seed: derives from the suite's part of the sample (suite version, identities, prompt,
            repetition), never from batch position, rank or worker count.
        suite_id: equal in the runs of different models.
    """

    id: str
    split: str
    prompt_id: str
    prompt: str
    category: str
    references: tuple[Reference, ...]
    seed: int
    truth: Mapping[str, Any] = field(default_factory=dict)
    suite_id: str = ""

    @cached_property
    def people(self) -> tuple[Reference, ...]:
        """The face references."""
        return tuple(r for r in self.references if r.kind == "face")

    @cached_property
    def identities(self) -> tuple[str, ...]:
        return tuple(r.name for r in self.people)


@dataclass(frozen=True)
class Video:
    """Frames of one video: uint8 RGB of shape (frames, height, width, 3), and its rate.

    `notes` say where the model could not do what was asked, such as a reference without a face.
    """

    frames: np.ndarray
    fps: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Abilities:
    """What a model can generate, shown by `idbench list models` and used to refuse a split.

    Attributes:
        people: fewest and most people with a face reference in a sample.
        others: the kinds of reference that it takes besides, such as `garment`.
        licence: of the released weights.
        extra: the extra of idbench that it needs at the paper's scale.
        why: the reason for the limits, in a few words.
    """

    people: tuple[int, int]
    others: tuple[str, ...] = ()
    licence: str = ""
    extra: str | None = None
    why: str = ""

    def refusal(self, sample: Sample) -> str | None:
        """Why the model cannot make `sample`; None: it can."""
        fewest, most = self.people
        people = len(set(sample.identities))  # of one person there may be several pictures
        if not fewest <= people <= most:
            span = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            reason = f"takes {span} {'person' if span == '1' else 'people'}, not {people}"
        else:
            kinds = {reference.kind for reference in sample.references}
            unknown = sorted(kinds - {"face", *self.others})
            if not unknown:
                return None
            reason = f"takes no {' or '.join(unknown)} reference"
        return f"{reason} ({self.why})" if self.why else reason


@dataclass(frozen=True)
class Score:
    """One value of one metric, or the reason why there is none.

    `identity` is the reference the value speaks of (None: of the whole video); `frame` is
    the index of the frame (None: of the whole video). `value` is None exactly when `reason`
    is not.
    """

    sample: str
    metric: str
    identity: str | None
    frame: int | None
    value: float | None
    reason: str | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("a score has a value or a reason, never both or neither")

    @property
    def status(self) -> str:
        return "scored" if self.reason is None else "unscored"


class Model(Protocol):
    """A system that makes videos. Registered lazily by name as "module:attr".

    The registered attribute is called with `variant` (after `@` on the command line, or
    None) and keyword settings, and returns an object like this one. Making it must be quick:
    `run` makes it even when all videos are there, to compare settings and weights. Networks are
    loaded in `load()`, which a model may have, or in `generate`. It may also have `abilities`
    (`Abilities`): a split with samples that it cannot make is then refused with the reason;
    `check(samples)`, which raises a UserError if it cannot make these samples for another reason;
    and `use_device(device)`, called before `load` with the device of torch that `--device` names.
    """

    name: str
    revision: str
    maximum_references: int

    def settings(self) -> Mapping[str, Any]:
        """Everything that changes what is generated (steps, guidance, size, ...)."""
        ...

    def weight_hashes(self) -> Mapping[str, str]:
        """sha256 of every weight file read, by file name."""
        ...

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video | Path]:
        """One video per sample, in order. Each depends on its own sample alone.

        A path is a video file that is finished; it is copied into the run.
        """
        ...
