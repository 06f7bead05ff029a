"""Suites: samples, their ids and seeds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toy import make_suite

from idbench import runs
from idbench.errors import UserError
from idbench.prompts import suite_names
from idbench.records import ModelName
from idbench.suite import load_suite, write_checksums

MODEL = {"name": "m", "variant": None, "revision": "1", "settings": {"steps": 2}, "weights": {}}


def test_ids_and_seeds_depend_on_the_suite_part_alone(suite_folder: Path, tmp_path: Path) -> None:
    samples = load_suite(suite_folder).samples("single")
    assert len({s.id for s in samples}) == len({s.seed for s in samples}) == 8
    # Golden: a change of these changes every run ever made.
    assert (samples[0].id, samples[0].seed) == GOLDEN
    moved = make_suite(tmp_path / "elsewhere" / "tiny")
    assert [s.id for s in load_suite(moved).samples("single")] == [s.id for s in samples]
    assert [s.id for s in load_suite(moved).samples("single", limit=3)] == [
        s.id for s in samples[:3]
    ]
    other = load_suite(suite_folder).samples("single", seed=1)
    assert not {s.seed for s in other} & {s.seed for s in samples}
    assert all(0 <= s.seed < 2**31 for s in samples + other)


GOLDEN = ("75dc9049255409d0", 277147117)


def test_a_small_limit_has_many_identities_and_prompts(suite_folder: Path) -> None:
    samples = load_suite(suite_folder).samples("single", limit=4)
    assert len({s.identities for s in samples}) == 4
    assert {s.prompt_id for s in samples} == {"smile", "park"}


def test_every_part_of_the_model_changes_the_sample_id() -> None:
    def sample_id(suite_id: str, model: dict[str, Any]) -> str:
        return runs.sample_id(suite_id, ModelName.model_validate(model))

    base = sample_id("abc", MODEL)
    assert base == sample_id("abc", json.loads(json.dumps(MODEL)))
    changes = [
        {"name": "n"}, {"variant": "v"}, {"revision": "2"}, {"settings": {"steps": 3}},
        {"weights": {"a": "b"}},
    ]
    ids = {sample_id("abc", {**MODEL, **change}) for change in changes} | {sample_id("b", MODEL)}
    assert len(ids) == 6 and base not in ids


@pytest.mark.parametrize("file, old, new, words", [
    ("prompts.jsonl", '"category"', '"kategory"', "unknown field 'kategory': did you mean 'cat"),
    ("splits/single.jsonl", '"kind": "face"', '"kind": "hat"', "'references.0.kind' is wrong"),
    ("splits/single.jsonl", '"smile"', '"smirk"',
     "the prompt 'smirk', which is not in prompts.jsonl"),
    ("splits/single.jsonl", "references/p0.png", "references/q.png", "q.png, which is missing"),
    ("suite.yaml", "single: 8", "single: 9", "has 9 samples, splits/single.jsonl has 8"),
    ("splits/single.jsonl", "references/p0.png", "../p0.png", "'references.0.file' is wrong"),
    ("splits/single.jsonl", "references/p0.png", "/p0.png", "must be a path inside the folder"),
    ("suite.yaml", "name: tiny", "name: ../tiny", "'name' is wrong (it must be a plain name"),
    ("suite.yaml", "name: tiny", "name: ..", "must be a plain name"),
    ("suite.yaml", "name: tiny", "name: [", "is not valid YAML"),
    ("prompts.jsonl", "{", "", "line 1 is not valid JSON"),
])
def test_faults_are_named_with_their_place(
    suite_folder: Path, file: str, old: str, new: str, words: str
) -> None:
    path = suite_folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    write_checksums(suite_folder)
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        load_suite(suite_folder).samples("single")


def test_files_must_be_as_their_checksums_say(suite_folder: Path) -> None:
    extra = suite_folder / "references/extra.png"
    extra.write_bytes(b"x")
    with pytest.raises(UserError, match="file without a checksum, references/extra.png"):
        load_suite(suite_folder)
    extra.unlink()
    (suite_folder / "references/p0.png").unlink()
    with pytest.raises(UserError, match="p0.png is missing"):
        load_suite(suite_folder)
    (suite_folder / "CHECKSUMS").unlink()
    with pytest.raises(UserError, match="has no CHECKSUMS"):
        load_suite(suite_folder)


def test_installed_suites_load_with_all_splits() -> None:
    assert "avatars" in suite_names()
    suite = load_suite("avatars")
    for split, count in suite.splits.items():
        samples = suite.samples(split)
        assert len(samples) == count == len({s.id for s in samples})


@pytest.mark.parametrize("file, words", [
    ("splits/single.jsonl", "the same sample in rows 1 and 9"),
    ("prompts.jsonl", "the same prompt_id in rows 1 and 3"),
])
def test_duplicate_rows_are_refused(suite_folder: Path, file: str, words: str) -> None:
    """They would be one sample: two generated, one counted."""
    path = suite_folder / file
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    write_checksums(suite_folder)
    with pytest.raises(UserError, match=words):
        load_suite(suite_folder)
