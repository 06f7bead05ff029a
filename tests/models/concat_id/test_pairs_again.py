"""Pairs: a folder that is built again holds what its summary says, and nothing from before."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from pair_world import PairWorld, ToyReader, ten_people

from idbench import files
from idbench.errors import UserError
from idbench.models.concat_id.pairs import curation


@pytest.fixture
def world(tmp_path: Path) -> PairWorld:
    return ten_people(tmp_path)


def test_no_file_of_an_earlier_build_stays(world: PairWorld) -> None:
    world.build()
    request = world.request(settings={"people": 2})
    request = replace(request, reader=replace(request.reader, subjects="none"))
    pd.DataFrame([{"mine": 1}]).to_parquet(request.out / "mine.parquet")
    summary = curation.build(request, ToyReader).summary
    assert set(summary["outputs"]) == {
        "pretraining", "cross", "tradeoff", "multi2_pretraining", "multi2_cross"
    }
    found = {path.stem for path in request.out.glob("*.parquet")}
    assert found == {*summary["outputs"], "videos", "mine"}


def test_no_summary_speaks_of_files_that_were_half_replaced(
    world: PairWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build()
    out = world.folder / "out"
    replace_file = os.replace

    def full_at_tradeoff(source, target):
        if str(target).endswith("tradeoff.parquet"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace_file(source, target)

    monkeypatch.setattr(files.os, "replace", full_at_tradeoff)
    with pytest.raises(UserError, match="is full"):
        world.build(settings={"cross": [0.75, 0.8]})
    assert not (out / "summary.json").exists() and not (out / "pairs.html").exists()
    monkeypatch.undo()
    summary = world.build(settings={"cross": [0.75, 0.8]}).summary
    assert json.loads((out / "summary.json").read_text()) == summary


def test_a_video_is_read_again_when_what_lies_beside_it_changes(world: PairWorld) -> None:
    world.build()
    beside = world.videos / "0/take1.garment.png"
    beside.write_bytes(b"a")
    assert world.build().read == 1 and world.reads()[-1] == "0/take1.mp4"
    assert world.build().read == 0
    beside.write_bytes(b"other")
    assert world.build().read == 1
    beside.unlink()
    assert world.build().read == 1
    (world.videos / "0/take1.txt").write_text("not read by anybody")
    assert world.build().read == 0


@pytest.mark.parametrize("name", ["summary.json", "pairs.html", "tryon.parquet"])
def test_a_file_of_the_user_is_kept(world: PairWorld, name: str) -> None:
    path = world.folder / "out" / name
    path.parent.mkdir()
    path.write_text("mine")
    with pytest.raises(UserError, match=name):
        world.build()
    assert path.read_text() == "mine"
