"""Compressed files of weights: every byte comes back, and they are smaller."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from idbench import deltas, weight_files

MIXED = {
    "half": torch.linspace(-1, 1, 15).half().view(3, 5), "float": torch.randn(7),
    "brain": torch.randn(6).bfloat16(), "double": torch.randn(2).double(),
    "scalar": torch.tensor(5), "bytes": torch.arange(9, dtype=torch.uint8),
    "flags": torch.tensor([True, False]), "empty": torch.zeros(0, 4),
}


@pytest.mark.parametrize("state", [MIXED, {}, {"empty": torch.zeros(0)}])
def test_every_byte_comes_back(state: dict[str, torch.Tensor]) -> None:
    data = save(state, metadata={"by": "a test"})
    packed = weight_files.compress(data)
    assert weight_files.decompress(packed) == data
    assert weight_files.compress(data) == packed


def test_trained_weights_and_differences_shrink_by_more_than_a_tenth() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = {"w": torch.randn(500, 200, generator=generator) * 0.05}
    later = {"w": weights["w"] + 0.01 * torch.randn(500, 200, generator=generator)}
    for state in ({"w": weights["w"].half()}, deltas.pack(later, weights)):
        data = save(state)
        assert len(weight_files.compress(data)) < 0.89 * len(data)


@pytest.mark.parametrize("cut", [0, 5, -1])
def test_a_cut_file_is_damaged(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "net.safetensors.z"
    path.write_bytes(weight_files.compress(save(MIXED))[:cut])
    for reader in (weight_files.read, weight_files.sha256_once):
        with pytest.raises(weight_files.DamagedFile, match="cannot be uncompressed"):
            reader(path)


def test_other_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(b"{}")
    assert weight_files.read(path) == b"{}"
