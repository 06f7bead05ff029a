"""Pairs: what is refused, in one sentence."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pair_world import PairWorld, ToyReader, ten_people

from idbench.errors import UserError
from idbench.models.concat_id.pairs import curation
from idbench.models.concat_id.pairs.reader import FaceReader, ReaderSettings
from idbench.models.concat_id.pairs.settings import PairSettings


@pytest.fixture
def world(tmp_path: Path) -> PairWorld:
    return ten_people(tmp_path)


@pytest.mark.parametrize("change, words", [
    (lambda w, r: replace(r, videos=w.folder / "none"), "There is no folder"),
    (lambda w, r: replace(r, captions=w.folder / "none.csv"), "captions file .* is missing"),
    (lambda w, r: replace(r, truth=w.folder / "none.csv"), "identities file .* is missing"),
    (lambda w, r: replace(r, captions=w.file("c.csv", "video,caption\n")), "is empty"),
    (lambda w, r: replace(r, captions=w.file("c.csv", "video,text\n0/take0.mp4,hi\n")),
     "line 2 has no caption"),
    (lambda w, r: replace(r, captions=w.file("c.csv", "video,caption\n0/tak0.mp4,a man\n")),
     "unknown video '0/tak0.mp4': did you mean '0/take0.mp4'"),
    (lambda w, r: replace(r, captions=w.file(
        "c.csv", "video,caption\n0/take0.mp4,a man\n0/take0.mp4,a man\n")), "a second time"),
    (lambda w, r: replace(r, captions=w.file("c.jsonl", "{no json")), "is not valid JSON"),
    (lambda w, r: replace(r, captions=w.file("c.json", "3")), "must be a list of objects"),
    (lambda w, r: replace(r, captions=w.file("c.json", '{"0/take0.mp4": {"caption": "a man"}}')),
     "the caption must be text, not {'caption'"),
    (lambda w, r: replace(r, captions=w.file("c.xls", "x")), "spreadsheet; save it as CSV"),
    (lambda w, r: replace(r, truth=w.file("t.csv", "video,identity\nnone.mp4,1\n")),
     "unknown video"),
    (lambda w, r: replace(r, aesthetic=w.file("s.csv", "video,score\n0/take0.mp4,nice\n")),
     "line 2: the score must be a number, not 'nice'"),
    (lambda w, r: replace(r, captions=w.file(
        "c.csv", "video,caption\n0/take0.mp4,A man, smiling\n")), "line 2 has more columns than"),
    (lambda w, r: replace(r, truth=w.file("t.csv", "video,identity,person\n0/take0.mp4,1,-1\n")),
     "line 2: '-1' is not a person"),
    (lambda w, r: replace(r, truth=w.file("t.csv", "video,identity,person\n0/take0.mp4,1,1.5\n")),
     "line 2: '1.5' is not a person"),
    (lambda w, r: replace(r, captions=w.link("c.csv", "/proc/self/mem")), "cannot be read"),
])
def test_wrong_inputs_are_one_sentence(world: PairWorld, change, words: str) -> None:
    def file(name: str, text: str) -> Path:
        (world.folder / name).write_text(text)
        return world.folder / name

    def link(name: str, target: str) -> Path:  # a file that fails while it is read
        (world.folder / name).symlink_to(target)
        return world.folder / name

    world.file, world.link = file, link  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=words):
        curation.build(change(world, world.request()), ToyReader)


def test_an_empty_folder_is_refused_and_nothing_made(tmp_path: Path) -> None:
    world = PairWorld(tmp_path)
    with pytest.raises(UserError, match="There are no videos"):
        world.build()
    assert not (tmp_path / "out").exists()


def test_a_damaged_store_is_said(world: PairWorld) -> None:
    world.build()
    (world.folder / "out" / "videos.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(UserError, match="remove it"):
        world.build()


def test_a_store_that_is_damaged_further_in_is_said(world: PairWorld) -> None:
    world.build()
    path = world.folder / "out" / "videos.sqlite"
    whole = path.read_bytes()
    path.write_bytes(whole[:12_288] + b"Z" * (len(whole) - 12_288))
    with pytest.raises(UserError, match="is damaged .*; remove it"):
        world.build()
    path.write_bytes(whole)
    with sqlite3.connect(path) as base:
        base.execute("UPDATE records SET record = '{' WHERE name = '0/take0.mp4'")
    with pytest.raises(UserError, match="is damaged .*; remove it"):
        world.build()


def test_the_largest_seed_works_and_an_unknown_device_is_said(world: PairWorld) -> None:
    assert world.build(settings={"seed": 2**63 - 1}).summary["outputs"]["cross"]["pairs"]
    with pytest.raises(UserError, match="device 'gpu' cannot be used .*; use cpu"):
        FaceReader(ReaderSettings(PairSettings(), device="gpu"))


@pytest.mark.parametrize("arguments, words", [
    (["none", "--captions", "none.csv"], "There is no folder"),
    (["none"], "--captions"),
    (["none", "--captions", "none.csv", "--set", "cross=0.7"], "cross must be two numbers"),
    (["none", "--captions", "none.csv", "--set", "croos=[0.7, 0.8]"], "did you mean 'cross'?"),
    (["none", "--captions", "none.csv", "--recipe", "none.yaml"], "recipe none.yaml is missing"),
    (["none", "--captions", "none.csv", "--subjects", "all"], "--subjects"),
])
def test_the_command_refuses(arguments: list[str], words: str) -> None:
    from idbench.commands.pairs import pairs

    result = CliRunner().invoke(pairs, ["build", *arguments])
    message = result.output + str(result.exception)
    assert result.exit_code != 0 and words in message
