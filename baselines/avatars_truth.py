"""The prompts' own truth as a system: what a perfect model could score on avatars, and its reverse.

Nothing is generated. The renderer of the avatars shows the scene that a sample's truth states, with
the identities of its references (`avatars_truth`), or with as many other people in their places
(`avatars_truth@strangers`). The first is an upper bound of every metric on identity and prompt,
measured through the same chain as any model: encoding, detection, alignment, networks. The second
says what those metrics give a video that does everything right but the people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from idbench.errors import UserError
from idbench.prompts.avatars.scene import scene_of
from idbench.types import Abilities, Sample, Video

STRANGERS_FROM = 500
"""A stranger's identity seed is that of the person plus this: in no suite, in no training."""
LARGEST_SEED = 499


class AvatarsTruth:
    """Renders each sample's truth; see the module.

    Args:
        variant: None, or `strangers`.
        frames, height, width: of the videos, as the embedded Concat-ID makes them by default.

    Raises:
        UserError: an unknown variant or a size that cannot be rendered; in `generate`, a sample
            that states no avatars.
    """

    name = "avatars_truth"
    maximum_references = 4
    abilities = Abilities(people=(0, 4), others=("garment", "background"), licence="Apache-2.0")
    VARIANTS = ("strangers",)

    def __init__(
        self, variant: str | None = None, frames: int = 9, height: int = 64, width: int = 96
    ) -> None:
        if variant is not None and variant not in self.VARIANTS:
            raise UserError(
                f"avatars_truth has no variant {variant!r}; use {self.VARIANTS[0]!r}, or none."
            )
        if min(frames, height // 16, width // 16) < 1:
            raise UserError("frames must be at least 1, height and width at least 16.")
        self.variant, self.frames = variant, int(frames)
        self.height, self.width = int(height), int(width)

    @property
    def revision(self) -> str:
        from idbench.prompts.avatars.march import DATA_VERSION  # slow to import

        return f"avatars-{DATA_VERSION}"

    def settings(self) -> Mapping[str, Any]:
        return {
            "variant": self.variant, "frames": self.frames, "height": self.height,
            "width": self.width,
        }

    def weight_hashes(self) -> Mapping[str, str]:
        return {}

    def generate(self, samples: Sequence[Sample]) -> Iterator[Video]:
        from idbench.prompts.avatars.render import render_clip

        for sample in samples:
            people = [seed_of(sample, name) for name in sample.identities]
            if self.variant == "strangers":
                people = [person + STRANGERS_FROM for person in people]
            # A background reference was rendered by a seed of its own, which is part of the truth.
            seed = int(sample.truth.get("background_seed", sample.seed))
            clip = render_clip(
                scene_of(sample.truth, people, seed), self.frames, self.height, self.width
            )
            yield Video(clip.frames, clip.fps)


def seed_of(sample: Sample, name: str) -> int:
    """The identity seed of a person of a suite of avatars, whose names are `a` and the seed.
    Raises UserError: the sample's people are no avatars, or nothing is stated of them."""
    found = re.fullmatch(r"a(\d+)", name)
    stated = [person.get("identity") for person in sample.truth.get("people", ())]
    if found is None or name not in stated or int(found[1]) > LARGEST_SEED:
        raise UserError(
            f"avatars_truth renders the truth of avatars, but the sample {sample.prompt_id} "
            f"states none of {name!r}; use it with --suite avatars."
        )
    return int(found[1])
