"""Preparing faces by the user's own weights: SegFormer, SCRFD, ArcFace's alignment."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from insightface.utils.face_align import norm_crop
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_base import cogvideox_base
from tiny_pack import make_pack
from tiny_parser import make_parser
from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

from idbench.errors import UserError
from idbench.metrics.faces.detect import Faces
from idbench.models.concat_id import face_tools, references
from idbench.models.concat_id.model import ConcatID
from idbench.types import Reference


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("models") / "antelopev2")


@pytest.fixture
def photograph():
    """640 x 640 noise with a white block that the tiny SCRFD takes for a face."""
    picture = np.random.default_rng(0).integers(60, 120, (640, 640, 3), dtype=np.uint8)
    picture[192:224, 256:288] = 255
    return picture


def test_a_segformer_keeps_the_head_alone(tmp_path):
    crop = np.random.default_rng(0).integers(0, 256, (24, 20, 3)).astype(np.uint8)
    # Skin, hair and neck stay; background, ear ring, necklace and clothes go.
    shares = {1: 1.0, 13: 1.0, 17: 1.0, 0: 0.0, 15: 0.0, 16: 0.0, 18: 0.0}
    for label, share in shares.items():
        folder = make_parser(tmp_path / str(label), label)
        foreground, hashes = face_tools.load_foreground(str(folder))
        found = foreground(crop)
        assert found.shape == (24, 20) and found.mean() == share, label
        assert set(hashes) == {
            "parser/config.json", "parser/model.safetensors", "parser/preprocessor_config.json"
        }


def test_a_segformer_finds_what_its_own_logits_say(tmp_path):
    """A network that is not constant, against transformers' own post-processing."""
    folder = make_parser(tmp_path / "parser", 0)
    torch.manual_seed(1)
    parser = SegformerForSemanticSegmentation.from_pretrained(folder)
    torch.nn.init.normal_(parser.decode_head.classifier.weight, std=30.0)
    torch.nn.init.zeros_(parser.decode_head.classifier.bias)
    parser.save_pretrained(folder)
    crop = np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8)
    processor = SegformerImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = parser.eval()(**processor(images=crop, return_tensors="pt"))
    labels = processor.post_process_semantic_segmentation(output, [crop.shape[:2]])[0].numpy()
    expected = ~np.isin(labels, (0, 14, 15, 16, 18))
    assert 0.02 < expected.mean() < 0.98
    foreground, _ = face_tools.load_foreground(str(folder))
    assert (foreground(crop).astype(bool) == expected).mean() > 0.999


def test_a_hub_id_is_fetched_once_by_its_name(tmp_path, monkeypatch):
    import huggingface_hub

    folder = make_parser(tmp_path / "snapshot", 1)
    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or str(folder)
    )
    foreground, _ = face_tools.load_foreground("someone/face-parsing")
    assert asked == ["someone/face-parsing"]
    assert foreground(np.zeros((8, 8, 3), np.uint8)).all()

    def offline(name, **_):
        raise OSError("no network\nand more lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(UserError, match="cannot be fetched from the hub .no network.") as caught:
        face_tools.load_foreground("someone/face-parsing")
    assert "\n" not in str(caught.value)


def test_the_release_aligns_the_largest_face_of_a_pack(pack, photograph, tmp_path):
    """Against insightface's own `norm_crop`, which the released code calls."""
    parser = make_parser(tmp_path / "parser", 1)
    tools = face_tools.load_tools(f"insightface:{pack}", str(parser))
    assert tools.alignment == "arcface"
    landmarks = tools.locate(photograph)
    assert landmarks is not None
    expected = norm_crop(photograph, landmarks, image_size=448)
    made = tools.prepare(photograph, 64, 96)
    assert made.problem is None
    fitted = references.fit_and_pad(expected, 64, 96)
    assert np.abs(made.image.astype(int) - fitted.astype(int)).max() <= 2
    upright = face_tools.load_tools(f"insightface:{pack}", "none", "upright")
    other = upright.prepare(photograph, 64, 96)
    assert other.problem == "no face parser: background kept"
    assert np.abs(other.image.astype(int) - made.image.astype(int)).mean() > 5


def test_without_a_face_the_whole_image_is_used(pack, tmp_path):
    tools = face_tools.load_tools(f"insightface:{pack}", "none")
    grey = np.full((64, 64, 3), 90, np.uint8)
    made = tools.prepare(grey, 64, 96)
    assert made.problem == "no face found: whole image used"
    np.testing.assert_array_equal(made.image, references.fit_and_pad(grey, 64, 96))


def test_of_several_faces_the_largest_is_used_and_it_is_said(pack, photograph):
    tools = face_tools.load_tools(f"insightface:{pack}", "none")
    face = tools.find(photograph)[:1]
    marks = np.concatenate([face.landmarks, face.landmarks / 2])
    two = Faces(np.repeat(face.boxes, 2, 0), marks, np.repeat(face.scores, 2))
    both = replace(tools, find=lambda image: two)
    made, alone = both.prepare(photograph, 64, 96), tools.prepare(photograph, 64, 96)
    np.testing.assert_array_equal(made.image, alone.image)
    assert made.problem == "2 faces found: the largest is used; " + alone.problem


def test_the_model_prepares_with_the_tools_it_is_given(pack, photograph, tmp_path):
    folder, _ = cogvideox_base(tmp_path / "base")
    parser = make_parser(tmp_path / "parser", 0)  # all background: under 40 % is head
    Image.fromarray(photograph).save(tmp_path / "face.png")
    reference = Reference("face", "someone", tmp_path / "face.png")
    made = {}
    for name, chosen in {
        "usual": {}, "own": {"faces": f"insightface:{pack}", "parser": str(parser)},
    }.items():
        model = ConcatID(weights=str(folder), device="cpu", height=64, width=96, **chosen)
        made[name] = model.pictures.prepare(reference), model.settings(), model.weight_hashes()
        problem = model.pictures.problems.get(str(reference.image))
    assert problem == "head fills less than 40% of the crop: background kept"
    landmarks = face_tools.load_tools(f"insightface:{pack}", "none").locate(photograph)
    crop = norm_crop(photograph, landmarks, image_size=448)
    difference = made["own"][0].astype(int) - references.fit_and_pad(crop, 64, 96)
    assert np.abs(difference).max() <= 2
    own = made["own"][1].items() - made["usual"][1].items()
    assert dict(own) == {"faces": "insightface", "parser": "segformer", "alignment": "arcface"}
    hashes = made["own"][2]
    assert {"detector/det_10g.onnx", "parser/model.safetensors"} <= set(hashes)
    assert not any("face_parser" in name for name in hashes)


@pytest.mark.parametrize(("chosen", "words"), [
    ({"alignment": "archface"}, "did you mean 'arcface'"),
    ({"faces": "insightface"}, "faces is embedded or insightface:FOLDER"),
    ({"faces": "insightface:gone"}, "gone"),
    ({"parser": "best"}, "The parser best cannot be used: There is no folder"),
    ({"parser": "a/b/c"}, "The parser a/b/c cannot be used: There is no folder"),
])
def test_wrong_names_are_one_sentence(chosen, words):
    with pytest.raises(UserError, match=words) as caught:
        face_tools.load_tools(**chosen)
    assert "\n" not in str(caught.value)


def test_a_parser_of_other_classes_or_a_damaged_one_is_refused(tmp_path):
    folder = make_parser(tmp_path / "scenes", 0, classes=150)
    with pytest.raises(UserError, match="knows 150 classes, a face parser 19"):
        face_tools.load_foreground(str(folder))
    weights = make_parser(tmp_path / "cut", 0) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read .* download it again"):
        face_tools.load_foreground(str(tmp_path / "cut"))


def without_head(folder):
    state = load_file(folder / "model.safetensors")
    kept = {name: t for name, t in state.items() if not name.startswith("decode_head.classifier")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def of_streets(folder):
    """Cityscapes has 19 classes too."""
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["0"] = "road"
    (folder / "config.json").write_text(json.dumps(config))


def with_code(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": Path}))


@pytest.mark.parametrize(("spoil", "words"), [
    (without_head, "lacks 2 tensors .decode_head.classifier.bias"),
    (of_streets, "its first class is 'road', not the background"),
    (with_code, "cannot be read .Weights only load failed"),
    (lambda f: (f / "config.json").write_text("[]"), "cannot be read"),
    (lambda f: (f / "preprocessor_config.json").write_text("[]"), "cannot be read"),
], ids=["no head", "streets", "code", "config", "preprocessor"])
def test_a_parser_that_would_show_chance_or_a_traceback_is_refused(tmp_path, spoil, words):
    folder = make_parser(tmp_path / "parser", 1)
    spoil(folder)
    with pytest.raises(UserError, match=words) as caught:
        face_tools.load_foreground(str(folder))
    assert "\n" not in str(caught.value)


def test_a_device_that_is_not_here_is_said(tmp_path):
    parser = str(make_parser(tmp_path / "parser", 1))
    with pytest.raises(UserError, match="device 'gpu' cannot be used"):
        face_tools.load_tools(parser=parser, device="gpu")
