"""Picture files as people see them: turned, over white, of 8 bits; and every reader of them."""

from __future__ import annotations

import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idbench.importing.faces import open_picture
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.pairs import frames
from idbench.models.concat_id.training import cache
from idbench.pictures import UnreadablePicture, is_plain, open_rgb, read_rgb
from idbench.reports.media import reference_uri
from idbench.types import Reference

TURNS = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90,
         8: Image.Transpose.ROTATE_270}
"""EXIF orientation -> how the pixels lie in the file."""


@pytest.fixture
def picture() -> np.ndarray:
    """uint8 RGB (40, 24, 3), smooth and alike in no two of its turns."""
    y, x = np.mgrid[:40, :24]
    return np.stack([6 * y, 10 * x, 100 + 0 * x], -1).astype(np.uint8)


def save_turned(path: Path, picture: np.ndarray, orientation: int) -> Path:
    """As a camera stores it: the pixels lie otherwise, and EXIF says how to turn them."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {} if path.suffix == ".png" else {"quality": 98, "subsampling": 0}
    Image.fromarray(picture).transpose(TURNS[orientation]).save(path, exif=exif, **lossless)
    return path


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_turned_picture_is_upright(tmp_path, picture, suffix, orientation):
    path = save_turned(tmp_path / f"turned{suffix}", picture, orientation)
    found = read_rgb(path)
    assert found.shape == picture.shape and found.flags.writeable
    assert np.abs(found.astype(int) - picture).max() <= (0 if suffix == ".png" else 12)
    assert not is_plain(path)


def test_transparent_parts_lie_on_white(tmp_path, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:10], alpha[10:20] = 0, 128
    Image.fromarray(np.dstack([picture, alpha])).save(tmp_path / "alpha.png")
    found = read_rgb(tmp_path / "alpha.png").astype(int)
    assert (found[:10] == 255).all()
    half = picture[10:20] * (128 / 255) + 255 * (127 / 255)
    assert np.abs(found[10:20] - half).max() <= 1
    assert (found[20:] == picture[20:]).all()
    # A palette with a transparent colour, and grey with alpha.
    few = Image.fromarray(picture).quantize(8)
    few.save(tmp_path / "palette.png", transparency=few.getpixel((0, 0)))
    assert (read_rgb(tmp_path / "palette.png")[0, 0] == 255).all()
    Image.fromarray(np.dstack([picture[..., 0], alpha])).save(tmp_path / "grey.png")
    assert (read_rgb(tmp_path / "grey.png")[:10] == 255).all()
    for name in ("alpha", "palette", "grey"):
        assert not is_plain(tmp_path / f"{name}.png")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_grey_of_16_bits_keeps_its_shades(tmp_path, suffix):
    fine = np.linspace(0, 65535, 24 * 40).reshape(40, 24).astype(np.uint16)
    path = tmp_path / f"fine{suffix}"
    Image.fromarray(fine).save(path)
    found = read_rgb(path)
    assert found.shape == (40, 24, 3)
    assert (found == (fine >> 8)[..., None]).all()
    assert not is_plain(path)


def test_plain_pictures_are_as_pil_gives_them(tmp_path, picture):
    for name, stored in {
        "rgb.png": Image.fromarray(picture), "grey.png": Image.fromarray(picture[..., 0]),
        "palette.png": Image.fromarray(picture).quantize(8),
        "bits.png": Image.fromarray(picture[..., 0] > 100),
        "rgb.jpg": Image.fromarray(picture), "cmyk.jpg": Image.fromarray(picture).convert("CMYK"),
        "rgb.webp": Image.fromarray(picture),
    }.items():
        stored.save(tmp_path / name)
        with Image.open(tmp_path / name) as opened:
            wanted = np.asarray(opened.convert("RGB"))
        np.testing.assert_array_equal(read_rgb(tmp_path / name), wanted)
        assert is_plain(tmp_path / name)
    stream = io.BytesIO((tmp_path / "rgb.png").read_bytes())
    np.testing.assert_array_equal(np.asarray(open_rgb(stream)), picture)


def test_what_is_no_picture_says_so_in_one_sentence(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.png", "folder.png", "float.tif", "gone.png"):
        with pytest.raises(UnreadablePicture, match=rf"{name} cannot be read \(\w+\)") as caught:
            read_rgb(tmp_path / name)
        assert caught.value.kind and "\n" not in str(caught.value)
    Image.new("1", (20_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(UnreadablePicture, match=r"huge.png cannot be read \(too many pixels\)"):
        read_rgb(tmp_path / "huge.png")
    for name in ("text.png", "gone.png"):
        with pytest.raises(UnreadablePicture):
            is_plain(tmp_path / name)


def test_every_reader_of_references_sees_the_upright_picture(tmp_path, picture):
    path = save_turned(tmp_path / "turned.png", picture, 6)
    np.testing.assert_array_equal(np.asarray(open_picture(path)), picture)
    np.testing.assert_array_equal(frames._image(path, "RGB"), picture)
    np.testing.assert_array_equal(cache._read(path), picture)
    model = ConcatID("tryon", height=40, width=24)
    np.testing.assert_array_equal(model.pictures.prepare(Reference("garment", "g", path)), picture)
    Image.fromarray(picture).save(tmp_path / "plain.png")
    assert reference_uri(path) == reference_uri(tmp_path / "plain.png")


def test_heic_is_read_with_its_plugin_and_else_names_it(tmp_path, picture, monkeypatch):
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # not installed
    with pytest.raises(UnreadablePicture, match="needs the package pillow-heif"):
        read_rgb(path)
    with pytest.raises(UnreadablePicture, match="needs the package pillow-heif"):
        is_plain(path)
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    plugin = types.SimpleNamespace(register_heif_opener=lambda: Image.register_open(
        "HEIF", lambda fp, name: Image.fromarray(picture), lambda head: head[4:12] == b"ftypheic"))
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    np.testing.assert_array_equal(read_rgb(path), picture)


@pytest.mark.parametrize("name", ["a.avif", "a.jfif"])
def test_avif_and_jfif_are_read(tmp_path, picture, name):
    Image.fromarray(picture).save(tmp_path / name, **({"format": "JPEG"} if "j" in name else {}))
    assert read_rgb(tmp_path / name).shape == picture.shape
