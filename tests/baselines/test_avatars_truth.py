"""The truth as a system: what it shows is what the suite states, of the people it states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from idbench.baselines.avatars_truth import AvatarsTruth
from idbench.errors import UserError
from idbench.metrics.identity_similarity import ARCSIM
from idbench.metrics.scorer import Scorer
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import (
    TRAINING_IDENTITIES,
    VALIDATION_IDENTITIES,
    Person,
    Scene,
)
from idbench.registry import MODELS
from idbench.suite import load_suite
from idbench.types import Sample


def samples(split: str, count: int) -> list[Sample]:
    return list(load_suite("avatars").samples(split, limit=count))


def arcsim_of(sample: Sample, model: AvatarsTruth) -> float:
    (video,) = model.generate([sample])
    rows = Scorer("strict-v3", None, (ARCSIM,)).score(sample, video, "0" * 64)
    value = next(r.value for r in rows if r.identity is None and r.frame is None)
    assert value is not None
    return value


def test_it_is_registered_and_takes_every_split() -> None:
    assert MODELS.load("avatars_truth") is AvatarsTruth
    suite = load_suite("avatars")
    most = max(len(s.references) for split in suite.splits for s in suite.samples(split))
    assert most <= AvatarsTruth.maximum_references


def test_a_video_is_the_stated_scene_whatever_the_order() -> None:
    first, second = samples("multi", 2)
    alone = next(AvatarsTruth().generate([second])).frames
    both = list(AvatarsTruth().generate([first, second]))
    assert np.array_equal(both[1].frames, alone) and alone.shape == (9, 64, 96, 3)
    larger = next(AvatarsTruth(frames=2, height=96, width=144).generate([second]))
    assert larger.frames.shape == (2, 96, 144, 3) and larger.fps == 8.0


def test_stated_people_and_background_are_shown() -> None:
    sample = samples("background", 1)[0]
    person = sample.truth["people"][0]
    scene = Scene(
        (Person(int(sample.identities[0][1:]), person.get("expression", "neutral"),
                person.get("motion", "still")),),
        sample.truth["background"], seed=sample.truth["background_seed"],
    )
    true = render_clip(scene).frames.astype(int)
    shown = next(AvatarsTruth().generate([sample])).frames.astype(int)
    # The garment is open, so the lower part may differ; wall and head are the stated ones.
    assert np.abs(true[:, :20] - shown[:, :20]).mean() < 1


def test_the_truth_is_like_its_references_and_strangers_are_not() -> None:
    sample = samples("single", 1)[0]
    true, other = arcsim_of(sample, AvatarsTruth()), arcsim_of(sample, AvatarsTruth("strangers"))
    assert true > 0.5 and other < 0.3


def test_strangers_are_in_no_suite_and_no_training() -> None:
    from idbench.baselines.avatars_truth import LARGEST_SEED, STRANGERS_FROM

    suite = load_suite("avatars")
    known = {int(name[1:]) for name in suite.identities}
    strangers = {seed + STRANGERS_FROM for seed in known}
    assert max(known) <= LARGEST_SEED and not strangers & known
    assert max(strangers) < VALIDATION_IDENTITIES.start < TRAINING_IDENTITIES.start


@pytest.mark.parametrize("change", [
    {"truth": {}}, {"truth": {"people": [{"expression": "smile"}]}},
])
def test_samples_without_a_truth_are_refused(change: dict[str, object]) -> None:
    sample = replace(samples("single", 1)[0], **change)
    with pytest.raises(UserError, match="--suite avatars"):
        list(AvatarsTruth().generate([sample]))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(UserError, match="no variant 'truth'"):
        AvatarsTruth("truth")
    with pytest.raises(UserError, match="at least 1"):
        AvatarsTruth(frames=0)
