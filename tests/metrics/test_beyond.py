"""Metrics beyond the paper: motion, consistency, share read, garment, background, attributes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idbench.metrics import attributes, head_motion, motion, region_similarity, temporal, viclip
from idbench.metrics.base import Embeddings
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import FrameMatch
from idbench.metrics.protocols import STRICT
from idbench.metrics.scorer import Scorer
from idbench.prompts.avatars.render import render_background, render_clip, render_portrait
from idbench.prompts.avatars.scene import VALIDATION_IDENTITIES, Garment, Person, Scene
from idbench.registry import METRICS
from idbench.types import Reference, Sample, Video

WHO = VALIDATION_IDENTITIES[910]


def texture(height: int = 96, width: int = 144) -> np.ndarray:
    small = np.random.default_rng(0).integers(0, 255, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def test_motion_is_the_known_shift_and_does_not_depend_on_resolution():
    still = np.stack([texture()] * 4)
    assert motion.motion(still, 8.0) == pytest.approx(0.0, abs=5e-3)
    moving = np.stack([np.roll(texture(), 2 * i, axis=1) for i in range(4)])
    value = motion.motion(moving, 8.0)
    # 2 of 96 pixels in every frame, 8 frames a second.
    assert value == pytest.approx(8 * 2 / 96, rel=0.25)
    large = moving.repeat(2, axis=1).repeat(2, axis=2)
    assert motion.motion(large, 8.0) == pytest.approx(value, rel=0.15)
    assert motion.motion(moving, 16.0) == pytest.approx(2 * value)


def embeddings(**changes) -> Embeddings:
    sample = changes.pop("sample", Sample("s" * 16, "single", "p", "a person", "c", (), 0))
    return Embeddings(sample=sample, protocol=STRICT, frames=(0, 1, 2), **changes)


def test_one_frame_has_no_motion_and_no_consistency():
    (row,) = motion.scores(embeddings(video=Video(np.zeros((1, 8, 8, 3), np.uint8), 8.0)))
    assert row.value is None and "one frame" in row.reason
    one = embeddings(frame_vectors={"clip": np.ones((1, 4))})
    (row,) = temporal.consistency_scores(one)
    assert row.value is None


def test_consistency_is_the_mean_cosine_of_neighbours():
    vectors = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    rows = temporal.consistency_scores(embeddings(frame_vectors={"clip": vectors}))
    assert [r.frame for r in rows] == [0, 1, None]
    assert rows[-1].value == pytest.approx((0 + 1) / 2)
    vectors = np.array([[1.0, 0.0], [np.nan, 1.0], [0.0, 2.0]])
    rows = temporal.consistency_scores(embeddings(frame_vectors={"clip": vectors}))
    assert all(r.value is None for r in rows), "NaN is unscored, never a number"


def test_share_read_is_passed_on_and_an_empty_prompt_is_unscored():
    (row,) = viclip.share_read_scores(embeddings(share_read={"viclip": 0.4}))
    assert row.value == 0.4
    sample = Sample("s" * 16, "single", "p", " ", "c", (), 0)
    (row,) = viclip.share_read_scores(embeddings(sample=sample, share_read={"viclip": 1.0}))
    assert row.reason == "no prompt was given"


def test_regions_follow_the_face_box():
    box = np.array([40.0, 20.0, 60.0, 45.0])
    rows, columns = region_similarity.garment_region((96, 144, 3), box)
    assert rows.start > 45 and rows.stop == 96 and columns == slice(30, 70)
    assert region_similarity.garment_region((50, 144, 3), box) is None, "no garment is seen"
    covered = region_similarity.people_mask((96, 144, 3), box[None])
    assert covered[50, 20:80].all() and covered[30, 30:70].all() and not covered[30, :30].any()
    assert not covered[:, 80:].any() and not covered[:5].any()


def test_columns_of_a_person_end_half_way_to_the_next():
    boxes = np.array([[10, 0, 20, 9], [50, 0, 60, 9], [90, 0, 100, 9]], float)
    assert attributes.nearest_columns(120, boxes, 1) == slice(35, 75)
    assert attributes.nearest_columns(120, boxes, 0) == slice(0, 35)
    assert attributes.nearest_columns(120, boxes, 2) == slice(75, 120)


@pytest.mark.parametrize("name", ["still", "turn left", "turn right", "nod", "shake", "tilt"])
def test_head_motion_is_read_from_the_true_landmarks(name):
    right = 0
    for seed in range(5):
        scene = Scene((Person(int(WHO) + seed, "neutral", name),), seed=seed)
        right += head_motion.read_motion(render_clip(scene, 9).landmarks[:, 0]) == name
    assert right >= 4


def test_too_few_frames_with_the_face_give_no_motion():
    marks = render_clip(Scene((Person(int(WHO)),)), 9).landmarks[:, 0].astype(float)
    marks[4:] = np.nan
    assert head_motion.read_motion(marks) is None


def test_only_what_the_truth_states_is_judged():
    truth = {"people": [{"expression": "smile", "garment": {"colour": "red"}}, {"motion": "nod"}],
             "background": "park"}
    assert attributes.stated(truth, 0) == {
        "expression": "smile", "garment": "red", "background": "park"
    }
    assert attributes.stated(truth, 1) == {"motion": "nod"}
    assert attributes.stated({}, 0) == {}


def test_a_person_who_was_not_found_is_unscored():
    reference = Reference("face", "a", Path("a.png"))
    sample = Sample("s" * 16, "single", "p", "x", "c", (reference,), 0,
                    {"people": [{"motion": "nod"}]})
    nobody = FrameMatch((None,), ("no face in the frame",), np.zeros((0, 1)))
    of = embeddings(sample=sample, matches=(nobody,) * 3, faces=(Faces.none(),) * 3,
                    video=Video(np.zeros((3, 8, 8, 3), np.uint8), 8.0))
    rows = attributes.MOTION.rows(of)
    assert [r.value for r in rows] == [None, None] and "too few frames" in rows[0].reason


@pytest.fixture(scope="module")
def true_video(tmp_path_factory):
    """A true render with a garment and a background reference, and its embeddings."""
    folder = tmp_path_factory.mktemp("beyond")
    Image.fromarray(render_portrait(WHO, size=128).frames[0]).save(folder / "face.png")
    for name in ("beach", "library"):
        Image.fromarray(render_background(name, 5)).save(folder / f"{name}.png")
    scene = Scene((Person(int(WHO), "laugh", "turn right", Garment("red")),), "beach", seed=5)
    truth = {"people": [{"expression": "laugh", "motion": "turn right",
                         "garment": {"colour": "red", "pattern": "plain", "emblem": "none"}}],
             "background": "beach"}
    references = (
        Reference("face", "a", folder / "face.png"),
        Reference("background", "beach", folder / "beach.png"),
    )
    sample = Sample("s" * 16, "background", "p", "a person", "c", references, 0, truth)
    video = Video(render_clip(scene).frames, 8.0)
    scorer = Scorer("strict-v3", None, [METRICS.load(n) for n in ("arcsim", "clipdist")])
    return folder, sample, scorer.embed(sample, video, "0" * 64)


def test_attributes_of_a_true_render_are_read_and_false_ones_refused(true_video):
    _, sample, of = true_video
    row = attributes.ACCURACY.rows(of)[-1]
    assert row.identity is None and row.value >= 0.75
    assert attributes.MOTION.rows(of)[-1].value == 1.0
    assert attributes.BACKGROUND.rows(of)[-1].value == 1.0
    wrong = {"people": [{"motion": "nod", "garment": {"colour": "green"}}],
             "background": "library"}
    from dataclasses import replace

    other = replace(of, sample=replace(sample, truth=wrong))
    assert attributes.ACCURACY.rows(other)[-1].value == 0.0


def test_the_right_background_is_nearer_than_another(true_video):
    from dataclasses import replace

    folder, sample, of = true_video
    right = region_similarity.BACKGROUND.rows(of)[-1].value
    swapped = (sample.references[0], Reference("background", "l", folder / "library.png"))
    other = replace(of, sample=replace(sample, references=swapped))
    assert right > region_similarity.BACKGROUND.rows(other)[-1].value + 0.1
    assert region_similarity.GARMENT.rows(of) == [], "the sample has no garment"
    gone = (sample.references[0], Reference("background", "l", folder / "gone.png"))
    other = replace(of, sample=replace(sample, references=gone))
    (row,) = region_similarity.BACKGROUND.rows(other)
    assert row.value is None and "gone.png cannot be read" in row.reason


def test_the_list_says_which_metrics_are_computed():
    from click.testing import CliRunner

    from idbench.commands.listing import listing
    from idbench.scoring import Scoring

    done = CliRunner().invoke(listing, ["metrics", "--json"])
    assert done.exit_code == 0, done.output
    computed = {row["metric"]: row["computed"] for row in json.loads(done.output)}
    assert set(computed) == set(METRICS.targets())
    usual = set(Scoring.of("strict-v3", ()).metrics)
    always = {name for name, when in computed.items() if when == "always"}
    assert usual == {*always, "clipdist_frame"}, "the default protocol lists it"
    for name in computed.keys() - usual - {"not_measured", "human_identity", "clipdist_frame"}:
        assert computed[name] == "when named"
        assert name in Scoring.of("strict-v3", (f"+{name}",)).metrics, "as the list says"
    for name in ("not_measured", "human_identity", "clipdist_frame"):
        assert computed[name] == "by protocols"
    assert "not_measured" in Scoring.of("consisid-v1", ()).metrics
    table = CliRunner().invoke(listing, ["metrics"])
    assert "motion Motion when named higher" in " ".join(table.output.split())
    assert "`--metric +NAME`" in table.output


def test_they_are_computed_only_when_named():
    from idbench.scoring import Scoring

    named = [n for n in METRICS.builtin if METRICS.load(n).computed == "named"]
    assert len(named) == 23
    assert not set(named) & set(Scoring.of("strict-v3", ()).metrics)
    assert Scoring.of("strict-v3", ("motion",)).metrics == ("motion",)
    besides = Scoring.of("strict-v3", ("+motion",)).metrics
    assert "motion" in besides and "arcsim" in besides and "share_read" not in besides
    for name in METRICS.builtin:
        metric = METRICS.load(name)
        assert metric.name == name and metric.formula and metric.source
