"""The suite `avatars` as data: counts, truth, held-out wordings, reproducible from its source."""

from __future__ import annotations

import collections
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from idbench.prompts import build
from idbench.prompts.avatars.scene import (
    EVALUATION_IDENTITIES,
    TRAINING_IDENTITIES,
    VALIDATION_IDENTITIES,
    check_truth,
    scene_of,
)
from idbench.prompts.language import MAXIMUM_TOKENS, describe, tokens, vocabulary

FOLDER = build.SUITE


def _lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def prompts() -> dict[str, dict]:
    return {row["prompt_id"]: row for row in _lines(FOLDER / "prompts.jsonl")}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {split: _lines(FOLDER / "splits" / f"{split}.jsonl") for split in build.SPLITS}


def _seeds(row: dict) -> list[int]:
    return [int(r["name"][1:]) for r in row["references"] if r["kind"] == "face"]


def test_texts_rebuild_byte_for_byte(tmp_path: Path) -> None:
    for name in ("source.yaml", "suite.yaml"):
        shutil.copy(FOLDER / name, tmp_path / name)
    build.build(tmp_path, texts_only=True)
    names = ["prompts.jsonl", *(f"splits/{split}.jsonl" for split in build.SPLITS)]
    for name in names:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes(), name


def test_every_file_has_its_checksum() -> None:
    stated = dict(reversed(line.split("  ", 1)) for line in
                  (FOLDER / "CHECKSUMS").read_text(encoding="utf-8").splitlines())
    found = {p.relative_to(FOLDER).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
             for p in FOLDER.rglob("*") if p.is_file() and p.name != "CHECKSUMS"}
    assert stated == found


def test_identities_are_kept_for_evaluation(rows: dict[str, list[dict]]) -> None:
    used = {seed for split in rows.values() for row in split for seed in _seeds(row)}
    assert used <= set(EVALUATION_IDENTITIES)
    assert not used & set(TRAINING_IDENTITIES) and not used & set(VALIDATION_IDENTITIES)
    with pytest.raises(ValueError, match="not kept for evaluation"):
        build.identity_name(TRAINING_IDENTITIES.start)


def test_splits_have_the_promised_shape(prompts: dict, rows: dict[str, list[dict]]) -> None:
    def groups(split: str) -> dict[tuple, list[str]]:
        found: dict[tuple, list[str]] = collections.defaultdict(list)
        for row in rows[split]:
            found[tuple(_seeds(row))].append(prompts[row["prompt_id"]]["category"])
        return found

    single = groups("single")
    assert len(single) >= 24 and all(len(set(c)) == 6 for c in single.values())
    multi = groups("multi")
    assert len(multi) >= 12 and all(len(set(c)) == 4 for c in multi.values())
    assert all(len(g) == 2 for g in multi)
    assert all(len(g) == 3 and len(c) == 3 for g, c in groups("multi3").items())
    for split, kind in (("tryon", "garment"), ("background", "background")):
        for row in rows[split]:
            assert [r["kind"] for r in row["references"]] == ["face", kind]
    expected = yaml.safe_load((FOLDER / "suite.yaml").read_text(encoding="utf-8"))["splits"]
    assert {split: len(r) for split, r in rows.items()} == expected


def test_no_prompt_of_a_split_is_rare(rows: dict[str, list[dict]]) -> None:
    for split, of_split in rows.items():
        counts = collections.Counter(row["prompt_id"] for row in of_split)
        assert len(set(counts.values())) == 1, (split, counts)
        assert min(counts.values()) >= 2


def test_prompts_fit_the_text_encoder(prompts: dict) -> None:
    known = set(vocabulary())
    for row in prompts.values():
        words = tokens(row["prompt"])
        assert len(words) <= MAXIMUM_TOKENS, row
        assert known.issuperset(words), row


def test_wordings_are_held_out_from_the_training_language(
    prompts: dict, rows: dict[str, list[dict]]
) -> None:
    wordings = {row["prompt"] for row in prompts.values()}
    rng = np.random.default_rng(0)
    for row in (row for split in rows.values() for row in split):
        scene = scene_of(row["truth"], _seeds(row))
        truth = prompts[row["prompt_id"]]["truth"]
        wish = {k for k in truth if k != "people"} | {
            f"{key}:{i}" for i, p in enumerate(truth.get("people", ())) for key in p}
        said = {describe(scene, rng, mention=wish) for _ in range(40)}
        assert not said & wordings


def test_truth_names_people_in_the_order_of_their_references(rows: dict[str, list[dict]]) -> None:
    for row in (row for split in rows.values() for row in split):
        check_truth(row["truth"])
        faces = [r["name"] for r in row["references"] if r["kind"] == "face"]
        assert [p["identity"] for p in row["truth"]["people"]] == faces


def test_a_garment_or_background_reference_is_the_truth(rows: dict[str, list[dict]]) -> None:
    source = yaml.safe_load((FOLDER / "source.yaml").read_text(encoding="utf-8"))
    for row in rows["tryon"]:
        assert row["truth"]["people"][0]["garment"] == source["garments"][
            row["references"][1]["name"]]
    for row in rows["background"]:
        name, seed = source["backgrounds"][row["references"][1]["name"]]
        assert (row["truth"]["background"], row["truth"]["background_seed"]) == (name, seed)


def test_prompts_say_their_truth_in_words(prompts: dict) -> None:
    """Colours, patterns, emblems and left or right of the truth stand in the text."""
    pattern = {"striped": {"striped", "stripes"}, "checked": {"checked", "checkered"},
               "dotted": {"dotted", "dots"}}
    for row in prompts.values():
        words = set(tokens(row["prompt"]))
        for person in row["truth"].get("people", ()):
            worn = person.get("garment")
            if worn:
                assert worn["colour"] in words, row
                assert worn["pattern"] == "plain" or pattern[worn["pattern"]] & words, row
                assert worn["emblem"] in words | {"none"}, row
            motion = person.get("motion", "")
            if motion.startswith("turn ") and len(row["truth"]["people"]) == 1:
                assert motion.split()[1] in {w.removesuffix("s") for w in words}, row


@pytest.mark.parametrize(("truth", "message"), [
    ({"weather": "rain"}, "unknown key 'weather'"),
    ({"background": "moon"}, "unknown background 'moon'"),
    ({"light": "green"}, "unknown light 'green'"),
    ({"people": [{"expression": "bored"}]}, "unknown expression 'bored'"),
    ({"people": [{"motion": "jump"}]}, "unknown motion 'jump'"),
    ({"people": [{"garment": {"colour": "mauve"}}]}, "unknown garment colour 'mauve'"),
])
def test_a_wrong_truth_is_refused(truth: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_truth(truth)


def test_a_scene_follows_its_truth() -> None:
    truth = {"people": [{"expression": "smile"}, {"garment": {"colour": "red"}}],
             "background": "snow"}
    scene = scene_of(truth, [3, 4], seed=1)
    assert [p.identity for p in scene.people] == [3, 4]
    assert scene.people[0].expression == "smile" and scene.people[1].garment.colour == "red"
    assert (scene.background, scene.light) == ("snow", "soft")
    assert scene == scene_of(truth, [3, 4], seed=1)
    with pytest.raises(ValueError, match="describes 2 people"):
        scene_of(truth, [3])


def test_a_long_or_unknown_prompt_is_refused() -> None:
    def source(text: str) -> dict:
        return {"prompts": {s: {"scene": [[text, {}]] if s == "single" else []}
                            for s in build.SPLITS}}

    with pytest.raises(ValueError, match="unknown words \\['zebra'\\]"):
        build.prompt_rows(source("A zebra smiles."))
    with pytest.raises(ValueError, match="tokens, more than"):
        build.prompt_rows(source("A person smiles " * 11))
