"""The leaderboard: ranks, submissions that hold or are refused, and the page in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from made_runs import made_run
from toy import World

from idbench import measured_files, submissions
from idbench.errors import UserError
from idbench.files import read_json, sha256_file, write_json
from idbench.reports import ranking

from .browser import Browser, why_not

PEOPLE = [(f"p{i // 2}",) for i in range(8)]
HOSTILE = "<img src=x onerror=document.title='pwned'>"


def run(folder: Path, name: str, level: float | None, **more: Any) -> Path:
    values = [None if level is None else level + 0.01 * (i % 3) for i in range(8)]
    clipdist = [0.5 - (level or 0) / 2] * 8
    made_run(folder / name, name, {"arcsim": values, "clipdist": clipdist}, PEOPLE, **more)
    return folder / name


@pytest.fixture
def entries(tmp_path: Path) -> list[Path]:
    runs = [run(tmp_path, "low", 0.2), run(tmp_path, "high", 0.6), run(tmp_path, "none", None)]
    packed = submissions.pack(run(tmp_path, "middle", 0.4), tmp_path / "sub", {
        "name": HOSTILE, "link": "https://example.org/x", "description": "a & b",
        "licence": "CC0-1.0"})
    return [*runs, packed]


def test_ranks_by_the_mean_and_the_unscored_have_none(entries: list[Path]) -> None:
    found = ranking.build([submissions.entry(path) for path in entries])
    (board,) = found["boards"]
    assert [(r["name"], r["rank"]) for r in board["rows"]] == [
        ("high", 1), (HOSTILE, 2), ("low", 3), ("none", None)]
    assert board["rows"][1]["metrics"]["arcsim"]["mean"] == pytest.approx(0.40875)
    assert board["rows"][1]["submitted"] and board["rows"][1]["licence"] == "CC0-1.0"
    other = ranking.build([submissions.entry(path) for path in entries], "clipdist")
    assert [r["name"] for r in other["boards"][0]["rows"]][-1] == "high"
    with pytest.raises(UserError, match="did you mean 'arcsim'"):
        ranking.build([submissions.entry(entries[0])], "arcsin")


def test_splits_get_a_board_each_and_other_protocols_are_refused(
    entries: list[Path], tmp_path: Path
) -> None:
    multi = run(tmp_path, "multi", 0.1, split="multi")
    boards = ranking.build([submissions.entry(p) for p in (entries[0], multi)])["boards"]
    assert [(b["split"], len(b["rows"])) for b in boards] == [("single", 1), ("multi", 1)]
    loose = run(tmp_path, "loose", 0.1, protocol="loose-v1")
    with pytest.raises(UserError, match="protocol name: strict-v3 / loose-v1"):
        ranking.build([submissions.entry(p) for p in (entries[0], loose)])


def test_submissions_of_before_have_null_for_what_was_not_known(entries: list[Path]) -> None:
    folder = entries[-1]
    manifest, results = read_json(folder / "submission.json"), read_json(folder / "results.json")
    results["scoring"]["metric_weights"] = None
    write_json(folder / "results.json", results)
    manifest["files"]["results.json"] = sha256_file(folder / "results.json")
    write_json(folder / "submission.json", manifest)
    assert submissions.entry(folder).measured.scoring.metric_weights == {}


def test_changed_and_wrong_submissions_are_refused(entries: list[Path], tmp_path: Path) -> None:
    folder = entries[-1]
    manifest, results = read_json(folder / "submission.json"), read_json(folder / "results.json")

    def refused(words: str, **change: Any) -> None:
        write_json(folder / "submission.json", {**manifest, **change})
        with pytest.raises(UserError, match=words):
            submissions.entry(folder)

    refused("'link'", link="javascript:alert(1)")
    refused("'name'", name="")
    refused("lacks the file ../low/run.json", files={"../low/run.json": "0"})
    refused("does not name results.json", files={})
    results["samples"][0][5] = 0.999
    write_json(folder / "results.json", results)
    refused("was changed after it was packed")
    results["samples"][0][5] = 7.0
    write_json(folder / "results.json", results)
    refused(r"values of arcsim outside -1..1",
            files={"results.json": sha256_file(folder / "results.json")})
    with pytest.raises(UserError, match="did you mean 'link'"):
        submissions.pack(entries[0], tmp_path / "new", {"lnk": "x"})
    with pytest.raises(UserError, match="contains other files"):
        submissions.pack(entries[0], entries[1], {})


def test_a_part_of_an_installed_suite_is_no_submission(tmp_path: Path) -> None:
    from idbench.suite import load_suite

    suite = load_suite("avatars")
    about = {"name": suite.name, "version": suite.version, "sha256": suite.sha256}
    ids = [sample.id for sample in suite.samples("single")]
    part = run(tmp_path, "part", 0.3, suite=about, suite_ids=ids[:8])
    with pytest.raises(UserError, match=f"8 of the {len(ids)} samples of single"):
        submissions.entry(submissions.pack(part, tmp_path / "packed", {}))
    people = [(f"p{i}",) for i in range(len(ids))]
    made_run(tmp_path / "all", "all", {"arcsim": [0.2] * len(ids)}, people, suite=about,
             suite_ids=ids)
    whole = submissions.pack(tmp_path / "all", tmp_path / "whole", {"name": "Whole"})
    assert submissions.entry(whole).name == "Whole"


def test_a_part_of_a_suite_that_is_not_installed_is_no_submission(tmp_path: Path) -> None:
    """The run keeps the size of its split, and so does what is made of it."""
    part = run(tmp_path, "part", 0.3, split_size=9)
    packed = submissions.pack(run(tmp_path, "whole", 0.3, split_size=8), tmp_path / "packed", {})
    for path, valid in ((part, False), (packed, True)):
        measured = submissions.entry(path).measured
        if valid:
            submissions.check_whole(measured)
        else:
            with pytest.raises(UserError, match="has 8 of the 9 samples of single"):
                submissions.check_whole(measured)
            measured_files.write_reference(tmp_path / "reference.json", measured)
    with pytest.raises(UserError, match="has 8 of the 9 samples of single"):
        submissions.pack(tmp_path / "reference.json", tmp_path / "new", {})


def test_a_part_of_a_split_is_not_ranked_beside_the_whole(tmp_path: Path) -> None:
    """Cherry-picked samples have the better mean; failed ones without a value are missing."""
    whole = [0.5 + 0.01 * (i % 4) for i in range(8)]
    made_run(tmp_path / "all", "all", {"arcsim": whole}, PEOPLE)
    best = [v if v > 0.52 else None for v in whole]
    made_run(tmp_path / "best", "best", {"arcsim": best}, PEOPLE)  # 6 failed
    made_run(tmp_path / "limit", "limit", {"arcsim": [0.9] * 3}, PEOPLE[:3])
    entries = [submissions.entry(tmp_path / name) for name in ("best", "limit", "all")]
    (board,) = ranking.build(entries)["boards"]
    assert [(r["name"], r["rank"], r["share"]) for r in board["rows"]] == [
        ("all", 1, {"measured": 8, "of": 8}), ("best", None, {"measured": 2, "of": 8}),
        ("limit", None, {"measured": 3, "of": 8})]
    assert "2 of 8 of the split, not ranked" in ranking.page(
        ranking.build(entries))
    # Alike parts share every sample, so they are ranked.
    made_run(tmp_path / "other", "other", {"arcsim": [0.8] * 3}, PEOPLE[:3])
    (board,) = ranking.build(
        [submissions.entry(tmp_path / name) for name in ("other", "limit")])["boards"]
    assert [(r["name"], r["rank"]) for r in board["rows"]] == [("limit", 1), ("other", 2)]
    world = World(tmp_path, tmp_path)
    checked = world.run("leaderboard", "best", "all", "--validate")
    assert checked.returncode == 1
    assert "best: FAIL  best has 2 of the 8 samples of single" in checked.stdout
    assert "all: ok" in checked.stdout


def test_other_seeds_of_a_sample_are_no_part(tmp_path: Path) -> None:
    """Samples are counted by identities and prompt, not by the ids that their seeds give."""
    made_run(tmp_path / "a", "a", {"arcsim": [0.5] * 4}, PEOPLE[:4])
    made_run(tmp_path / "b", "b", {"arcsim": [0.6] * 4}, PEOPLE[:4],
             suite_ids=[f"seed1-{i}" for i in range(4)])
    (board,) = ranking.build(
        [submissions.entry(tmp_path / name) for name in "ab"])["boards"]
    assert [r["rank"] for r in board["rows"]] == [1, 2]


def test_a_failed_pack_leaves_nothing_behind(tmp_path: Path) -> None:
    made_run(tmp_path / "part", "part", {"arcsim": [0.5, None]}, PEOPLE[:2])
    with pytest.raises(UserError, match="has 1 of the 2 samples of single"):
        submissions.pack(tmp_path / "part", tmp_path / "new" / "packed", {})
    made_run(tmp_path / "wild", "wild", {"arcsim": [0.5, 7.0]}, PEOPLE[:2])
    with pytest.raises(UserError, match="outside -1..1"):
        submissions.pack(tmp_path / "wild", tmp_path / "new" / "packed", {})
    assert not (tmp_path / "new").exists()
    made_run(tmp_path / "good", "good", {"arcsim": [0.5, 0.7]}, PEOPLE[:2])
    folder = submissions.pack(tmp_path / "good", tmp_path / "new" / "packed", {})
    before = read_json(folder / "submission.json")
    submissions.pack(tmp_path / "good", folder, {"name": "Again"})
    assert before["name"] == "good" and submissions.entry(folder).name == "Again"
    with pytest.raises(UserError, match="has 1 of the 2"):
        submissions.pack(tmp_path / "part", folder, {})
    assert submissions.entry(folder).name == "Again"
    assert [path.name for path in folder.parent.iterdir()] == ["packed"]


def test_the_page_shows_the_trade_off(entries: list[Path], tmp_path: Path) -> None:
    made_run(tmp_path / "part", "part", {"arcsim": [0.9] * 3, "clipdist": [0.5] * 3}, PEOPLE[:3])
    paths = [*entries[:2], tmp_path / "part"]
    page = ranking.page(ranking.build([submissions.entry(path) for path in paths]))
    assert page.count("<svg") == 1 and 'aria-label="CLIPDist' in page and "var(--s1)" in page
    assert "part (3 of 8)" in page
    alone = ranking.page(ranking.build([submissions.entry(entries[0])]))
    assert "<svg" not in alone


def test_the_command_packs_validates_and_builds(entries: list[Path], tmp_path: Path) -> None:
    world = World(tmp_path, tmp_path)
    done = world.run("leaderboard", "high", "--pack", "packed", "--set", "name=My model")
    assert done.returncode == 0 and "Submission: packed" in done.stdout
    assert world.run("leaderboard", "packed", "sub", "--validate").returncode == 0
    built = world.run("leaderboard", "low", "packed", "sub", "-o", "board.html", "--json")
    assert built.returncode == 0
    assert json.loads(built.stdout) == read_json(tmp_path / "board.json")
    (tmp_path / "packed/results.json").write_text("{}")
    checked = world.run("leaderboard", "packed", "sub", "--validate", "--json")
    assert checked.returncode == 1
    assert [bool(row["problem"]) for row in json.loads(checked.stdout)] == [True, False]
    for arguments in (("low", "--set", "name=x"), ("low", "high", "--pack", "x"), ("nothing",)):
        assert world.run("leaderboard", *arguments).returncode == 2


def test_the_page_escapes_what_submitters_say(entries: list[Path]) -> None:
    page = ranking.page(ranking.build([submissions.entry(path) for path in entries]))
    assert "<img" not in page and "&lt;img src=x" in page and "a &amp; b" in page
    visible = page[: page.index("<figure")] + page[page.index("</figure") :]
    assert visible.count("http") == visible.count("https://example.org/x") == 1
    assert re.search(r"Ranked by ArcSim, made \d{4}-\d\d-\d\d \d\d:\d\d UTC\.", page)


@pytest.mark.skipif(why_not() is not None, reason=f"needs a browser; {why_not()}")
def test_the_page_sorts_in_a_browser(
    entries: list[Path], tmp_path: Path, browser: Browser
) -> None:
    target = tmp_path / "board.html"
    target.write_text(ranking.page(
        ranking.build([submissions.entry(path) for path in entries])), encoding="utf-8")
    names = "[...document.querySelectorAll('tbody tr')].map(r => r.cells[1].dataset.value)"
    browser.open(target.as_uri())
    assert browser.js(names) == ["high", HOSTILE, "low", "none"]

    def click(column: int) -> list[str]:
        browser.run(f"document.querySelectorAll('th button')[{column}].click();")
        found: list[str] = browser.js(names)
        return found

    assert click(2) == ["high", HOSTILE, "low", "none"]  # ArcSim, best first
    assert click(2) == ["low", HOSTILE, "high", "none"]  # the unscored stay last
    assert click(3)[-1] == "high"                        # CLIPDist
    assert browser.js("document.querySelectorAll('[aria-sort]').length") == 1
    assert browser.js("document.title") == "idbench leaderboard"
    assert browser.console_errors() == []
