"""`preparation: released` against the released code's steps, by the libraries it calls."""

from __future__ import annotations

from pathlib import Path

import cv2
import insightface
import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from insightface.app import FaceAnalysis
from insightface.utils.face_align import norm_crop
from PIL import Image
from skimage.data import astronaut
from tiny_pack import make_pack
from tiny_parser import make_parser
from transformers import SegformerForSemanticSegmentation

from idbench.errors import UserError
from idbench.metrics.faces.detect import Faces
from idbench.models.concat_id import face_tools
from idbench.models.concat_id.model import ConcatID
from idbench.types import Reference

BACKGROUND = (0, 14, 15, 16, 18)


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return make_pack(tmp_path_factory.mktemp("home") / "models" / "antelopev2")


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """A SegFormer that sees several classes."""
    folder = make_parser(tmp_path_factory.mktemp("parser") / "segformer", 1)
    torch.manual_seed(1)
    network = SegformerForSemanticSegmentation.from_pretrained(folder)
    torch.nn.init.normal_(network.decode_head.classifier.weight, std=30.0)
    network.save_pretrained(folder)
    return folder


def photographs() -> dict[str, np.ndarray]:
    group = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    pictures = {"astronaut": astronaut(), "group": np.array(Image.open(group).convert("RGB"))}
    pictures["tall"] = pictures["group"][:, 300:517]
    pictures["flat"] = pictures["group"][200:333]
    # The tiny SCRFD takes white blocks for faces.
    for name in ("astronaut", "group"):
        marked = pictures[name].copy()
        marked[96:160, 128:192] = marked[300:330, 300:330] = 255
        pictures[f"{name}, marked"] = marked
    return pictures


def released(picture: np.ndarray, pack: Path, parser: Path, height: int, width: int) -> np.ndarray:
    """float (height, width, 3) in 0..1; the order of steps of the released sample_video.py."""
    app = FaceAnalysis(name=pack.name, root=str(pack.parent.parent), allowed_modules=["detection"],
                       providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_size=(640, 640))
    faces = app.get(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    crop = picture
    if faces:
        sides = [f["bbox"][2:] - f["bbox"][:2] for f in faces]
        largest = max(range(len(faces)), key=lambda i: sides[i].prod())
        crop = norm_crop(picture, faces[largest]["kps"], image_size=448)
    # What transformers 4's image processor does: Pillow's bilinear, 1/255, ImageNet's mean and std.
    small = np.asarray(Image.fromarray(crop).resize((32, 32), Image.Resampling.BILINEAR))
    pixels = (small / 255.0 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    network = SegformerForSemanticSegmentation.from_pretrained(parser).eval()
    with torch.no_grad():
        logits = network(torch.from_numpy(pixels).float().permute(2, 0, 1)[None]).logits
    logits = torch.nn.functional.interpolate(logits, crop.shape[:2], mode="bilinear")
    head = ~np.isin(logits.argmax(1)[0].numpy(), BACKGROUND)
    if head.sum() >= 0.4 * head.size:
        crop = crop * head[..., None].astype(np.uint8)
    x = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None].float() / 255
    rows, columns = crop.shape[:2]
    tall = rows / columns >= height / width
    size = [height, int(columns * height / rows)] if tall else [int(rows * width / columns), width]
    x = tv.resize(x, size, tv.InterpolationMode.BICUBIC)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    x = torch.nn.functional.pad(
        x, (left, width - size[1] - left, top, height - size[0] - top)
    )
    return x[0].clamp(0, 1).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", photographs())
def test_the_pixels_are_the_released_ones(name, pack, parser, tmp_path):
    picture = photographs()[name]
    Image.fromarray(picture).save(tmp_path / "face.png")
    tools = {"faces": f"insightface:{pack}", "parser": str(parser)}
    model = ConcatID(height=480, width=720, preparation="released", **tools)
    ours = model.pictures.prepare(Reference("face", "someone", tmp_path / "face.png"))
    theirs = released(picture, pack, parser, 480, 720)
    assert np.abs(ours / 255.0 - theirs).max() <= 1 / 255
    usual = ConcatID(height=480, width=720, **tools)
    other = usual.pictures.prepare(Reference("face", "someone", tmp_path / "face.png"))
    assert np.abs(other / 255.0 - theirs).max() > 2 / 255
    assert dict(model.settings().items() - usual.settings().items()) == {
        "preparation": "released"
    }


def test_one_search_alone_and_the_parser_on_the_whole_picture(pack, parser):
    """A picture with a face that only a padded search finds."""
    picture = np.full((640, 640, 3), 90, np.uint8)
    picture[:32] = 255
    tools = face_tools.load_tools(
        f"insightface:{pack}", str(parser), preparation="released"
    )
    seen = []

    def foreground(crop):
        seen.append(crop.shape)
        return np.ones(crop.shape[:2], np.float32)

    calls = []
    find = tools.find
    made = face_tools.replace(
        tools, foreground=foreground, find=lambda image: calls.append(1) or find(image)[:0]
    ).prepare(picture, 64, 96)
    assert seen == [(640, 640, 3)] and made.problem == "no face found: whole image used"


def test_wans_script_lets_overshoot_wrap_around(pack, parser, tmp_path):
    """`ToPILImage` of inference_wan.py multiplies floats by 255 and takes them as bytes."""
    picture = np.where(np.indices((60, 60)).sum(0)[..., None] // 9 % 2, 255, 0).astype(np.uint8)
    picture = picture.repeat(3, 2)
    Image.fromarray(picture).save(tmp_path / "face.png")
    tools = {"faces": f"insightface:{pack}", "parser": str(parser), "height": 64, "width": 96}
    made = {}
    for preparation in ("released", "released_wan"):
        model = ConcatID(preparation=preparation, **tools)
        assert model.settings()["preparation"] == preparation
        made[preparation] = model.pictures.prepare(
            Reference("face", "someone", tmp_path / "face.png"))
    pixels = torch.from_numpy(picture.transpose(2, 0, 1).copy()).float() / 255
    x = tv.resize(pixels, [64, 64], tv.InterpolationMode.BICUBIC)
    x = torch.nn.functional.pad(x, (16, 16, 0, 0))
    expected = np.asarray(tv.to_pil_image(x))
    foreground = face_tools.load_foreground(str(parser), released=True)[0]
    if foreground(picture).mean() < 0.4:  # else the parser has blackened a part of both
        np.testing.assert_array_equal(made["released_wan"], expected)
    apart = np.abs(made["released"].astype(int) - made["released_wan"])
    assert 200 < apart.max() and 0.001 < (apart > 200).mean() < 0.5


@pytest.mark.parametrize("preparation", ["default", "released", "released_wan"])
def test_the_release_does_not_turn_pictures(pack, parser, tmp_path, preparation):
    picture = photographs()["flat"]
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(picture).save(tmp_path / "plain.png")
    Image.fromarray(picture).save(tmp_path / "turned.png", exif=exif)
    tools = {"faces": f"insightface:{pack}", "parser": str(parser), "height": 64, "width": 96}
    pictures = ConcatID(preparation=preparation, **tools).pictures
    plain, turned = (
        pictures.prepare(Reference("face", name, tmp_path / f"{name}.png"))
        for name in ("plain", "turned")
    )
    assert np.array_equal(plain, turned) == (preparation != "default")


@pytest.mark.parametrize(("preparation", "searches"), [("released", 1), ("default", 2)])
def test_only_our_preparation_searches_again_with_grey(pack, monkeypatch, preparation, searches):
    seen = []

    class Blind:
        def detect(self, frames):
            seen.append(frames.shape[1:3])
            return [Faces.none() for _ in frames]

        def weight_hashes(self):
            return {}

    monkeypatch.setattr(face_tools, "make_detector", lambda *_: Blind())
    find, _ = face_tools.load_finder(
        f"insightface:{pack}", released=preparation == "released"
    )
    find(np.zeros((40, 60, 3), np.uint8))
    assert seen == [(40, 60), (60, 90)][:searches]


def test_the_background_is_the_released_classes():
    """bg_label of sample_video.py and inference_wan.py; 17, hair, stays."""
    assert face_tools.BACKGROUND == BACKGROUND


@pytest.mark.parametrize("change", [
    {"faces": "embedded"}, {"parser": "none"}, {"parser": "embedded"}, {"alignment": "upright"},
])
def test_it_needs_the_released_tools(change, pack, parser):
    chosen = {"faces": f"insightface:{pack}", "parser": str(parser), **change}
    with pytest.raises(UserError, match="preparation=released needs faces=insightface:FOLDER"):
        ConcatID(preparation="released", **chosen)


def test_an_unknown_preparation_is_one_sentence():
    with pytest.raises(UserError, match="Unknown preparation 'relased': did you mean 'released'"):
        ConcatID(preparation="relased")
