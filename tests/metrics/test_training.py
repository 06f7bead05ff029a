"""Training data from seeds, the learning rate, and the measures of the evaluation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idbench.metrics.training import fitting
from idbench.metrics.training.augment import (
    change_colours,
    degrade,
    face_patch,
    looks_of,
    random_look,
    recolour,
    training_crop,
)
from idbench.metrics.training.contrastive import contrastive_loss, recall_at_1
from idbench.metrics.training.rendered_data import (
    Settings,
    batches,
    dataset,
    faces_of,
    plan,
)
from idbench.metrics.training.second_tasks import (
    CLASSES,
    IGNORE,
    SEEN,
    AttributeHead,
    ShapeHead,
    shape_truth,
    truth,
)
from idbench.prompts.avatars.identity import SHAPE_RANGES, sample_identity
from idbench.prompts.avatars.march import PARTS
from idbench.prompts.avatars.scene import (
    BACKGROUNDS,
    EVALUATION_IDENTITIES,
    EXPRESSIONS,
    GARMENT_COLOURS,
    Scene,
)
from idbench.recipes import load_recipe, load_trainer

SMALL = Settings("training", seed=1, identities=12, scenes=20, frames=2)
RECIPES = ("arcface", "curricularface", "clip", "viclip", "face_parser")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_train_on_training_people_and_measure_on_others(name):
    stem, recipe = load_recipe(name)
    assert recipe["entry"] == recipe["name"] == stem == name
    assert callable(load_trainer(name, recipe))
    trained = {s for key in ("data", "clips") if key in recipe
               for s in Settings(**recipe[key]).seeds}
    measured = set(Settings(**recipe["validation"]).seeds)
    assert not trained & measured
    assert not (trained | measured) & set(EVALUATION_IDENTITIES)


def test_scenes_depend_on_the_settings_alone_and_share_people_evenly():
    scenes = plan(SMALL)
    assert scenes == plan(SMALL) and scenes != plan(Settings("training", 2, 12, 20, frames=2))
    people = [p.identity for s in scenes for p in s.people]
    counts = np.unique(people, return_counts=True)[1]
    assert set(people) == set(SMALL.seeds) and counts.max() - counts.min() <= 1
    assert {len(s.people) for s in scenes} == {1, 2}


def test_identities_stay_in_their_range():
    with pytest.raises(ValueError, match="validation identities end"):
        _ = Settings("validation", 1, identities=1001, scenes=1).seeds


def test_data_is_rendered_once_and_read_again(tmp_path, monkeypatch):
    settings = Settings("training", 1, 3, 3, frames=1, height=32, width=48)
    first = dataset(settings, tmp_path)
    monkeypatch.setattr("idbench.metrics.training.rendered_data.render_clip", None)
    again = dataset(settings, tmp_path)
    np.testing.assert_array_equal(first.frames, again.frames)
    assert first.scenes == again.scenes and first.frames.shape == (3, 1, 32, 48, 3)
    faces = faces_of(first)
    assert len(faces) == sum(len(s.people) for s in first.scenes)
    for s, t, p, identity in faces:
        assert first.scenes[s].people[p].identity == identity
        assert np.isfinite(first.landmarks[s, t, p]).all()


def test_scenes_survive_json():
    from dataclasses import asdict

    scene = plan(SMALL)[0]
    assert Scene.from_dict(asdict(scene)) == scene


def test_each_epoch_sees_every_item_once_and_no_epoch_repeats_the_last():
    order = [i for step in range(10) for i in batches(8, 4, seed=0, step=step)]
    for start in range(0, 40, 8):
        assert sorted(order[start : start + 8]) == list(range(8))
    assert order[:8] != order[8:16]


def test_the_learning_rate_warms_up_and_falls(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setattr(fitting, "fit", lambda *_, **options: given.update(options))
    recipe = {"steps": 100, "learning_rate": 2.0, "warmup": 10}
    fitting.train_network(recipe, tmp_path, False, {"model": torch.nn.Linear(1, 1)}, None)
    rates = [given["rate"](step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    waves = [0.01 + 0.495 * (1 + np.cos(np.pi * step / 90)) for step in range(90)]
    assert rates[10:] == pytest.approx([2.0 * wave for wave in waves])


def test_degraded_crops_stay_pictures_of_the_same_face():
    rng = np.random.default_rng(0)
    frame = np.zeros((64, 96, 3), np.uint8)
    frame[20:44, 40:60] = (200, 120, 90)
    landmarks = np.array([[45, 28], [55, 28], [50, 33], [46, 38], [54, 38]], np.float32)
    patch, points = face_patch(frame, landmarks)
    x, y = (landmarks - points)[0].astype(int)
    np.testing.assert_array_equal(
        patch, frame[y : y + patch.shape[0], x : x + patch.shape[1]]
    )
    assert degrade(patch, rng).shape == patch.shape
    crops = [training_crop(frame, landmarks, rng, 48, colours=0.0) for _ in range(8)]
    assert all(c.shape == (48, 48, 3) and c.dtype == np.uint8 for c in crops)
    assert len({c.tobytes() for c in crops}) == 8
    for crop in crops:
        np.testing.assert_allclose(crop[16:30, 16:30].mean((0, 1)), (200, 120, 90), atol=30)


def test_recall_at_1_counts_both_directions_in_groups():
    texts = np.tile(np.eye(4), (2, 1))
    videos = texts.copy()
    assert recall_at_1(videos, texts, group=4) == (1.0, 1.0)
    videos[0] = texts[1]  # one video of eight finds the wrong prompt
    to_text, to_video = recall_at_1(videos, texts, group=4)
    assert to_text == pytest.approx(7 / 8)


def test_the_contrastive_loss_is_the_symmetric_cross_entropy():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 8)), rng.normal(size=(5, 8))
    loss, _ = contrastive_loss(torch.tensor(a), torch.tensor(b), torch.tensor(7.0))
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    logits = 7.0 * a @ b.T
    rows = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    columns = logits - np.log(np.exp(logits).sum(0, keepdims=True))
    expected = -(np.trace(rows) + np.trace(columns)) / 10
    assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_attributes_are_the_scenes_truth_and_ignore_empty_places():
    scenes = plan(SMALL)
    answers = np.stack([truth(scene) for scene in scenes])
    assert answers.shape[1] == len(CLASSES) and (answers < CLASSES).all()
    for scene, row in zip(scenes, answers, strict=True):
        assert BACKGROUNDS[row[0]] == scene.background and row[2] == len(scene.people) - 1
        last = scene.people[-1]
        at = 3 + 5 * (len(scene.people) - 1)
        assert EXPRESSIONS[row[at]] == last.expression
        assert GARMENT_COLOURS[row[at + 2]] == last.garment.colour
        assert (row[8:] == IGNORE).all() == (len(scene.people) == 1)
    head = AttributeHead(4)
    alone = torch.from_numpy(answers[answers[:, 2] == 0])
    assert torch.isfinite(head(torch.randn(len(alone), 4), alone))


def test_a_look_changes_all_but_the_bones():
    person = sample_identity(10_000)
    rng = np.random.default_rng(0)
    looks = [random_look(person, rng) for _ in range(60)]
    assert all(look.shape == person.shape for look in looks)
    assert len({look.hair_style for look in looks}) > 5
    assert len({look.beard for look in looks}) > 3 and len({look.skin for look in looks}) > 30
    assert any(look == person for look in looks), "sometimes people look as they are"


def test_the_looks_of_a_scene_are_the_same_each_time_and_reach_the_frames(tmp_path):
    plain = Settings("training", 1, 3, 2, frames=1, height=32, width=48)
    changed = Settings("training", 1, 3, 2, frames=1, height=32, width=48, looks=True)
    first, second = dataset(plain, tmp_path), dataset(changed, tmp_path)
    assert first.scenes == second.scenes
    assert (first.frames != second.frames).any()
    np.testing.assert_array_equal(first.landmarks[:, :, :, :2], second.landmarks[:, :, :, :2])
    scene = first.scenes[0]
    assert looks_of(scene) == looks_of(scene)


def test_other_colours_keep_the_edges_of_a_face():
    rng = np.random.default_rng(0)
    patch = np.full((32, 32, 3), 60, np.uint8)
    patch[:, 16:] = (200, 160, 140)
    found = [change_colours(patch, rng).astype(float) for _ in range(40)]
    assert all(f[:, 17].mean() > f[:, 14].mean() for f in found)
    assert any(np.ptp(f, axis=2).max() == 0 for f in found), "some are grey"
    assert any(abs(f.mean() - patch.mean()) > 20 for f in found)


def test_skin_and_hair_get_other_colours_and_the_place_does_not():
    parts = np.zeros((4, 4), np.uint8)
    parts[1], parts[2] = PARTS.index("skin"), PARTS.index("hair")
    patch = np.full((4, 4, 3), 100, np.uint8)
    found = recolour(patch, parts, np.random.default_rng(0))
    assert (found[[0, 3]] == 100).all()
    assert (found[1] != 100).any() and (found[1] != found[2]).any()


def test_the_shape_of_a_face_is_a_standardised_truth():
    rows = np.stack([shape_truth(seed) for seed in range(10_000, 10_400)])
    assert rows.shape[1] == len(SEEN) < len(SHAPE_RANGES)
    assert abs(rows.mean()) < 0.1 and rows.std() == pytest.approx(1, abs=0.1)
    head = ShapeHead(len(SEEN))
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(len(SEEN)))
        head.linear.bias.zero_()
    truth = torch.nn.functional.normalize(torch.from_numpy(rows[:8])) * head.scale
    assert head(truth, truth).item() == pytest.approx(0, abs=1e-8)
    assert head(truth, -truth).item() == pytest.approx(4, rel=1e-4)
