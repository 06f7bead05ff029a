"""Every mistake that issue 3 names, through the command line: one sentence, exit code 2, no half.

Also what is no mistake: a reference without a face, and an unreadable video among many.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from accelerate.state import AcceleratorState
from pair_world import PairWorld, ToyReader
from PIL import Image
from tiny_base import cogvideox_base, wan_base
from tiny_stage import make_cache, recipe

from idbench import files
from idbench.cli import main
from idbench.errors import UserError
from idbench.models.concat_id.model import ConcatID
from idbench.models.concat_id.pairs import curation
from idbench.suite import load_suite
from idbench.types import Reference, Sample

SIZE = {"steps": 1, "frames": 5, "height": 32, "width": 48, "device": "cpu"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    return cogvideox_base(folder / "cogvideox")[0], wan_base(folder / "wan")[0]


@pytest.fixture
def told(capsys):
    """Runs a command; the one sentence it is refused with."""

    def run(*arguments: object) -> str:
        AcceleratorState._reset_state(True)
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr().err
        lines = [line for line in said.splitlines() if line.startswith("Error: ")]
        assert stopped.value.code == 2 and len(lines) == 1 and "Traceback" not in said, said
        return lines[0]

    return run


def generate(base: Path, out: Path, split: str = "single", **changes: object) -> list[object]:
    settings = {**SIZE, "weights": base, **changes}
    chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return ["run", "--model", "concat_id", "--split", split, "--limit", 1, "--no-score",
            "--out", out, *chosen]


# -- no mistakes


def test_a_reference_without_a_face_is_used_whole_and_noted(bases, tmp_path):
    Image.new("RGB", (64, 64), (90, 120, 90)).save(tmp_path / "meadow.png")
    reference = Reference("face", "meadow", tmp_path / "meadow.png")
    sample = Sample("s", "single", "p", "a person smiles", "c", (reference,), 7)
    (video,) = ConcatID(weights=str(bases[0]), **SIZE).generate([sample])
    assert video.notes == ("reference meadow: no face found: whole image used",)


def test_a_run_keeps_the_note(bases, tmp_path, monkeypatch):
    """The suite's own people have faces; so the detector is told to find none."""
    from idbench.models.concat_id import face_tools

    monkeypatch.setattr(
        face_tools, "load_finder", lambda faces, device, released: (
            lambda image: SimpleNamespace(landmarks=np.zeros((0, 5, 2), np.float32)), {}),
    )
    try:
        main([str(part) for part in generate(bases[0], tmp_path / "run")])
    except SystemExit as stopped:
        assert not stopped.code
    (path,) = (tmp_path / "run").glob("samples/*/sample.json")
    (note,) = json.loads(path.read_text())["notes"]
    assert note.endswith("no face found: whole image used") and note.startswith("reference ")


def test_an_unreadable_video_among_many_is_named_counted_and_skipped(tmp_path):
    world = PairWorld(tmp_path)
    for number in range(4):
        world.add(f"{number}.mp4", number)
    (world.videos / "2.mp4").write_text("no video")
    summary = world.build().summary
    assert summary["videos"]["dropped"]["unreadable"] == 1
    assert [row["video"] for row in summary["unreadable"]] == ["2.mp4"]
    assert summary["videos"]["kept_by_people"]["1"] == 3


# -- mistakes


def test_sizes_that_the_networks_cannot_make(bases, tmp_path, told):
    """The tiny autoencoder has 4x4 pixels a latent where the published one has 8x8."""
    for number, (changes, words) in enumerate((
        ({"frames": 6}, "Frames must be 4k + 1, not 6; try 5"),
        ({"height": 36}, "must be multiples of 8, not 36x48; try"),
        ({"width": 50}, "must be multiples of 8, not 32x50; try"),
        ({"steps": 0}, "steps and batch must be at least 1"),
    )):
        out = tmp_path / str(number)
        assert words in told(*generate(bases[0], out, **changes)), changes
        assert not list(out.rglob("video.mp4"))


def test_the_papers_size_is_held_to_16_pixels(tmp_path, told):
    for changes, words in (
        ({"height": 472}, "height and width multiples of 16"),
        ({"frames": 50}, "frames must be 4k"),
    ):
        chosen = [part for n, v in changes.items() for part in ("--set", f"{n}={v}")]
        assert words in told("train", "cogvideox_stage1", "--plan", *chosen)


def test_more_than_three_references(bases, tmp_path, told):
    cache = make_cache(tmp_path / "cache")
    path = tmp_path / "four.yaml"
    path.write_text(yaml.safe_dump(recipe(cache, references=4)))
    assert "less than or equal to 3, not 4" in told("train", path, "--state", tmp_path / "state")
    assert not (tmp_path / "state").exists()
    Image.new("RGB", (32, 32)).save(tmp_path / "cloth.png")
    reference = Reference("garment", "cloth", tmp_path / "cloth.png")
    sample = Sample("s", "multi", "p", "people", "c", (reference,) * 4, 7)
    with pytest.raises(UserError, match="at most 3 references, not 4; leave some out"):
        list(ConcatID(weights=str(bases[0]), **SIZE).generate([sample]))
    four = max(len(s.references) for s in load_suite("avatars").samples("multi3"))
    assert four == ConcatID.maximum_references == 3  # no suite asks for more


class Harmful:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("kind", ["zero bytes", "truncated", "another base", "code"])
def test_checkpoints_that_cannot_be_used(bases, tmp_path, told, kind):
    source = tmp_path / "checkpoint.pt"
    if kind == "zero bytes":
        source.write_bytes(b"")
        words = "is empty"
    elif kind == "truncated":
        torch.save({"module": {"model.diffusion_model.x": torch.zeros(1000)}}, source)
        source.write_bytes(source.read_bytes()[:2000])
        words = "damaged or truncated"
    elif kind == "another base":
        torch.save({"unet.down_blocks.0.weight": torch.zeros(2)}, source)
        words = "not a checkpoint of Concat-ID"
    else:
        source.write_bytes(pickle.dumps({"module": Harmful()}))
        words = "not a plain state dict"
    assert words in told("convert", source, tmp_path / "ours", "--base", bases[0])
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt"}


def test_folders_whose_files_are_empty_or_cut_are_named_before_a_run_starts(
    bases, tmp_path, told
):
    import shutil

    for number, size in enumerate((0, 200)):
        folder = shutil.copytree(bases[0], tmp_path / f"base{number}")
        path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
        path.unlink()
        path.write_bytes(b"\x00" * size)
        said = told(*generate(folder, tmp_path / f"run{number}"))
        assert ("is empty" if size == 0 else "cannot be loaded") in said
        assert not list((tmp_path / f"run{number}").rglob("sample.json"))


def test_a_stage_that_starts_from_another_base_is_refused(bases, tmp_path, told):
    cache = make_cache(tmp_path / "cache")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(cache, init=str(bases[1]))))
    said = told("train", path, "--state", tmp_path / "state")
    assert "contains a WanTransformer3DModel, the recipe 'tiny' trains a cogvideox network" in said


# -- a full disk


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_pairs_on_a_full_disk_keep_what_was_read(tmp_path, monkeypatch):
    world = PairWorld(tmp_path)
    for number in range(4):
        world.add(f"{number}.mp4", number)
    replace = os.replace

    def half(source, target):
        if str(target).endswith("cross.parquet"):
            full()
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", half)
    with pytest.raises(UserError, match="is full; free some space and run the same command again"):
        curation.build(world.request(), ToyReader)
    out = tmp_path / "out"
    assert not (out / "cross.parquet").exists() and not list(out.glob(".*part*"))
    monkeypatch.undo()
    again = world.build()
    assert again.read == 0 and again.summary["videos"]["kept_by_people"]["1"] == 4


def test_a_training_that_finds_the_disk_full_can_be_started_again(
    tmp_path, told, monkeypatch, capsys
):
    writer = pytest.importorskip("tensorboard.summary.writer.event_file_writer")
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(make_cache(tmp_path / "cache"), steps=2)))
    monkeypatch.setattr(writer.EventFileWriter, "flush", full)
    monkeypatch.setattr(writer._AsyncWriterThread, "_run", full)
    said = told("train", path, "--state", tmp_path / "state")
    assert "is full; free some space" in said and "Traceback" not in said + capsys.readouterr().err
    monkeypatch.undo()
    AcceleratorState._reset_state(True)
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(path), "--state", str(tmp_path / "state")])
    assert stopped.value.code == 0


def test_an_export_on_a_full_disk_leaves_no_half(tmp_path, told, monkeypatch):
    from idbench.models.concat_id.training import trained_weights

    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe(make_cache(tmp_path / "cache"), steps=2)))
    monkeypatch.setattr(trained_weights, "save_torch_state_dict", full)
    assert "is full; free some space" in told("train", path, "--state", tmp_path / "state")
    assert not list((tmp_path / "state").glob("*export*"))
    assert not list((tmp_path / "state").glob(".export*"))
    monkeypatch.undo()
    AcceleratorState._reset_state(True)
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(path), "--state", str(tmp_path / "state"), "--resume"])
    assert not stopped.value.code
    assert (tmp_path / "state" / "export" / "transformer" / "config.json").is_file()


def test_a_cache_on_a_full_disk_goes_on_later(tmp_path, bases, told, monkeypatch):
    import pandas as pd

    from idbench.models.concat_id.training import cache
    from idbench.types import Video
    from idbench.video import write_video

    rng = np.random.default_rng(0)
    rows = []
    for number in range(2):
        frames = rng.integers(0, 256, (6, 32, 48, 3)).astype(np.uint8)
        write_video(tmp_path / "videos" / f"{number}.mp4", Video(frames, 8.0))
        rows.append({"video": f"{number}.mp4", "caption": "a person", "references": []})
    pd.DataFrame(rows).to_parquet(tmp_path / "pairs.parquet")
    arguments = ["train", "pairs_cache", "--state", tmp_path / "cache"]
    for name, value in {
        "pairs": tmp_path / "pairs.parquet", "videos": tmp_path / "videos", "references": 0,
        "components": bases[0], "frames": 5, "height": 32, "width": 48, "held_out": 0,
        "device": "cpu",
    }.items():
        arguments += ["--set", f"{name}={value}"]
    write, count = cache.write_bytes, []

    def one_only(path, data):
        count.append(path)
        if len(count) > 1:
            with files.disk_errors(path):
                full()
        write(path, data)

    monkeypatch.setattr(cache, "write_bytes", one_only)
    assert "is full; free some space" in told(*arguments)
    assert not (tmp_path / "cache" / "cache.json").exists()
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 1
    monkeypatch.undo()
    AcceleratorState._reset_state(True)
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stopped:
        assert not stopped.code
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 2
