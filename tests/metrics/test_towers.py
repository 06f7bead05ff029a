"""The embedded CLIP's and ViCLIP's towers: convolutional stems, and hard groups to train on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from idbench.metrics.networks.clip import build_clip
from idbench.metrics.networks.video_text import ViCLIP, from_clip, strides
from idbench.metrics.training.contrastive import preferred, training_pictures
from idbench.metrics.training.rendered_data import Settings, batches, plan
from idbench.metrics.training.second_tasks import (
    CLASSES,
    IGNORE,
    WEIGHTS,
    AttributeHead,
    Helpers,
    MotionHelpers,
    mentioned,
    poses,
    truth,
)
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import EXPRESSIONS, MOTIONS, Person, Scene
from idbench.prompts.language import description

CLIP = {
    "embed_dim": 16,
    "vision": {"layers": 1, "width": 32, "head_width": 16, "patch_size": 12, "image_size": 24},
    "text": {"context_length": 8, "width": 16, "heads": 2, "layers": 1, "vocab_size": 20},
}
VICLIP = {
    "output": 16,
    "vision": {"size": 24, "patch": 12, "width": 32, "layers": 1, "heads": 2, "frames": 2},
    "text": {"context": 8, "width": 16, "heads": 2, "layers": 1, "vocabulary": 20},
}


def _with_stem(config):
    return {**config, "vision": {**config["vision"], "stem": [4, 8, 8]}}


def test_strides_multiply_to_the_patch():
    assert strides(12, 3) == [2, 2, 3]
    assert strides(16, 2) == [2, 8]
    with pytest.raises(ValueError, match="do not fit"):
        strides(4, 3)


@pytest.mark.parametrize("stem", [False, True])
def test_viclip_starts_as_its_clip(stem):
    torch.manual_seed(0)
    clip = build_clip(_with_stem(CLIP) if stem else CLIP).eval()
    network = ViCLIP(_with_stem(VICLIP) if stem else VICLIP).eval()
    missing, unexpected = network.load_state_dict(from_clip(clip.state_dict()), strict=False)
    assert (missing, unexpected) == (["vision_encoder.temporal_positional_embedding"], [])
    picture = torch.randn(3, 3, 24, 24)
    with torch.inference_mode():
        seen = network.encode_video(picture[:, :, None])
        torch.testing.assert_close(seen, clip.encode_image(picture), atol=1e-5, rtol=1e-4)
        both = network.encode_video(torch.stack([picture, picture.flip(0)], 2))
    assert both.shape == (3, 16)
    assert not torch.allclose(both, seen)


def test_a_published_layout_has_no_stem():
    assert "visual.conv1.weight" in build_clip(CLIP).state_dict()
    assert "vision_encoder.conv1.weight" in ViCLIP(VICLIP).state_dict()


def test_a_group_differs_in_expression_and_motion_alone():
    scenes = plan(Settings("training", 3, 40, 24, pairs=0.5, group=4))
    assert {len(scene.people) for scene in scenes} == {1, 2}
    for start in range(0, 24, 4):
        group = scenes[start : start + 4]
        for place in range(len(group[0].people)):
            assert len({scene.people[place].expression for scene in group}) == 4
            assert len({scene.people[place].motion for scene in group}) == 4
        plain = {
            replace(scene, people=tuple(
                replace(p, expression="neutral", motion="still") for p in scene.people
            )) for scene in group
        }
        assert len(plain) == 1


def test_groups_stay_together_in_batches():
    drawn = [list(batches(24, 8, 0, step, group=4)) for step in range(3)]
    for batch in drawn:
        for start in (0, 4):
            first = batch[start]
            assert first % 4 == 0
            assert batch[start : start + 4] == [first + i for i in range(4)]
    assert sorted(sum(drawn, [])) == list(range(24))


def test_a_true_prompt_is_preferred_to_a_false_one():
    names = [name for name in EXPRESSIONS if name not in ("neutral", "speaking", "eyes closed")]
    scenes = [Scene((Person(1, expression=name),)) for name in names]
    videos = np.eye(2, dtype=np.float32)[[0] * len(names)]
    said = []

    def texts(given):
        said.extend(given)
        rows = np.zeros((len(given), 2), np.float32)
        rows[::2, 0] = 1  # the true prompts come first of each pair
        rows[1::2, 1] = 1
        return rows

    assert preferred(scenes, videos, texts, "expression") == 1.0
    assert all(true != false for true, false in zip(said[::2], said[1::2], strict=True))
    assert preferred(scenes, videos[:, ::-1], texts, "expression") == 0.0


def test_fine_attributes_count_more():
    head = AttributeHead(4)
    inputs = torch.randn(2, 4)
    answers = torch.full((2, len(CLASSES)), IGNORE)
    answers[:, 0] = 1  # the background
    background = head(inputs, answers)
    answers[:, 3], answers[:, 0] = 2, IGNORE  # the left person's expression
    expression = head(inputs, answers)
    answers[:, 0] = 1
    assert WEIGHTS[0] == 1 and WEIGHTS[3] == 4
    torch.testing.assert_close(head(inputs, answers), (background + 4 * expression) / 5)


def test_a_prompt_answers_what_it_mentions():
    scene = Scene((Person(1, "smile", "nod"), Person(2, "sadness", "tilt")), "beach", seed=3)
    answers = truth(scene)
    named = description(scene, np.random.default_rng(0), ["background", "motion:1"]).mentioned
    said = mentioned(answers, named)
    assert np.flatnonzero(said != IGNORE).tolist() == [0, 9]
    assert said[0] == answers[0] and said[9] == MOTIONS.index("tilt")
    garment = mentioned(answers, {"garment:0"})
    assert np.flatnonzero(garment != IGNORE).tolist() == [5, 6, 7]


def test_poses_follow_the_heads():
    clips = [render_clip(Scene((Person(4, motion=m),), seed=1)) for m in
             ("turn left", "turn right", "nod", "tilt")]
    read = poses(np.stack([clip.landmarks for clip in clips]))[..., 0, :]
    for axis, name in enumerate(("yaw", "pitch", "roll")):
        true = np.stack([getattr(clip, name)[:, 0] for clip in clips])
        assert np.corrcoef(read[..., axis].ravel(), true.ravel())[0, 1] > 0.9
    assert np.isnan(poses(np.stack([np.full((2, 5, 2), np.nan), np.random.rand(2, 5, 2)]))[0]).all()


def test_text_and_poses_teach_the_towers():
    network = ViCLIP(_with_stem(VICLIP))
    helpers = MotionHelpers(network.vision_encoder, 16)
    network.encode_video(torch.randn(2, 3, 2, 24, 24))
    words = torch.randn(2, 16, requires_grad=True)
    said = torch.full((2, len(CLASSES)), IGNORE)
    said[:, 4] = 1
    shown = torch.randn(2, 2, 2, 3)
    shown[:, :, 1] = torch.nan  # nobody at the second place
    helpers.motion(words, said, shown).backward()
    assert words.grad.abs().sum() > 0
    assert next(network.vision_encoder.conv1.parameters()).grad.abs().sum() > 0
    assert helpers.pose.weight.grad[3:].abs().sum() == 0


@pytest.mark.parametrize("stem", [False, True])
def test_the_stem_learns_from_its_own_head(stem):
    network = ViCLIP(_with_stem(VICLIP) if stem else VICLIP)
    helpers = Helpers(network.vision_encoder, 16)
    answers = torch.zeros((2, len(CLASSES)), dtype=torch.long)
    network.encode_video(torch.randn(2, 3, 2, 24, 24))  # two clips of two frames
    helpers(torch.randn(2, 16), answers).backward()
    first = next(network.vision_encoder.conv1.parameters())
    assert first.grad.abs().sum() > 0
    assert not set(helpers.state_dict()) & {"map", "conv1.weight"}, "the tower is not a part of it"


def test_training_pictures_are_shifted_a_little_each_clip_as_one():
    pictures = np.zeros((8, 2, 24, 24, 3), np.uint8)
    pictures[:, :, 12, 12] = 255
    shown = training_pictures(pictures, np.random.default_rng(0))
    assert shown.shape == (8, 2, 3, 24, 24)
    places = shown.sum(2).flatten(2).argmax(2)
    assert (places[:, 0] == places[:, 1]).all()
    rows, columns = places[:, 0] // 24 - 12, places[:, 0] % 24 - 12
    assert rows.abs().max() <= 3 and columns.abs().max() <= 3
    assert len(set(places[:, 0].tolist())) > 2
