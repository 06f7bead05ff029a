"""Pairs: whole builds on toy videos; resuming, counting, refusing."""

from __future__ import annotations

import json
import random
import re
import time
import tracemalloc
import unicodedata
from dataclasses import replace
from html import escape
from pathlib import Path

import cv2
import forked
import numpy as np
import pandas as pd
import pytest
from kills import leftovers
from pair_world import PairWorld, ToyReader, build_slowly, ten_people

from idbench.errors import UserError
from idbench.models.concat_id.pairs import calibration, curation, people, settings, store
from idbench.models.concat_id.training.pair_file import alignment_of
from idbench.picture_hash import are_copies, as_array, frame_print


@pytest.fixture
def world(tmp_path: Path) -> PairWorld:
    return ten_people(tmp_path)


def tables(folder: Path) -> dict[str, str]:
    return {p.name: pd.read_parquet(p).to_json() for p in sorted(folder.glob("*.parquet"))}


def test_each_rule_drops_its_video_and_the_counts_add_up(world: PairWorld) -> None:
    summary = world.build().summary
    videos = summary["videos"]
    assert videos["dropped"] == {
        "no caption": 1, "no human term in the caption": 1, "unreadable": 1,
        "no face in most frames": 1, "more people than the limit": 1,
        "inconsistent number of people": 1, "identity changes between frames": 1,
        "people change their order in every frame": 1,
    }
    assert videos["kept_by_people"] == {"1": 40, "2": 4, "3": 4}
    assert videos["found"] == 56 == sum(videos["dropped"].values()) + 48
    assert [v["video"] for v in summary["unreadable"]] == ["broken.mp4"]
    assert set(summary["outputs"]) == {
        "pretraining", "cross", "tradeoff", "multi2_pretraining", "multi2_cross",
        "multi3_pretraining", "multi3_cross", "tryon", "background",
    }
    for name, output in summary["outputs"].items():
        assert output["candidates"] == output["pairs"] + sum(output["dropped"].values())
        assert len(pd.read_parquet(world.folder / "out" / f"{name}.parquet")) == output["pairs"]
        assert output["pairs"] > 0 or name == "background"
    assert summary["outputs"]["tryon"]["dropped"]["no garment reference"] == 30
    assert "No aesthetic scorer given" in summary["aesthetic"]
    table = pd.read_parquet(world.folder / "out" / "videos.parquet").set_index("video")
    assert len(table) == 55 and table.kept.sum() == 48
    assert table.loc["changes.mp4"].reason == "identity changes between frames"
    assert json.loads((world.folder / "out" / "summary.json").read_text()) == summary


def test_captions_without_a_term_are_named_and_can_be_kept(world: PairWorld) -> None:
    world.add("player.mp4", 0, caption="A player scores.")
    first = world.build()
    dropped = {"video": "player.mp4", "caption": "A player scores."}
    assert dropped in first.summary["captions_without_a_term"]
    assert "player.mp4" not in world.reads()
    page = (world.folder / "out" / "pairs.html").read_text()
    assert "Captions without a human term" in page
    again = world.build(settings={"human_terms": "none"})
    assert again.summary["captions_without_a_term"] == []
    assert again.summary["videos"]["dropped"]["no human term in the caption"] == 0
    assert "player.mp4" in world.reads()


@pytest.mark.parametrize("file, row", [("NFD", "NFC"), ("NFC", "NFD"), ("NFC", "NFC")])
def test_names_in_either_unicode_form_are_one_name(tmp_path: Path, file: str, row: str) -> None:
    world = PairWorld(tmp_path)
    world.add(unicodedata.normalize(file, "Zoë.mp4"), 0)
    world.captions = {unicodedata.normalize(row, "Zoë.mp4"): "A person smiles."}
    truth = tmp_path / "truth.csv"
    truth.write_text(unicodedata.normalize(row, "video,identity\nZoë.mp4,a\n"), encoding="utf-8")
    summary = world.build(truth=truth).summary
    assert summary["videos"]["kept_by_people"]["1"] == 1
    world.captions.update({unicodedata.normalize(f, "Zoë.mp4"): "x" for f in ("NFC", "NFD")})
    with pytest.raises(UserError, match="a second time"):
        world.build()


def test_near_copies_are_no_partners_and_are_named(tmp_path: Path) -> None:
    """Of three clips of one person, the one that is the first again."""
    rng = np.random.default_rng(0)
    world = PairWorld(tmp_path)
    frames = [rng.integers(0, 256, (48, 72, 3)).astype(np.uint8) for _ in range(10)]
    noisy = [np.clip(f + rng.integers(-9, 10, f.shape), 0, 255).astype(np.uint8) for f in frames]
    prints = {
        "clip.mp4": frames[:5], "copy.mp4": noisy[1:5], "other.mp4": frames[5:],
    }
    for name, shown in prints.items():
        cosine = {"clip.mp4": 0.985, "copy.mp4": 0.98, "other.mp4": 0.97}[name]
        world.add(name, 1, each={"cosine": cosine},
                  prints=[frame_print(f) for f in shown])
    built = world.build()
    assert built.summary["copies"] == {"pairs": 1, "videos": [["clip.mp4", "copy.mp4"]]}
    rows = pd.read_parquet(tmp_path / "out" / "tradeoff.parquet")
    partners = {row.video: row.references[0]["video"] for row in rows.itertuples()}
    assert partners["clip.mp4"] == partners["copy.mp4"] == "other.mp4"
    assert "near-copies" in (tmp_path / "out" / "pairs.html").read_text()


def test_prints_survive_encoding_and_size_alone() -> None:
    rng = np.random.default_rng(1)
    scene = cv2.resize(rng.integers(0, 256, (9, 16, 3)).astype(np.uint8), (640, 360),
                       interpolation=cv2.INTER_CUBIC)
    done, data = cv2.imencode(".jpg", scene, [cv2.IMWRITE_JPEG_QUALITY, 40])
    small = cv2.convertScaleAbs(cv2.resize(cv2.imdecode(data, 1), (320, 180)), alpha=0.8, beta=20)
    other = np.ascontiguousarray(scene[:, ::-1])
    a, b, c = (as_array([frame_print(x)])[None] for x in (scene, small, other))
    assert done and are_copies(a, b).all() and not are_copies(a, c).any()
    nothing = as_array(())[None]
    assert not are_copies(nothing, nothing).any()


def test_rows_hold_the_video_and_its_references(world: PairWorld) -> None:
    world.build()
    out = world.folder / "out"
    for row in pd.read_parquet(out / "pretraining.parquet").itertuples():
        (reference,) = row.references
        assert reference["video"] == row.video and not reference["crossed"]
        assert len(reference["candidates"]) == 5 and 0 <= reference["chosen"] < 5
    for name, low, high in (("cross", 0.7, 0.9), ("tradeoff", 0.9, 0.99)):
        for row in pd.read_parquet(out / f"{name}.parquet").itertuples():
            (reference,) = row.references
            assert reference["video"] != row.video and reference["crossed"]
            assert low <= reference["cosine"] < high
            assert reference["candidates"][0]["image"].startswith(
                f"faces/{reference['video']}_")
    for row in pd.read_parquet(out / "multi3_cross.parquet").itertuples():
        assert sum(r["crossed"] for r in row.references) >= 2 and len(row.references) == 3
        # Left to right: identity k, k + 1, k + 2.
        first = int(row.video.removeprefix("three")[0])
        for place, r in enumerate(row.references):
            if r["crossed"] and "/" in r["video"]:
                assert r["video"].split("/")[0] == str(first + place)
    row = pd.read_parquet(out / "tryon.parquet").iloc[0]
    assert [r["kind"] for r in row.references] == ["face", "garment"]
    flips = [r.references[1]["flip"] for r in
             pd.read_parquet(out / "tryon.parquet").itertuples()]
    assert True in flips and False in flips


def test_another_alignment_is_read_anew_and_said(world: PairWorld) -> None:
    request = world.request()
    for asked, read in (("upright", 54), ("arcface", 54), ("arcface", 0)):
        with_it = replace(request.reader, alignment=asked)
        made = curation.build(replace(request, reader=with_it), ToyReader)
        assert made.read == read and made.summary["reader"]["alignment"] == asked
        assert alignment_of(str(request.out / "cross.parquet")) == asked
    pd.DataFrame([{"video": "a"}]).to_parquet(world.folder / "theirs.parquet")
    assert alignment_of(str(world.folder / "theirs.parquet")) is None


def test_nothing_is_read_twice_and_thresholds_change_without_reading(world: PairWorld) -> None:
    first = world.build()
    assert first.read == 54 and len(world.reads()) == 54  # all but no caption, no human term
    before = tables(world.folder / "out")
    again = world.build()
    assert again.read == 0 and tables(world.folder / "out") == before
    assert again.summary == first.summary
    other = world.build(settings={"cross": [0.75, 0.8]})
    assert other.read == 0 and other.summary["outputs"]["cross"]["pairs"] < 40
    assert len(world.reads()) == 54


def test_a_new_or_mended_video_is_read_and_only_that(world: PairWorld) -> None:
    world.build()
    world.add("broken.mp4", 3)
    world.add("new.mp4", 4)
    assert world.build().read == 2
    assert world.reads()[-2:] == ["broken.mp4", "new.mp4"]
    (world.videos / "new.mp4").unlink()
    del world.captions["new.mp4"]
    built = world.build()
    assert built.read == 0 and built.summary["videos"]["found"] == 56


def test_other_reading_settings_read_again(world: PairWorld) -> None:
    world.build()
    assert world.build(settings={"frames_per_second": 1.0}).read == 54


def test_the_worker_count_changes_nothing(
    world: PairWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked.fork_pools(monkeypatch)
    one = world.build("one").summary
    assert world.build("two", workers=2).summary == one
    assert tables(world.folder / "one") == tables(world.folder / "two")
    assert (world.folder / "one/pairs.html").read_text() == (
        world.folder / "two/pairs.html").read_text()


def test_the_seed_changes_choices(world: PairWorld) -> None:
    world.build("a")
    world.build("b", settings={"seed": 1})
    a, b = tables(world.folder / "a"), tables(world.folder / "b")
    assert a["cross.parquet"] != b["cross.parquet"]
    assert a["videos.parquet"] == b["videos.parquet"]


def test_killed_at_any_moment_it_goes_on_and_gives_the_same(world: PairWorld) -> None:
    world.build("whole")
    world.request()
    for wanted in (5, 20):
        process = forked.start(build_slowly, world.folder)
        end = time.monotonic() + 120
        while len(world.reads()) < wanted and time.monotonic() < end:
            assert process.is_alive()
            time.sleep(0.01)
        process.kill()
        process.join()
    done = world.reads()
    assert 20 <= len(done) < 54
    world.build()
    reads = world.reads()
    # Only the video that was being read when the process died may come a second time.
    assert len(reads) - len(set(reads)) <= 2
    assert set(reads) == set(world.reads("whole"))
    assert tables(world.folder / "out") == tables(world.folder / "whole")
    assert not leftovers(world.folder / "out")


def test_memory_is_the_embeddings(tmp_path: Path) -> None:
    """More videos: what is held grows by embeddings and small columns alone."""
    peaks = {}
    for count in (300, 800):  # both some pages of the store
        base = store.Store(tmp_path / f"{count}.sqlite", {})
        folder = tmp_path / str(count)
        folder.mkdir()
        for k in range(count):
            (folder / f"{k:05d}.mp4").touch()
        captions = tmp_path / f"{count}.jsonl"
        with open(captions, "w") as stream:
            for k in range(count):
                text = "A person. " + "word " * 400
                stream.write(json.dumps({"video": f"{k:05d}.mp4", "caption": text}) + "\n")
        vector = np.ones((1, 64), np.float32) / 8
        tracemalloc.start()
        base.list_videos(folder, tmp_path / "out")
        base.note_captions(captions)
        for row in base.rows(vectors=False):
            base.put(row, None, _record(), vector)
        people.collect(base, settings.PairSettings())
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        base.close()
    # Captions alone would be 2,000 bytes a video.
    assert (peaks[800] - peaks[300]) / 500 < 64 * 4 + 400


def _record():
    from idbench.models.concat_id.pairs.tracking import Face, PersonFaces, VideoRecord

    face = Face(0, (0.0, 0.0, 1.0, 1.0), ((0.0, 0.0),) * 5, 0.1, 1.0, "x.jpg")
    return VideoRecord(9, 8.0, 64, 96, (1, 1), (0.9,), (PersonFaces(0.5, 0.1, (face,) * 5),))


def identities_file(world: PairWorld, name: str, wanted) -> Path:
    path = world.folder / name
    rows = [(v, v.split("/")[0]) for v in world.captions if "/" in v and wanted(int(v[0]))]
    pd.DataFrame(rows, columns=["video", "identity"]).to_csv(path, index=False)
    return path


def test_precision_and_recall_count_right_partners(world: PairWorld) -> None:
    path = identities_file(world, "truth.csv", lambda i: True)
    found = world.build(truth=path).summary["truth"]
    assert found["pairs"]["precision"] == 1.0 and 0.8 < found["pairs"]["recall_of_kept"] <= 1
    # Two people under one name, one under two: both numbers fall.
    table = pd.read_csv(path)
    table.loc[table.video == "3/take0.mp4", "identity"] = 4
    table.to_csv(path, index=False)
    wrong = world.build(truth=path).summary["truth"]
    assert wrong["pairs"]["precision"] < 1.0
    assert wrong["pairs"]["recall_of_kept"] < found["pairs"]["recall_of_kept"]
    assert wrong["cross"]["precision"] < 1.0


def test_calibration_matches_quantiles_of_known_pairs(tmp_path: Path) -> None:
    world = PairWorld(tmp_path)
    rng = random.Random(0)
    for identity in range(16):
        for take in range(5):  # a network whose cosines are low: 0.35 to 0.65 for one person
            world.add(f"{identity}/take{take}.mp4", identity,
                      each={"cosine": rng.uniform(0.6, 0.8)})
    known = identities_file(world, "known.csv", lambda i: i % 2 == 0)
    every = identities_file(world, "truth.csv", lambda i: True)
    raw = world.build(truth=every).summary
    assert raw["outputs"]["cross"]["pairs"] == 0 == raw["outputs"]["tradeoff"]["pairs"]
    built = world.build(truth=every, calibrate=known)
    assert built.read == 0
    calibration = built.summary["calibration"]
    used = calibration["used"]
    assert calibration["asked"]["cross"] == [0.7, 0.9]
    assert used["cross"][1] == used["tradeoff"][0] > used["cross"][0] > 0.2
    assert used["multi"][0] < used["tradeoff"][0] < used["multi"][1] < used["tradeoff"][1]
    assert any("cross from 0.7 ->" in step for step in calibration["steps"])
    # Most pairs of those who were not used for it are found, and rightly.
    assert built.summary["truth"]["pairs"]["precision"] > 0.98
    assert built.summary["truth"]["pairs"]["recall_of_kept"] > 0.85
    assert built.summary["outputs"]["tradeoff"]["pairs"] > 5


def test_a_network_that_tells_nobody_apart_is_not_calibrated() -> None:
    rng = np.random.default_rng(0)
    made = people._empty(60, 8)
    made.vectors[:] = rng.normal(size=(60, 8))
    made.vectors[:] /= np.linalg.norm(made.vectors, axis=1, keepdims=True)
    made.video[:] = np.arange(60)
    identity = np.arange(60) // 3
    with pytest.raises(UserError, match="does not tell the known people apart"):
        calibration.calibrate(made, calibration.Identities(identity, 60), settings.PairSettings())
    few = np.where(np.arange(60) < 6, identity, -1)
    with pytest.raises(UserError, match="needs 20 pairs"):
        calibration.calibrate(made, calibration.Identities(few, 60), settings.PairSettings())


def test_aesthetic_scores_from_a_file(world: PairWorld) -> None:
    world.build()
    out = world.folder / "out" / "tradeoff.parquet"
    plain = pd.read_parquet(out)
    last = plain.video.iloc[-1]
    assert plain.aesthetic.isna().all()
    path = world.folder / "scores.jsonl"
    path.write_text("\n".join(
        json.dumps({"video": v, "score": 9.0 if v == last else 1.0}) for v in world.captions
    ))
    built = world.build(aesthetic=path)
    assert built.read == 0 and built.summary["aesthetic"] == "given"
    ranked = pd.read_parquet(out)
    assert len(ranked) == len(plain) > 5
    assert ranked.aesthetic[ranked.video == last].tolist() == [9.0]
    assert ranked.video.iloc[-1] != last


def test_hostile_captions_are_escaped(world: PairWorld) -> None:
    world.captions = {v: "A man <script>alert(1)</script>" for v in world.captions}
    world.build()
    page = (world.folder / "out" / "pairs.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<svg" in page and "Stage III" in page


def test_the_page_shows_what_there_is_and_names_what_there_is_not(world: PairWorld) -> None:
    summary = world.build(settings={"people": 3}).summary
    page = (world.folder / "out" / "pairs.html").read_text()
    assert "mathdefault" not in page  # ticks of a logarithm are numbers, not formulas
    figure = page[page.index("<svg"):page.index("</svg>")]
    assert 'role="img" aria-label="' in figure, "a figure has a text alternative"
    assert {"var(--muted)", "var(--s0)", "var(--s1)", "var(--s2)"} <= set(
        re.findall(r"var\(--\w+\)", figure)), "its colours follow the page, also in the dark"
    assert "#ffffff" not in figure
    for output in summary["outputs"].values():
        assert f"<h2>{escape(output['title'].replace('<=', '≤'))}</h2>" in page
    assert "No video for" not in page
    for path in world.videos.glob("three*"):
        path.unlink()
    world.captions = {v: c for v, c in world.captions.items() if not v.startswith("three")}
    world.build()
    page = (world.folder / "out" / "pairs.html").read_text()
    assert "<li>Stage I, 3 identities: references from the same video</li>" in page
    assert "multi3_pretraining.parquet" not in page and "multi2_pretraining.parquet" in page


def test_results_inside_the_folder_of_videos_are_no_videos(world: PairWorld) -> None:
    request = replace(world.request(), out=world.videos / "out")
    curation.build(request, ToyReader)
    (world.videos / "out" / "stray.mp4").write_text("{}")
    assert curation.build(request, ToyReader).summary["videos"]["found"] == 56
