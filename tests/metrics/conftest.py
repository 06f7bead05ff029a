"""Tiny random networks in place of the embedded weights, and photographs from packages."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idbench import embedded
from idbench.metrics.networks.clip import ReducedTokenizer, build_clip, clip_vocabulary
from idbench.metrics.networks.recogniser import build_recogniser
from idbench.metrics.networks.video_text import ViCLIP
from idbench.types import Reference, Sample

VOCABULARY = clip_vocabulary(["A woman smiles in the park.", "a man"])
_TEXT_ROWS = ReducedTokenizer(VOCABULARY).size
ARCFACE = {"backbone": "iresnet", "layers": [1, 1, 1, 1], "widths": [4, 8, 8, 8], "size": 32,
           "embedding": 16}
CURRICULARFACE = {**ARCFACE, "backbone": "ir", "widths": [6, 6, 8, 8], "embedding": 24}
CLIP = {
    "embed_dim": 16, "vocabulary": VOCABULARY,
    "vision": {"layers": 1, "width": 16, "head_width": 8, "patch_size": 8, "image_size": 32},
    "text": {"context_length": 32, "vocab_size": _TEXT_ROWS, "width": 16, "heads": 2, "layers": 1},
}
VICLIP = {
    "output": 16, "vocabulary": VOCABULARY,
    "vision": {"size": 32, "patch": 16, "width": 16, "layers": 1, "heads": 2, "frames": 8},
    "text": {"vocabulary": _TEXT_ROWS, "context": 32, "width": 16, "layers": 1, "heads": 2},
}


@pytest.fixture(scope="session")
def written_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with tiny random networks, which tests copy."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    networks = {
        "arcface": (build_recogniser(ARCFACE), ARCFACE),
        "curricularface": (build_recogniser(CURRICULARFACE), CURRICULARFACE),
        "clip": (build_clip(CLIP), CLIP),
        "viclip": (ViCLIP(VICLIP), VICLIP),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IDBENCH_WEIGHTS", str(folder))
        for name, (network, config) in networks.items():
            embedded.save_entry(
                name, network.state_dict(), recipe="test", seed=0, steps=0, config=config,
                measured={}, half=False,
            )
    return folder


@pytest.fixture
def tiny_weights(written_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder with tiny random networks; the same on every call."""
    folder = Path(shutil.copytree(written_weights, tmp_path / "weights"))
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(folder))
    torch.manual_seed(0)
    return folder


@pytest.fixture(scope="session")
def group_photo() -> np.ndarray:
    """insightface's t1.jpg: six real faces, uint8 RGB (886, 1280, 3)."""
    import insightface

    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="session")
def one_face(group_photo: np.ndarray) -> np.ndarray:
    """One person of the group photo, with much room around: uint8 RGB (200, 200, 3)."""
    from idbench.metrics.faces.detect import Mtcnn

    x0, y0, x1, y1 = Mtcnn(minimum_face=40).detect(group_photo[None])[0].boxes[0]
    x, y = int((x0 + x1) / 2), int((y0 + y1) / 2)
    y, x = max(100, y), max(100, x)
    return group_photo[y - 100 : y + 100, x - 100 : x + 100]


@pytest.fixture
def sample(tmp_path, one_face):
    Image.fromarray(one_face).save(tmp_path / "ann.png")
    references = (Reference("face", "ann", tmp_path / "ann.png"),)
    return Sample("s1", "single", "p1", "A woman smiles in the park.", "test", references, 0)
