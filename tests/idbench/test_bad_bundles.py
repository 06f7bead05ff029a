"""Bundles of cached embeddings that somebody else wrote: one sentence, and nothing fills up."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from idbench import bundles
from idbench.errors import UserError

GOOD = Path(__file__).parents[2] / "references/concat_id-multi.embeddings.zip"


def bundle(
    path: Path, change: Callable[[dict[str, Any]], object] = len,
    arrays: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Path:
    """The committed bundle with changed content, or changed arrays."""
    with zipfile.ZipFile(GOOD) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == bundles.CONTENT:
                content = json.loads(data)
                change(content)
                data = json.dumps(content).encode()
            elif arrays and name.startswith("embeddings/"):
                data = save({key: np.array(arrays(v)) for key, v in load(data).items()})
            target.writestr(name, data)
    return path


@pytest.mark.parametrize("arrays", [
    lambda v: v[:0] if v.ndim else v, lambda v: np.zeros(3, v.dtype),
], ids=["empty", "threes"])
def test_damaged_arrays_are_one_sentence(tmp_path: Path, arrays: Any) -> None:
    with pytest.raises(UserError, match="cannot be scored .*make it again with"):
        bundles.read(bundle(tmp_path / "x.zip", arrays=arrays))


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c["samples"].append(c["samples"][0]), "a sample is there twice"),
    (lambda c: c["samples"][0].update(shape=[10**13, 8, 8, 3]), "a video has 10000000000000 fr"),
    (lambda c: c["scoring"]["metrics"].update(dlibsim="1"), "cannot be scored"),
], ids=["twice", "endless", "a metric that runs a network on frames"])
def test_wrong_content_is_one_sentence(tmp_path: Path, change: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        bundles.read(bundle(tmp_path / "x.zip", change))


def test_what_would_fill_the_disk_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundle(tmp_path / "x.zip")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("embeddings/zeros", bytes(3_000_000))
    monkeypatch.setattr(bundles, "LARGEST", 3_000_000)
    assert len(bundles.read(path).values) == 8
    monkeypatch.setattr(bundles, "MOST_PACKED", 3)
    with pytest.raises(UserError, match="would unpack to 0.0 GB and is no bundle"):
        bundles.read(path)
