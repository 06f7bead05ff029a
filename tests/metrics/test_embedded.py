"""The embedded networks: their bars, their sizes, and true videos through the whole scorer."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from idbench import embedded
from idbench.metrics.networks.clip import ViclipEmbedder
from idbench.metrics.networks.parser import face_foreground
from idbench.metrics.protocols import STRICT, sample_video_frames
from idbench.metrics.scorer import Scorer
from idbench.prompts.avatars.march import PARTS
from idbench.prompts.avatars.render import render_clip, render_portrait
from idbench.prompts.avatars.scene import (
    MOTIONS,
    VALIDATION_IDENTITIES,
    Garment,
    Person,
    Scene,
)
from idbench.prompts.language import describe
from idbench.types import Reference, Sample, Video

BARS = {
    "arcface": ("tar_at_far_1e-3", 0.89, 6.0),
    "curricularface": ("tar_at_far_1e-3", 0.9, 6.0),
    "clip": ("r1_full", 0.8, 6.0),
    "viclip": ("r1_full", 0.8, 6.0),
    "face_parser": ("foreground_iou", 0.95, 2.0),
    "expression": ("accuracy", 0.8, 0.6),
}


@pytest.mark.parametrize("name", list(BARS))
def test_the_manifest_says_that_the_bar_was_met_within_the_size(name):
    key, bar, megabytes = BARS[name]
    assert embedded.entry(name)["measured"][key] >= bar
    assert embedded.weight_path(name).stat().st_size <= megabytes * 1e6


def test_viclip_tells_head_motions_apart():
    network, right = ViclipEmbedder("viclip"), 0
    for i, motion in enumerate(MOTIONS * 2):
        person = Person(VALIDATION_IDENTITIES[800 + i], motion=motion)
        frames = render_clip(Scene((person,), "beach", seed=i)).frames
        video = network.video(frames[list(sample_video_frames(STRICT, len(frames)))],
                              STRICT.video_picture)
        said = [
            describe(Scene((Person(person.identity, motion=other),), "beach", seed=i),
                     np.random.default_rng(i), ("motion", "background"))
            for other in MOTIONS
        ]
        right += MOTIONS[int((network.texts(said) @ video).argmax())] == motion
    assert right >= 9, "of 12; chance is 2"


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Portraits of two people that no network was trained on."""
    folder = tmp_path_factory.mktemp("people")
    references = []
    for seed in VALIDATION_IDENTITIES[900:902]:
        path = folder / f"{seed}.png"
        Image.fromarray(render_portrait(seed).frames[0]).save(path)
        references.append(Reference("face", str(seed), path))
    return tuple(references)


def _true_video(people):
    first, second = (int(reference.name) for reference in people)
    scene = Scene(
        (Person(first, "smile", "turn right", Garment("red")),
         Person(second, "neutral", "still", Garment("green"))),
        background="beach", seed=5,
    )
    return Video(render_clip(scene).frames, 8.0)


def _value(rows, metric, identity=None):
    wanted = (metric, identity, None)
    return next(r.value for r in rows if (r.metric, r.identity, r.frame) == wanted)


def test_a_true_video_of_two_people_scores_as_one_should(people):
    prompt = "On the beach, the left person in a red shirt smiles, the right one wears green."
    sample = Sample("s", "multi", "p", prompt, "test", people, 0)
    scorer, video = Scorer(), _true_video(people)
    rows = scorer.score(sample, video, "0" * 64)
    for name in sample.identities:
        assert _value(rows, "arcsim", name) > 0.5 and _value(rows, "cursim", name) > 0.5
        assert _value(rows, "own_minus_other", name) > 0.3
    assert _value(rows, "order") == 1.0 and _value(rows, "face_coverage") >= 0.9
    swapped = Sample("t", "multi", "p", prompt, "test", people[::-1], 0)
    assert _value(scorer.score(swapped, video, "0" * 64), "order") == 0.0

    other = "At night, two people in black clothes are angry."
    wrong = Sample("w", "multi", "p", other, "test", people, 0)
    assert _value(rows, "viclip") > _value(scorer.score(wrong, video, "0" * 64), "viclip") + 0.1


def test_the_parser_keeps_the_head_of_a_new_person():
    portrait = render_portrait(VALIDATION_IDENTITIES[905])
    x0, y0, x1, y1 = portrait.boxes[0, 0]
    half = 0.9 * (y1 - y0)
    top, left = max(0, int((y0 + y1) / 2 - half)), max(0, int((x0 + x1) / 2 - half))
    window = slice(top, int(top + 2 * half)), slice(left, int(left + 2 * half))
    kept = ~np.isin(portrait.parts[0][window], [PARTS.index("background"), PARTS.index("garment")])
    found = face_foreground(portrait.frames[0][window]) > 0.5
    assert (found & kept).sum() / (found | kept).sum() > 0.85
