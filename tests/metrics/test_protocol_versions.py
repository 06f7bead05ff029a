"""What the newer versions of the protocols do as the scripts and libraries that they reproduce."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from idbench.metrics.embedder import Embedder, Pictures
from idbench.metrics.embedding_cache import EmbeddingCache
from idbench.metrics.faces.crops import TEMPLATE, align_crops, crops_of_frames, find_faces
from idbench.metrics.faces.detect import Faces, make_detector
from idbench.metrics.networks.clip import MEAN_STD, prepare_pictures
from idbench.metrics.protocol_types import Detection
from idbench.metrics.protocols import PROTOCOLS, STRICT, STRICT_2, with_embedded_networks
from idbench.pictures import read_rgb

SCRIPTS = ("consisid", "opens2v", "ingredients")


@pytest.mark.parametrize("size", [(480, 848), (151, 270), (333, 224), (112, 112), (225, 301)])
@pytest.mark.parametrize("name", [
    "paper-v4", "clipdist-frame-v2", "clipdist-face-v2", "opens2v-v3",
])
def test_clips_pictures_are_those_of_the_librarys_own_transform(name, size):
    frames = np.random.default_rng(5).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    library = transforms.Compose([
        transforms.Resize(224, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(*MEAN_STD["clip"]),
    ])
    expected = torch.stack([library(Image.fromarray(frame)) for frame in frames])
    found = prepare_pictures(frames, 224, PROTOCOLS[name].clip_picture)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)


def _save(path, kind, pixels):
    if kind == "turned":
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(pixels).save(path, exif=exif)
    elif kind == "transparent":
        alpha = np.full((*pixels.shape[:2], 1), 90, np.uint8)
        Image.fromarray(np.concatenate([pixels, alpha], 2), "RGBA").save(path)
    else:
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(path)


def _embedder(name, tmp_path, networks=("arcface",), cache=None):
    protocol = with_embedded_networks(PROTOCOLS[name])
    return Embedder(protocol, networks, EmbeddingCache(cache), "cpu")


@pytest.mark.parametrize("kind", ["turned", "transparent", "sixteen bits"])
@pytest.mark.parametrize("script", SCRIPTS)
def test_references_are_read_as_the_scripts_read_them(
    tiny_weights, tmp_path, monkeypatch, script, kind
):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    path, seen = tmp_path / "ann.png", []
    _save(path, kind, pixels)

    def find(detector, frames, *_):
        seen.append(frames[0])
        return [Faces.none() for _ in frames]

    monkeypatch.setattr("idbench.metrics.embedder.find_faces", find)
    for version in ("v2", "v1"):  # with one cache: neither takes what the other read
        _embedder(f"{script}-{version}", tmp_path, cache=tmp_path / "cache").person([path])
    np.testing.assert_array_equal(seen[0], np.array(Image.open(path).convert("RGB")))
    np.testing.assert_array_equal(seen[1], read_rgb(path))
    assert seen[0].shape != seen[1].shape or (seen[0] != seen[1]).any()


class _FindsInGrey:
    """Finds one face, at fixed places, in frames whose corner is grey."""

    name = "fake"
    points = (TEMPLATE[None] * 0.5 + [3.3, 5.7]).astype(np.float32)

    def weight_hashes(self):
        return {}

    def detect(self, frames):
        face = Faces(np.array([[8, 8, 62, 62]], np.float32), self.points, np.ones(1, np.float32))
        return [face if (f[0, 0] == 128).all() else Faces.none() for f in frames]


def _script_crops(frame, points):
    """What the scripts feed to ArcFace and cut for CurricularFace, after their second search."""
    y, x = int(frame.shape[0] * 0.25), int(frame.shape[1] * 0.25)
    padded = cv2.copyMakeBorder(frame, y, y, x, x, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    return align_crops(padded, points), align_crops(frame, points - np.float32([x, y]), 224)


def test_arcfaces_crop_of_the_second_search_is_cut_from_the_padded_picture():
    frame = np.random.default_rng(1).integers(0, 100, (42, 83, 3), dtype=np.uint8)
    detection = Detection(height=0, retry_crop="padded")
    faces = find_faces(_FindsInGrey(), frame[None], detection)
    arcface, curricular = _script_crops(frame, _FindsInGrey.points)
    found = crops_of_frames(frame[None], faces, 112, 112, detection)
    assert (found == 128).all(-1).any()
    np.testing.assert_array_equal(found, arcface)
    np.testing.assert_array_equal(align_crops(frame, faces[0].landmarks, 224), curricular)


class _Keeps:
    """A recogniser that keeps its crops."""

    def embed(self, crops):
        self.crops = crops
        return np.eye(4, dtype=np.float32)[np.zeros(len(crops), int)]


@pytest.mark.parametrize("name", ["consisid-v2", "opens2v-v2", "opens2v-v3", "paper-v4"])
def test_only_arcface_sees_the_padding(tiny_weights, tmp_path, name):
    embedder = _embedder(name, tmp_path, ("arcface", "curricularface"))
    arcface, curricular = _Keeps(), _Keeps()
    embedder._loaded = {
        "detector": _FindsInGrey(), "arcface": arcface, "curricularface": curricular}
    frame = np.random.default_rng(1).integers(0, 100, (300, 301, 3), dtype=np.uint8)
    embedder.read(Pictures("0" * 64, embedder.keys("0" * 64, (0,), ()), frame[None]))
    np.testing.assert_array_equal(arcface.crops, _script_crops(frame, _FindsInGrey.points)[0])
    assert not (curricular.crops == 128).all(-1).any()


def test_only_the_face_that_the_rule_reads_is_embedded(tiny_weights, tmp_path, group_photo):
    photo = group_photo[::2, ::2]
    Image.fromarray(photo).save(tmp_path / "all.png")
    vectors, counts = [], []
    for version in ("v1", "v2"):
        name = f"consisid-{version}"
        embedder = _embedder(name, tmp_path, ("arcface", "curricularface"), tmp_path / "cache")
        one = Pictures("0" * 64, embedder.keys("0" * 64, (0,), ()), photo[None])
        embedder.read(one)
        counts.append([len(one.face_vectors[n][0]) for n in embedder.recognisers])
        vectors.append(one.face_vectors["curricularface"][0][0])
        assert "6 faces in the image" in embedder.person([tmp_path / "all.png"]).note
    assert counts == [[6, 6], [1, 1]]
    np.testing.assert_allclose(*vectors, atol=1e-6)


# -- strict-v2: faces at the border


def _off(found: Faces, points: np.ndarray) -> float:
    """How far the largest face's landmarks are off, in distances between the eyes."""
    eyes = np.linalg.norm(points[0] - points[1])
    return float(np.linalg.norm(found.landmarks[0] - points, axis=1).max() / eyes)


def test_a_face_cut_at_its_box_has_its_landmarks_right(group_photo):
    detector = make_detector(STRICT.detection)
    wide = detector.detect(group_photo[None])[0]
    before, after = [], []
    for box, points in zip(wide.boxes.round().astype(int), wide.landmarks, strict=True):
        x0, y0, x1, y1 = box
        cut = group_photo[y0:y1, x0:x1]
        for protocol, errors in ((STRICT, before), (STRICT_2, after)):
            (found,) = find_faces(detector, cut[None], protocol.detection)
            errors.append(_off(found, points - [x0, y0]))
    assert max(after) < 0.2 < max(before)
    assert np.mean(after) < 0.7 * np.mean(before)


def test_faces_away_from_the_border_stay_as_they_were_found(group_photo):
    detector = make_detector(STRICT.detection)
    small = cv2.resize(group_photo, (640, 443), interpolation=cv2.INTER_AREA)
    (first,) = find_faces(detector, small[None], STRICT.detection)
    (again,) = find_faces(detector, small[None], STRICT_2.detection)
    for field in ("boxes", "landmarks", "scores"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
    x = int(first.boxes[0, 2]) - 4  # cut the largest face's right side: it alone moves
    (first,) = find_faces(detector, small[None, :, :x], STRICT.detection)
    (again,) = find_faces(detector, small[None, :, :x], STRICT_2.detection)
    same = (first.landmarks[:, None] == again.landmarks).all((2, 3)).any(1)
    assert 1 <= (~same).sum() < len(first) == len(again)


def test_crops_are_grey_beyond_the_picture(tiny_weights, tmp_path):
    frame = np.zeros((300, 300, 3), np.uint8)
    embedder, network, detector = _embedder("strict-v2", tmp_path), _Keeps(), _FindsInGrey()
    detector.points = (TEMPLATE[None] * 1.5).astype(np.float32)
    embedder._loaded = {"detector": detector, "arcface": network}
    embedder.read(Pictures("0" * 64, embedder.keys("0" * 64, (0,), ()), frame[None]))
    assert {0, 128} <= set(network.crops.ravel().tolist())
