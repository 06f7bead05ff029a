"""The embedded weights: written with their origin, refused when damaged or swapped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from idbench import embedded, weight_files
from idbench.embedded import WeightError, entries, load_state, save_entry, weight_path
from idbench.errors import UserError
from idbench.files import sha256_file


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IDBENCH_WEIGHTS", str(tmp_path))
    return tmp_path


def save(name: str, weights: object, **more: object) -> None:
    origin = dict(recipe="r", seed=1, steps=2, config={"width": 3}, measured={"auc": 0.9})
    save_entry(name, weights, **{**origin, **more})  # type: ignore[arg-type]


def test_state_comes_back_in_float32_and_entry_says_its_origin(folder: Path) -> None:
    shared = torch.linspace(-1, 1, 6)
    state = {"a": shared, "b": shared.view(2, 3).t(), "n": torch.tensor([3])}
    save("net", state)
    back = load_state("net")
    assert back["a"].dtype == torch.float32 and back["n"].dtype == torch.int64
    assert torch.allclose(back["b"], state["b"], atol=1e-3)
    found = embedded.entry("net")
    assert (found["parameters"], found["steps"], found["licence"]) == (13, 2, "Apache-2.0")
    assert [path.name for path in folder.glob("net*")] == ["net.safetensors.z"]
    assert weight_path("net").stat().st_size < 300


def test_bytes_and_states_stand_side_by_side(folder: Path) -> None:
    save("net", {"a": torch.ones(2)}, half=False)
    save("tokenizer.json", b"{}")
    assert weight_path("tokenizer.json").read_bytes() == b"{}"
    assert list(entries()) == ["net", "tokenizer.json"]


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", ".", "..", "", ".hidden", "a b", "ä", "a\n"])
def test_weights_are_only_written_under_plain_names(folder: Path, name: str) -> None:
    for arguments in ((name, b"x", {}), ("net", b"x", {"file": name or "../x"})):
        with pytest.raises(UserError, match="is not a name for embedded weights"):
            save(arguments[0], arguments[1], **arguments[2])
    assert not list(folder.iterdir()) and not list(folder.parent.glob("x*"))


@pytest.mark.parametrize(("change", "field"), [
    ("[]", "is damaged"), ("{", "is not valid JSON"), ("{}", "field 'version'"),
    ('{"version": 2, "files": {}}', "has version 2"),
    ('{"version": 1, "files": []}', "field 'files' is wrong"),
    ('{"version": 1, "files": {"net": {}}}', "field 'files.net.file'"),
    ("../net.safetensors", "field 'files.net.file' is wrong"),
])
def test_a_damaged_manifest_is_one_sentence(folder: Path, change: str, field: str) -> None:
    save("net", {"a": torch.ones(2)})
    path = folder / "manifest.json"
    text = path.read_text().replace('"net.safetensors"', f'"{change}"')
    path.write_text(text if change.startswith("..") else change)
    with pytest.raises(UserError, match=field) as error:
        weight_path("net")
    assert str(path) in str(error.value)


def test_new_measurements_leave_the_weights_as_they_are(folder: Path) -> None:
    save("net", {"a": torch.ones(2)})
    before = embedded.entry("net")
    embedded.save_measured("net", {"arcsim_gain": 0.2})
    assert embedded.entry("net") == {**before, "measured": {"arcsim_gain": 0.2}}
    with pytest.raises(WeightError, match="net"):
        embedded.save_measured("nett", {})


@pytest.mark.parametrize("damage", ["flip", "swap", "remove"])
def test_damaged_swapped_or_missing_files_are_named(folder: Path, damage: str) -> None:
    save("one", {"a": torch.ones(9)})
    save("two", {"a": torch.zeros(9)})
    path = weight_path("one")
    if damage == "flip":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif damage == "swap":
        path.write_bytes(weight_path("two").read_bytes())
    else:
        path.unlink()
    with pytest.raises(WeightError, match="one.safetensors") as error:
        load_state("one")
    with pytest.raises(WeightError, match="one.safetensors"):
        weight_path("one")
    if damage != "remove":
        assert "sha256" in str(error.value) and entries()["one"]["sha256"] in str(error.value)
    load_state("two")


def test_a_file_that_was_checked_is_not_uncompressed_again_to_be_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save("net", {"a": torch.ones(9)})
    read, seen = weight_files.read, []
    monkeypatch.setattr(weight_files, "read", lambda path: (seen.append(path), read(path))[1])
    for _ in range(2):
        weight_path("net")
    assert torch.equal(load_state("net")["a"], torch.ones(9)) and len(seen) == 1
    assert torch.equal(load_state("net")["a"], torch.ones(9)) and len(seen) == 2
    weight_path("net")
    assert len(seen) == 2


def test_uncompressed_weights_are_read_and_replaced_by_the_next(folder: Path) -> None:
    save("net", {"a": torch.ones(9)})
    compressed, plain = weight_path("net"), folder / "net.safetensors"
    plain.write_bytes(weight_files.read(compressed))
    compressed.unlink()
    assert weight_path("net") == plain
    assert torch.equal(load_state("net")["a"], torch.ones(9))
    save("net", {"a": torch.zeros(9)})
    assert weight_path("net") == compressed and not plain.exists()
    assert torch.equal(load_state("net")["a"], torch.zeros(9))


def test_the_sha256_is_that_of_the_uncompressed_file(folder: Path, tmp_path: Path) -> None:
    state = {"b": torch.randn(3, 4), "a": torch.randn(5)}
    save("net", state, half=False)
    save_file(state, tmp_path / "same.safetensors")
    assert embedded.hashes("net") == {"net.safetensors": sha256_file(tmp_path / "same.safetensors")}


def test_unknown_weights_say_the_nearest(folder: Path) -> None:
    save("arcface", {"a": torch.ones(2)})
    with pytest.raises(WeightError, match="did you mean 'arcface'"):
        load_state("arcfase")


def test_installed_weights_are_as_the_manifest_says() -> None:
    total = 0
    for name in entries():
        total += weight_path(name).stat().st_size
    assert total <= 64_000_000


def test_numbers_of_fewer_bits_are_near_and_smaller(folder: Path) -> None:
    value = torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    save("whole", {"w": value})
    save("short", {"w": value}, bits=11)
    back = load_state("short")["w"]
    # 5 bits of the mantissa: at most 2 ** -6 of each number.
    assert ((back - value).abs() <= value.abs() * 1.05 * 2**-6 + 2e-6).all()
    assert 0.004 < (back - value).norm() / value.norm() < 0.009
    assert (back.half().view(torch.int16) & 31 == 0).all()
    assert weight_path("short").stat().st_size < 0.7 * weight_path("whole").stat().st_size


def test_differences_to_a_parent_come_back_nearly_and_small(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    parent = {"w": torch.randn(96, 101, generator=generator), "b": torch.randn(7)}
    child = {k: v + 0.1 * torch.randn(v.shape, generator=generator) for k, v in parent.items()}
    save("parent", parent)
    save("child", child, parent="parent")
    back = load_state("child")
    assert back.keys() == child.keys()
    assert torch.allclose(back["b"], child["b"], atol=2e-3)
    # 15 steps over the range of 64 numbers of deviation 0.1: about a tenth of the deviation.
    error = (back["w"] - child["w"]).square().mean().sqrt()
    assert 0.002 < error < 0.015
    # 4 bits are a quarter of 16; compressed, a little less.
    assert weight_path("child").stat().st_size < 0.25 * 2 * child["w"].numel() + 1000
    assert embedded.entry("child")["parameters"] == embedded.entry("parent")["parameters"]


def test_a_difference_to_another_parent_is_refused(folder: Path) -> None:
    save("parent", {"w": torch.ones(4, 4)})
    save("child", {"w": torch.zeros(4, 4)}, parent="parent")
    save("parent", {"w": torch.full((4, 4), 2.0)})
    with pytest.raises(WeightError, match="difference to other weights parent.*train r"):
        load_state("child")
