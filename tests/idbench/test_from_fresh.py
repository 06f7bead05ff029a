"""From a fresh machine to a number beside the paper's, in three commands, against a local server.

The files are random, in the true layouts; the networks are the published classes made narrow, and
their sha256 stand for the published ones.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import types
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from file_server import serving
from PIL import Image
from tiny_pack import make_pack

from idbench import downloads
from idbench import published_weights as published
from idbench.checkpoints import read_checkpoint
from idbench.cli import main
from idbench.embedded import WeightError
from idbench.metrics.networks.recogniser import build_recogniser
from idbench.metrics.networks.video_text import ViCLIP
from idbench.types import Video
from idbench.video import write_video

IR = {"backbone": "ir", "layers": [1, 1, 1, 1], "widths": [4, 8, 8, 8], "size": 112,
      "embedding": 16, "middle_norm": True}
VICLIP = {
    "output": 16,
    "vision": {"size": 32, "patch": 16, "width": 16, "layers": 1, "heads": 2, "frames": 8},
    "text": {"vocabulary": 49408, "context": 32, "width": 16, "layers": 1, "heads": 2},
}
CLIP = {
    "embed_dim": 16, "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


class EasyDict(dict):
    """As the class of the package easydict: items are attributes too."""

    def __init__(self, items: dict) -> None:
        for key, value in items.items():
            setattr(self, key, type(self)(value) if isinstance(value, dict) else value)

    def __setattr__(self, key: str, value: object) -> None:
        super().__setattr__(key, value)
        super().__setitem__(key, value)


def save_with_easydict(content: dict, path: Path, name: str = "EasyDict") -> None:
    """torch.save with `config` as an object of `easydict.NAME`, which then is not importable."""
    module = types.ModuleType("easydict")
    kind = type(name, (EasyDict,), {"__module__": "easydict", "__qualname__": name})
    setattr(module, name, kind)
    sys.modules["easydict"] = module
    try:
        torch.save({**content, "config": kind({"size": {"image": 224}, "name": "vit"})}, path)
    finally:
        del sys.modules["easydict"]


@pytest.fixture
def released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """ENTRY/FILE -> bytes of the four entries of `published`."""
    torch.manual_seed(0)
    monkeypatch.setattr("idbench.metrics.networks.recogniser.IR_101", IR)
    monkeypatch.setattr("idbench.metrics.networks.video_text.VIT_L_14", VICLIP)
    configs = tmp_path / "configs"
    configs.mkdir()
    (configs / "fresh-tiny-quickgelu.json").write_text(json.dumps(CLIP))
    open_clip.add_model_config(configs)
    pack = make_pack(tmp_path / "made" / "buffalo_l")
    files = {f"buffalo_l/{path.name}": path.read_bytes() for path in pack.iterdir()}
    logging.disable(logging.WARNING)
    clip = open_clip.create_model("fresh-tiny-quickgelu", load_weights=False)
    logging.disable(logging.NOTSET)
    made = {
        "curricularface/glint360k_curricular_face_r101_backbone.bin":
            lambda path: torch.save(build_recogniser(IR).state_dict(), path),
        "viclip/ViClip-InternVid-10M-FLT.pth": lambda path: save_with_easydict(
            {"model": ViCLIP(VICLIP).state_dict()}, path),
        "clip-b32/open_clip_model.safetensors": lambda path: open_clip_file(clip, path),
    }
    for name, save in made.items():
        path = tmp_path / "made" / Path(name).name
        save(path)
        files[name] = path.read_bytes()
    return files


def open_clip_file(network: torch.nn.Module, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, path)


@pytest.fixture
def machine(tmp_path: Path, released: dict[str, bytes], monkeypatch: pytest.MonkeyPatch):
    """A fresh machine with a manifest of two videos; a mirror with the released files."""
    entries = dict(published.catalogue())
    for name in [n for n, one in entries.items() if one.networks]:
        digests = {path.partition("/")[2]: hashlib.sha256(data).hexdigest()
                   for path, data in released.items() if path.startswith(f"{name}/")}
        entries[name] = entries[name].model_copy(update={"files": tuple(
            file.model_copy(update={"sha256": digests[file.name]})
            for file in entries[name].files)})
    entries["clip-b32"] = entries["clip-b32"].model_copy(
        update={"networks": {"clip": "open_clip:fresh-tiny-quickgelu"}})
    monkeypatch.setattr(published, "catalogue", lambda: entries)
    published._by_hash.cache_clear()
    monkeypatch.setenv(published.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(0, 120, (8, 320, 320, 3), dtype=np.uint8)
    frames[:, 96:128, 64:96] = 255  # what the random detector takes for a face
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", Video(frames, 8.0))
        Image.fromarray(frames[0]).save(tmp_path / f"{name}.png")
        frames = frames[::-1, :, :, ::-1].copy()
    (tmp_path / "videos.csv").write_text(
        "video,prompt,reference\na.mp4,a person smiles,a.png\nb.mp4,a person walks,b.png\n")
    with serving(released) as server:
        monkeypatch.setenv(downloads.MIRROR_VARIABLE, server.address)
        yield tmp_path
    published._by_hash.cache_clear()


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


SCORE = ("score", "--manifest", "videos.csv", "--name", "ours", "--protocol", "paper-v4",
         "--weights", "published")


def test_three_commands_give_the_paper_s_metrics(
    machine: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert call(*SCORE) == 2
    assert "run `idbench weights get published`" in capfd.readouterr().err

    assert call("weights", "get", "published", "--accept-licence") == 0, capfd.readouterr().err
    capfd.readouterr()
    monkeypatch.setenv(downloads.MIRROR_VARIABLE, "http://127.0.0.1:9")  # no network from here on
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert call(*SCORE) == 0, capfd.readouterr().err
    said = capfd.readouterr()
    assert "protocol paper-v4;" in said.out and "without the published weights" not in said.out
    assert "not a published file" not in said.out and "embedded" not in said.out
    assert "randomly" not in said.err and "initialized" not in said.err
    assert call("table", "runs/score-ours", "--compare", "consisid") == 0
    table = capfd.readouterr().out
    for column in ("ArcSim", "CurSim", "ViCLIP", "CLIPDist", "ConsisID"):
        assert column in table

    assert call("weights", "verify") == 0
    assert {line.split()[0] for line in capfd.readouterr().out.splitlines()} == {"published"}
    assert call("doctor", "--weights", "published") in (0, 1)
    assert "published: w600k_r50.onnx of buffalo_l" in capfd.readouterr().out


def test_other_weights_are_named_in_the_caption_and_in_a_note(
    machine: Path, released: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("weights", "get", "published", "--accept-licence") == 0
    other = machine / "other.bin"
    torch.save(build_recogniser(IR).state_dict(), other)
    capfd.readouterr()
    assert call(*SCORE, "--weights", f"curricularface=curricularface:{other}") == 0
    said = capfd.readouterr().out
    assert "protocol paper-v4 without the published weights" in said
    assert "Note: curricularface/other.bin (sha256" in said
    assert "is unknown: not a file of the catalogue" in said
    assert "arcface/" not in said, "the other files are the published ones"


def test_the_embedded_weights_under_a_published_protocol_are_said_in_the_caption(
    machine: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(*SCORE[:-2]) == 0
    assert "protocol paper-v4 without the published weights" in capfd.readouterr().out


def test_only_an_easydict_is_read_and_as_a_plain_dict(tmp_path: Path) -> None:
    save_with_easydict({"model": {"a": torch.ones(2)}}, tmp_path / "released.pth")
    found = read_checkpoint(tmp_path / "released.pth")
    assert list(found.state) == ["a"] and "config" in found.refused
    save_with_easydict({"model": {"a": torch.ones(2)}}, tmp_path / "other.pth", "OtherDict")
    with pytest.raises(WeightError, match=r"Python objects \(easydict\.OtherDict\)"):
        read_checkpoint(tmp_path / "other.pth")
