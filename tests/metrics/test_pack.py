"""insightface packs: tiny networks in the true layout, against plain computations."""

from __future__ import annotations

import json
import shutil

import cv2
import numpy as np
import pytest
import torch
from tiny_pack import ANCHORS, STRIDES, make_pack, weights
from torch.nn import functional as F

from idbench.embedded import WeightError
from idbench.errors import UserError
from idbench.files import sha256_file
from idbench.metrics.faces.detect import detector_hashes, make_detector
from idbench.metrics.networks import pack as packs
from idbench.metrics.networks import weight_sources
from idbench.metrics.networks.pack import PackRecogniser, check_providers, pack_file
from idbench.metrics.protocol_types import Detection

SCRFD = Detection(detector="pack", size=320, height=0, thresholds=(0.5, 0.5, 0.5))


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("models") / "buffalo_l")


@pytest.fixture
def frame():
    """320 x 320 noise with two white blocks that cells of stride 32 cover."""
    picture = np.random.default_rng(0).integers(60, 120, (320, 320, 3), dtype=np.uint8)
    picture[96:128, 64:96] = 255
    picture[192:224, 224:256] = 250
    return picture


def test_the_recogniser_is_fed_rgb_in_minus_one_to_one(pack):
    """Against the same layers in torch; tolerance 1e-5 on vectors of length 1."""
    crops = np.random.default_rng(1).integers(0, 256, (5, 112, 112, 3), dtype=np.uint8)
    recogniser = PackRecogniser(pack)
    recogniser.batches.size = 2
    found = recogniser.embed(crops)
    w = {k: torch.tensor(v) for k, v in weights(pack / "w600k_r50.onnx").items()}
    x = (torch.tensor(crops).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    x = F.conv2d(x, w["conv.weight"], w["conv.bias"], stride=16)
    x = torch.where(x >= 0, x, x * w["slope"]).flatten(1)
    expected = F.normalize(x @ w["fc.weight"].T + w["fc.bias"])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert found.dtype == np.float32 and found.shape == (5, 512)
    assert PackRecogniser(pack).embed(crops[:0]).shape == (0, 0)


def test_a_recogniser_with_a_fixed_batch_gives_the_same(pack, tmp_path):
    import onnx

    model = onnx.load(str(pack / "w600k_r50.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, str(tmp_path / "w600k_r50.onnx"))
    crops = np.random.default_rng(1).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    np.testing.assert_allclose(
        PackRecogniser(tmp_path).embed(crops), PackRecogniser(pack).embed(crops), atol=1e-6
    )


def _plain_scrfd(path, picture, threshold=0.5, overlap=0.4):
    """SCRFD's outputs of a picture of the network's size, decoded one anchor after another."""
    w = {k: torch.tensor(v) for k, v in weights(path).items()}
    x = (torch.tensor(picture).permute(2, 0, 1)[None].float() - 127.5) / 128.0
    found = []
    for stride in STRIDES:
        maps = {
            head: F.conv2d(x, w[f"{head}{stride}.weight"], w[f"{head}{stride}.bias"],
                           stride=stride)[0]
            for head in ("score", "box", "points")
        }
        _, rows, columns = maps["score"].shape
        for row in range(rows):
            for column in range(columns):
                for anchor in range(ANCHORS):
                    score = torch.sigmoid(maps["score"][anchor, row, column]).item()
                    if score < threshold:
                        continue
                    centre = np.array([column, row]) * stride
                    box = maps["box"][4 * anchor : 4 * anchor + 4, row, column].numpy() * stride
                    points = maps["points"][10 * anchor : 10 * anchor + 10, row, column].numpy()
                    found.append((score, np.concatenate([centre - box[:2], centre + box[2:]]),
                                  centre + points.reshape(5, 2) * stride))
    kept = []
    for score, box, points in sorted(found, key=lambda f: -f[0]):
        if all(_overlap(box, other) <= overlap for _, other, _ in kept):
            kept.append((score, box, points))
    return sorted(kept, key=lambda f: -np.prod(f[1][2:] - f[1][:2]))


def _overlap(a, b):
    """Intersection over union of boxes whose last pixel counts, as insightface has it."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]) + 1
    inner = np.prod(np.maximum(sides, 0))
    return inner / (np.prod(a[2:] - a[:2] + 1) + np.prod(b[2:] - b[:2] + 1) - inner)


def test_the_detector_of_a_pack_decodes_as_scrfd_does(pack, frame):
    """Tolerance: a thousandth of a pixel, 1e-5 of a score."""
    detector = make_detector(SCRFD, pack=pack)
    found = detector.detect(np.stack([frame, np.zeros_like(frame)]))
    expected = _plain_scrfd(pack / "det_10g.onnx", frame)
    assert len(expected) == 2 and len(found[0]) == 2 and len(found[1]) == 0
    np.testing.assert_allclose(found[0].scores, [f[0] for f in expected], atol=1e-5)
    np.testing.assert_allclose(found[0].boxes, [f[1] for f in expected], atol=1e-3)
    np.testing.assert_allclose(found[0].landmarks, [f[2] for f in expected], atol=1e-3)


def test_larger_frames_are_answered_in_their_own_pixels(pack, frame):
    detector = make_detector(SCRFD, pack=pack)
    large = cv2.resize(frame, (640, 640), interpolation=cv2.INTER_NEAREST)
    small = detector.detect(frame[None])[0]
    twice = detector.detect(large[None])[0]
    np.testing.assert_allclose(twice.boxes, small.boxes * 2, atol=1e-2)
    np.testing.assert_allclose(twice.landmarks, small.landmarks * 2, atol=1e-2)
    # A frame that is not square is shrunk in its shape: half of this one holds one of the faces.
    (left,) = detector.detect(large[None, :, :320])
    np.testing.assert_allclose(left.boxes, twice.boxes[twice.boxes[:, 0] < 200], atol=1e-2)
    assert len(left) == 1


def test_both_detectors_have_one_interface(pack, frame):
    for settings in (SCRFD, Detection()):
        detector = make_detector(settings, pack=pack)
        (faces,) = detector.detect(frame[None])
        assert faces.boxes.shape == (len(faces), 4) and faces.landmarks.shape[1:] == (5, 2)
        hashes = detector_hashes(settings, pack)
        assert all(len(digest) == 64 for digest in hashes.values())
    assert set(detector_hashes(SCRFD, pack)) == {"detector/det_10g.onnx"}


def test_execution_providers_are_recorded_and_another_one_is_refused(pack):
    assert PackRecogniser(pack).providers == ("CPUExecutionProvider",)
    assert make_detector(SCRFD, pack=pack).providers == ("CPUExecutionProvider",)
    with pytest.raises(WeightError, match="w600k_r50.onnx with CPUExecutionProvider where CUDA"):
        check_providers(pack / "w600k_r50.onnx", packs.wanted_providers("cuda"),
                        ["CPUExecutionProvider"])


@pytest.mark.skipif(
    "CUDAExecutionProvider" in __import__("onnxruntime").get_available_providers(),
    reason="onnxruntime has CUDA here",
)
def test_a_silent_fall_back_to_the_cpu_is_refused(pack):
    with pytest.raises(WeightError, match="install onnxruntime-gpu"):
        PackRecogniser(pack, device="cuda:0")


def test_only_detector_and_recogniser_of_a_pack_are_read(pack):
    found = weight_sources.parse([f"arcface=insightface:{pack}"])
    assert found["arcface"].file().name == "w600k_r50.onnx"
    assert found["detector"].file().name == "det_10g.onnx"
    assert found["clip"].embedded
    assert found["arcface"].words() == "insightface:buffalo_l/w600k_r50.onnx"


def _with_manifest(pack, folder, **tasks):
    """The pack with a manifest of insightface 2, its models under other names."""
    shutil.copytree(pack, folder)
    for task, name in (("detection", "det_10g"), ("recognition", "w600k_r50")):
        (folder / f"{name}.onnx").rename(folder / f"{task}.onnx")
        tasks[task] = {"file": f"{task}.onnx", **tasks.get(task, {})}
    (folder / "manifest.json").write_text(json.dumps({
        "manifest_version": 2, "model_id": "raccoon_s", "license": "MODEL.LICENSE",
        "tasks": tasks,
    }))
    return folder


def test_the_preprocessing_of_a_manifest_is_done(pack, frame, tmp_path):
    crops = np.random.default_rng(1).integers(0, 128, (3, 112, 112, 3), dtype=np.uint8)
    plain = _with_manifest(pack, tmp_path / "plain")
    half = _with_manifest(
        pack, tmp_path / "half", recognition={"preprocessing": {"mean": 63.75, "std": 63.75}},
        detection={"preprocessing": {"mean": 63.75, "std": 64.0}},
    )
    own = PackRecogniser(pack).embed(crops)
    np.testing.assert_allclose(PackRecogniser(plain).embed(crops), own)
    # (x - 63.75) / 63.75 is what the pack's own preprocessing makes of 2 x.
    expected = PackRecogniser(pack).embed(crops * 2)
    np.testing.assert_allclose(PackRecogniser(half).embed(crops), expected, atol=1e-5)
    found, = make_detector(SCRFD, pack=half).detect(frame[None] // 2)
    wanted, = make_detector(SCRFD, pack=pack).detect(frame[None] // 2 * 2)
    assert len(found) == len(wanted) == 2
    np.testing.assert_allclose(found.landmarks, wanted.landmarks, atol=1e-3)


def test_another_preprocessing_is_another_network_in_keys_and_records(pack, tmp_path):
    folders = [
        pack, _with_manifest(pack, tmp_path / "a"),
        _with_manifest(
            pack, tmp_path / "b", recognition={"preprocessing": {"mean": 0, "std": 255}},
            detection={"preprocessing": {"mean": 0, "std": 255}}),
    ]
    for name in ("arcface", "detector"):
        sources = [weight_sources.parse([f"{name}=insightface:{f}"])[name] for f in folders]
        assert len({source.identity() for source in sources}) == 3
        assert len({*(h for source in sources for h in source.hashes().values())}) == 3
    assert len({*(h for f in folders for h in detector_hashes(SCRFD, f).values())}) == 3
    assert sources[0].identity() == f"insightface:{sha256_file(pack / 'det_10g.onnx')}"


@pytest.mark.parametrize(("task", "sentence"), [
    ({"input_size": [128, 128]}, "takes crops of 128 x 128 pixels, idbench cuts 112 x 112"),
    ({"preprocessing": {"mean": 0}}, "manifest.json of .* cannot be used"),
    ({"file": "../recognition.onnx"}, "manifest.json of .* cannot be used"),
])
def test_a_manifest_that_cannot_be_honoured_is_refused(pack, tmp_path, task, sentence):
    folder = _with_manifest(pack, tmp_path / "pack", recognition=task)
    with pytest.raises(WeightError, match=sentence):
        weight_sources.parse([f"arcface=insightface:{folder}"])


def test_antelopes_names_are_known_too(pack, tmp_path):
    shutil.copy(pack / "det_10g.onnx", tmp_path / "scrfd_10g_bnkps.onnx")
    shutil.copy(pack / "w600k_r50.onnx", tmp_path / "glintr100.onnx")
    assert pack_file(tmp_path, "recognition").name == "glintr100.onnx"
    assert pack_file(tmp_path, "detection").name == "scrfd_10g_bnkps.onnx"
    assert len(PackRecogniser(tmp_path).embed(np.zeros((1, 112, 112, 3), np.uint8))) == 1


def _without(name):
    def change(folder):
        (folder / name).unlink()

    return change


def _two_recognisers(folder):
    shutil.copy(folder / "w600k_r50.onnx", folder / "w600k_mbf.onnx")


def _empty(folder):
    (folder / "w600k_r50.onnx").write_bytes(b"")


def _nested(folder):
    (folder / "buffalo_l").mkdir()
    for path in list(folder.glob("*.onnx")):
        path.rename(folder / "buffalo_l" / path.name)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_without("w600k_r50.onnx"), "no recognition model .*complete insightface pack"),
        (_two_recognisers, "several recognisers .*w600k_mbf.onnx, w600k_r50.onnx"),
        (_empty, "w600k_r50.onnx is empty"),
        (_nested, "no recognition model .*it may be .*buffalo_l"),
    ],
)
def test_a_pack_with_a_fault_is_refused_when_it_is_named(pack, tmp_path, change, sentence):
    folder = shutil.copytree(pack, tmp_path / "pack")
    change(folder)
    with pytest.raises(UserError, match=sentence):
        weight_sources.parse([f"arcface=insightface:{folder}"])


def test_a_pack_without_a_detector_serves_only_where_none_is_asked_for(pack, tmp_path):
    folder = shutil.copytree(pack, tmp_path / "pack")
    (folder / "det_10g.onnx").unlink()
    with pytest.raises(UserError, match="no detection model"):
        weight_sources.parse([f"detector=insightface:{folder}"])
    with pytest.raises(UserError, match="no detection model"):
        make_detector(SCRFD, pack=folder)
    with pytest.raises(UserError, match="pass an insightface pack with --weights"):
        make_detector(SCRFD)


@pytest.mark.parametrize("cut", ["half", "text"])
def test_a_damaged_model_is_one_sentence(pack, tmp_path, cut):
    folder = shutil.copytree(pack, tmp_path / "pack")
    for name in ("w600k_r50.onnx", "det_10g.onnx"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2] if cut == "half" else b"<html>")
    source = weight_sources.parse([f"arcface=insightface:{folder}"])["arcface"]
    with pytest.raises(WeightError, match=r"w600k_r50.onnx is not an ONNX model .*unpack") as error:
        source.load()
    assert "\n" not in str(error.value)
    with pytest.raises(WeightError, match="det_10g.onnx is not an ONNX model"):
        make_detector(SCRFD, pack=folder)


def test_a_model_of_another_task_under_the_name_is_refused(pack, tmp_path):
    shutil.copy(pack / "2d106det.onnx", tmp_path / "w600k_r50.onnx")
    with pytest.raises(WeightError, match="is a model for landmark.*, not for recognition"):
        PackRecogniser(tmp_path)
