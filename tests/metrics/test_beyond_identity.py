"""Metrics beyond the paper about identity: first frame, copy-paste, pose and occlusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from idbench.errors import UserError
from idbench.metrics import copy_paste, human_identity, pose_bins, temporal
from idbench.metrics.base import Embeddings
from idbench.metrics.faces.detect import Faces
from idbench.metrics.faces.match import FrameMatch
from idbench.metrics.networks import resnet_face
from idbench.metrics.networks.resnet_face import ResNetFace18
from idbench.metrics.networks.weight_sources import parse
from idbench.metrics.protocols import STRICT, get_protocol, sample_frames
from idbench.metrics.scorer import Scorer
from idbench.prompts.avatars.render import render_clip
from idbench.prompts.avatars.scene import Person, Scene
from idbench.registry import METRICS
from idbench.types import Reference, Sample, Video

A, B, C = np.eye(3)


def sample(*names: str, **more) -> Sample:
    people = tuple(Reference("face", name, Path(f"{name}.png"), **more) for name in names)
    truth = {"people": [{"identity": name} for name in names]}
    return Sample("s" * 16, "single", "p", "a person", "c", people, 0, truth)


def faces(*boxes) -> Faces:
    count = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(count, 4), np.zeros((count, 5, 2), np.float32),
        np.ones(count, np.float32),
    )


def embeddings(of: Sample, vectors: list[np.ndarray], places=None, **more) -> Embeddings:
    """Frames with these face vectors (n, 3) each; `places`: the face of each reference."""
    places = places or [(0,) if len(v) else (None,) for v in vectors]
    matches = tuple(
        FrameMatch(tuple(p), tuple(None if f is not None else "no face" for f in p),
                   np.zeros((len(v), len(p)))) for p, v in zip(places, vectors, strict=True)
    )
    found = tuple(more.pop("faces", [faces(*[(0, 0, 9, 9)] * len(v)) for v in vectors]))
    return Embeddings(
        sample=of, protocol=STRICT, frames=tuple(range(len(vectors))), faces=found,
        matches=matches, face_vectors={"arcface": vectors},
        reference_vectors={"arcface": [A] * len(of.identities)},
        reference_reasons=(None,) * len(of.identities), **more,
    )


def test_consistency_is_to_the_first_frame_and_needs_no_reference():
    vectors = [np.stack([A]), np.stack([0.6 * A + 0.8 * B]), np.zeros((0, 3)), np.stack([A])]
    rows = temporal.face_scores(embeddings(sample(), vectors))
    assert [row.value for row in rows] == pytest.approx([0.6, None, 1.0, 0.8])
    assert rows[-1].identity is None and rows[1].reason == "no face"
    (row,) = temporal.face_scores(embeddings(sample(), [np.zeros((0, 3)), np.stack([A])]))
    assert row.reason == "no face in the first frame"


def test_consistency_of_two_people_follows_their_matches():
    vectors = [np.stack([A, B]), np.stack([B, A]), np.stack([A, C])]
    of = embeddings(sample("x", "y"), vectors, [(0, 1), (1, 0), (0, 1)])
    by_name = {row.identity: row.value for row in temporal.face_scores(of) if row.frame is None}
    assert by_name == pytest.approx({"x": 1.0, "y": 0.5, None: 0.75})


def test_human_identity_is_the_share_of_frames_alike_to_the_first(tmp_path):
    torch.manual_seed(0)
    network = ResNetFace18()
    path = tmp_path / "resnet18.pth"
    torch.save({f"module.{k}": v for k, v in network.state_dict().items()}, path)
    sources = parse([f"human_identity=resnet_face18:{path}"])
    loaded = sources["human_identity"].load()
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (40 + k, 30, 3), dtype=np.uint8) for k in range(2)]
    found = loaded(crops)
    assert found.shape == (2, 1024)
    # The second half is the mirrored crop's embedding, and the network is the file's.
    mirrored = loaded([np.ascontiguousarray(crop[:, ::-1]) for crop in crops])
    np.testing.assert_allclose(found[:, 512:], mirrored[:, :512], atol=1e-4)
    alike = np.stack([A] * 16 + [0.39 * A + 0.92 * B] * 5)
    assert human_identity.share_consistent(alike) == 15 / 20
    assert human_identity.share_consistent(alike[:20]) is None
    torch.save({"fc5.weight": torch.zeros(2, 2)}, path)
    with pytest.raises(UserError, match="resnet_face18"):
        parse([f"human_identity=resnet_face18:{path}"])["human_identity"].load()


def test_human_identity_feeds_its_network_as_the_script_does():
    rng, seen = np.random.default_rng(1), []
    crops = [rng.integers(0, 256, (40 + 90 * k, 30, 3), dtype=np.uint8) for k in range(2)]
    found = resnet_face.embed(lambda x: seen.append(x) or x[:, 0, 0, :3], crops, "cpu")
    expected = []
    for crop in crops:
        grey = cv2.cvtColor(cv2.resize(crop, (128, 128)), cv2.COLOR_RGB2GRAY)
        both = np.dstack((grey, np.fliplr(grey))).transpose(2, 0, 1)[:, None].astype(np.float32)
        expected.append((both - 127.5) / 127.5)
    np.testing.assert_array_equal(seen[0].numpy(), np.concatenate(expected))
    np.testing.assert_array_equal(found[1], np.hstack([expected[1][0, 0, 0, :3],
                                                       expected[1][1, 0, 0, :3]]))


def test_human_identity_reads_frames_with_one_face_alone():
    assert sample_frames(get_protocol("vbench2-identity-v1"), 30) == tuple(range(30))
    seen = []

    def network(name):
        return lambda crops: seen.append([crop.shape for crop in crops]) or np.stack(
            [A] * len(crops))

    frames = np.zeros((25, 20, 30, 3), np.uint8)
    one, two = faces((-3, 2, 10.9, 15)), faces((0, 0, 9, 9), (10, 0, 19, 9))
    vectors = [np.stack([A])] * 23 + [np.stack([A, B]), np.zeros((0, 3))]
    of = embeddings(sample(), vectors, faces=[one] * 23 + [two, faces()],
                    video=Video(frames, 8.0), network=network)
    (row,) = human_identity.scores(of)
    assert row.value == 1.0 and seen == [[(13, 10, 3)] * 23]
    later = embeddings(sample(), vectors, faces=[two, *[one] * 24], video=Video(frames, 8.0),
                       network=network)
    assert "first frame" in human_identity.scores(later)[0].reason


def test_human_identity_of_the_script_draws_the_box_and_passes_empty_frames():
    """VBench-2.0's script crops from the frame it has drawn on, and its detector's empty box counts
    as a face that is alike."""
    seen = []

    def network(name):
        return lambda crops: seen.extend(crops) or np.stack([A] * 12 + [B] * (len(crops) - 12))

    frames = np.full((25, 20, 30, 3), 50, np.uint8)
    one, two = faces((-3, 2, 10.9, 15)), faces((0, 0, 9, 9), (10, 0, 19, 9))
    vectors = [np.stack([A])] * 16 + [np.zeros((0, 3))] * 8 + [np.stack([A, B])]
    of = replace(embeddings(sample(), vectors, faces=[one] * 16 + [faces()] * 8 + [two],
                            video=Video(frames, 8.0), network=network),
                 protocol=get_protocol("vbench2-identity-v2"))
    (row,) = human_identity.scores(of)
    assert row.value == (11 + 8) / (15 + 8)
    drawn = cv2.rectangle(frames[0].copy(), (0, 2), (10, 15), (0, 255, 0), 2)
    assert all(np.array_equal(crop, drawn[2:15, :10]) for crop in seen) and len(seen) == 16
    assert (frames == 50).all()
    plain = replace(of, protocol=get_protocol("vbench2-identity-v1"))
    assert human_identity.scores(plain)[0].value is None
    empty = replace(of, faces=(faces(), *of.faces[1:]))
    assert "first frame" in human_identity.scores(empty)[0].reason


def test_copy_paste_is_the_reference_minus_another_picture(monkeypatch):
    monkeypatch.setattr(copy_paste, "_avatar", lambda network, name: B)
    vectors = [np.stack([0.8 * A + 0.6 * B]), np.stack([A])]
    of = embeddings(sample("a001"), vectors, network=lambda name: None)
    rows = copy_paste.METRIC.rows(of)
    assert rows[-1].identity is None and rows[-1].value == pytest.approx((0.2 + 1.0) / 2)
    photographs = sample("someone", more=(Path("b.png"),))
    of = replace(of, sample=photographs, photograph_vectors=((A, 2 * B, C),))
    assert copy_paste.METRIC.rows(of)[-1].value == pytest.approx(
        ((0.8 - 0.6 / 2**0.5) + 1.0) / 2
    )
    assert copy_paste.METRIC.rows(replace(of, sample=sample("someone"))) == []


def test_a_pasted_reference_is_seen_and_another_pose_is_not(tmp_path):
    """With the embedded recogniser: the reference as the video, against a true render."""
    image, landmarks = copy_paste._other_picture(3)
    assert image.shape == (192, 192, 3) and landmarks.shape == (5, 2)
    still = render_clip(Scene((Person(3, "smile"),), "studio", seed=1), 1, 128, 128)
    Image.fromarray(still.frames[0]).save(tmp_path / "a003.png")
    scorer = Scorer("strict-v3", None, [METRICS.load("arcsim"), METRICS.load("copy_paste")])
    of = replace(sample("a003"), references=(
        Reference("face", "a003", tmp_path / "a003.png"),))
    other = render_clip(Scene((Person(3, "laugh", "turn left"),), "park", seed=5), 9, 128, 128)

    def value(frames: np.ndarray, name: str) -> float:
        rows = scorer.score(of, Video(frames, 8.0), name * 64)
        return next(r.value for r in rows if r.metric == "copy_paste" and r.identity is None)

    pasted, shown = value(still.frames[:1].repeat(3, 0), "0"), value(other.frames[-3:], "1")
    assert pasted > 0.05 and pasted > shown + 0.1


def test_yaw_is_read_from_true_landmarks():
    errors = []
    for seed in range(4):
        for motion in ("turn left", "turn right", "still"):
            clip = render_clip(Scene((Person(1000 + seed, "neutral", motion),), seed=seed), 5)
            errors += [
                pose_bins.yaw_degrees(marks) - np.degrees(abs(yaw))
                for marks, yaw in zip(clip.landmarks[:, 0], clip.yaw[:, 0], strict=True)
            ]
    assert np.abs(errors).mean() < 1.4


def test_occlusion_is_what_lies_beyond_the_frame_or_behind_a_larger_face():
    boxes = np.array([[0, 0, 40, 40], [20, 0, 60, 40], [80, 0, 120, 40]], float)
    assert pose_bins.occlusion(boxes, 0, (50, 100)) == 0.0
    assert pose_bins.occlusion(boxes, 1, (50, 100)) == pytest.approx(0.5, abs=0.05)
    assert pose_bins.occlusion(boxes, 2, (50, 100)) == pytest.approx(0.5, abs=0.05)


def test_frames_are_binned_and_an_empty_bin_is_unscored():
    clip = render_clip(Scene((Person(1000, "neutral", "turn right"),), seed=1), 9)
    degrees = [pose_bins.yaw_degrees(marks) for marks in clip.landmarks[:, 0]]
    assert min(degrees) < 8 and max(degrees) >= 16
    found = [
        replace(faces((10, 10, 40, 40)), landmarks=marks[None].astype(np.float32))
        for marks in clip.landmarks[:, 0]
    ]
    vectors = [np.stack([np.cos(i / 9) * A + np.sin(i / 9) * B]) for i in range(9)]
    of = embeddings(sample("a100"), vectors, faces=found,
                    video=Video(np.zeros((9, 64, 96, 3), np.uint8), 8.0))
    high = pose_bins.YAW_HIGH.rows(of)
    chosen = [np.cos(i / 9) for i in range(9) if degrees[i] >= 16]
    assert high[-1].value == pytest.approx(np.mean(chosen), abs=1e-6)
    assert pose_bins.CLEAR.rows(of)[-1].value == pytest.approx(
        np.mean([np.cos(i / 9) for i in range(9)]), abs=1e-6)
    empty = pose_bins.OCCLUDED_FACE.rows(of)[-1]
    assert empty.value is None and "no frame belongs to this bin" in empty.reason
    assert pose_bins.YAW_LOW.rows(replace(of, sample=sample("someone"))) == []
