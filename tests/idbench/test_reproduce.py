"""`reproduce`: every row once, resumed, one page; and the plan of training all from scratch."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from made_runs import made_run
from toy import World

from idbench import embedded, paper_runs
from idbench.cli import main
from idbench.errors import UserError
from idbench.evaluate import evaluate, score
from idbench.progress import Progress
from idbench.reports.paper import SECTIONS, shipped
from idbench.results import Results
from idbench.runs import Run

PEOPLE = [(f"p{i}",) for i in range(8)]
PAIRS = [(f"p{i}", f"q{i}") for i in range(8)]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """`complete_run` writes made runs; returns what it was asked for."""
    asked: list[str] = []

    def complete_run(job, out, limit, seeds, *, progress, command):
        model, split, out = job.system, job.split, out / job.folder
        asked.append(f"{model} {split} {limit} {seeds[0]}")
        if model == "concat_id@stage2":
            raise UserError("stage2 is broken; mend it.")
        level = 0.1 * len(asked)
        values = {m: [level + 0.01 * i for i in range(8)]
                  for m in ("arcsim", "cursim", "viclip", "clipdist")}
        made_run(out, model, values, PEOPLE if split == "single" else PAIRS, split=split)
        return SimpleNamespace(folders=[out])

    monkeypatch.setattr(paper_runs, "complete_run", complete_run)
    return asked


def test_the_jobs_are_the_shipped_rows_each_once() -> None:
    jobs = paper_runs.jobs()
    assert len(set(jobs)) == len(jobs)
    for name, split in (("concat_id@single", "single"), ("concat_id@stage2", "single"),
                        ("concat_id@multi", "multi"), ("concat_id@multi_scratch", "multi")):
        assert paper_runs.Job(name, split) in jobs
    assert all(shipped(job.system) for job in jobs)
    systems = {slot.system for section in SECTIONS for slot in section.slots}
    assert {job.system for job in jobs} == {s for s in systems if shipped(s)}
    single = sum(job.split == "single" for job in jobs)
    videos = 50 * single + 48 * (len(jobs) - single)
    assert paper_runs.plan(jobs, 50, [0]).startswith(f"{videos} videos in {len(jobs)} runs; about ")
    assert paper_runs.plan(jobs, 1, [0, 1]).startswith(f"{2 * len(jobs)} videos in ")


def test_one_that_fails_is_told_and_the_others_are_shown(made: list[str], tmp_path: Path) -> None:
    found = paper_runs.reproduce(tmp_path, limit=5, command=["idbench", "reproduce"])
    assert len(made) == len(paper_runs.jobs()) and all(" 5 0" in text for text in made)
    assert found.problems == ("concat_id@stage2, single: stage2 is broken; mend it.",)
    page = found.page.read_text()
    assert page.count("<h2>") == 4 and "stage2 is broken" in page
    rows = {row.label: row.system for table in found.tables for row in table.rows}
    assert rows["Concat-ID Stage I"] == "concat_id@single" and rows["Concat-ID Stage II"] is None


def test_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def evaluate(*_, **__):
        raise UserError("the disk is gone; find it.")

    monkeypatch.setattr(paper_runs, "evaluate", evaluate)
    with pytest.raises(UserError, match="the disk is gone"):
        paper_runs.reproduce(tmp_path)


def test_a_run_that_is_scored_otherwise_is_scored_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an update of the networks that score; nothing is generated again."""
    monkeypatch.setattr(paper_runs, "SUITE", world.suite)
    monkeypatch.setattr(paper_runs, "score", partial(score, metrics=["sampled"]))

    def completed() -> Results:
        return paper_runs.complete_run(
            job, world.folder, 2, [0], progress=Progress(), command=[])

    job = paper_runs.Job("toy", "single")
    first = completed().scores
    run = Run.open(world.folder / "toy-single")
    key = run.file.scoring.sha256
    run.save(scoring=run.file.scoring.model_copy(update={"detector": "0" * 64, "sha256": "0" * 64}))
    for path in run.folder.glob("samples/*/scores.json"):
        path.write_text(path.read_text().replace(str(key), "0" * 64))
        made = path.with_name("sample.json").stat().st_mtime_ns
    with pytest.raises(UserError, match="is scored with other weights"):
        evaluate(world.suite, "toy", ["sampled"], out=run.folder, limit=2)
    pd.testing.assert_frame_equal(completed().scores, first)
    assert Run.open(run.folder).file.scoring.sha256 == key
    assert path.with_name("sample.json").stat().st_mtime_ns == made


def command(*words: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["reproduce", *words])
    return int(end.value.code or 0)


def test_the_command_prints_the_same_twice(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("--limit", "5") == 0
    first = capsys.readouterr()
    assert "Table 2, pre-training on one person, measured" in first.out
    assert "Not run: concat_id@stage2" in first.err and "paper.html" in first.err
    made.clear()
    assert command("--limit", "5") == 0
    assert capsys.readouterr().out == first.out
    made.clear()
    assert command("--limit", "5", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["sections"]) == 4


def test_the_plan_trains_nothing_and_says_what_it_does_not_know(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("--from-scratch", "--plan") == 0
    said = capsys.readouterr().err
    assert "hours on two cores are left, not counting" in said and not made
    assert list(tmp_path.iterdir()) == []
    assert "minutes on two idle cores" in said


def test_every_recipe_comes_after_those_it_starts_from(tmp_path: Path) -> None:
    from idbench.recipes import load_recipe

    planned = paper_runs.trainings(tmp_path)
    place = {one.entry: number for number, one in enumerate(planned)}
    for one in planned:
        start = str(load_recipe(one.recipe)[1].get("init", ""))
        if start.startswith("embedded:"):
            assert place[start.removeprefix("embedded:")] < place[one.entry], one.recipe
    trained = {one.entry for one in planned}
    for job in paper_runs.jobs():
        name, _, variant = job.system.partition("@")
        assert (f"transformer_{variant}" if variant else name) in trained


def test_weights_that_are_there_are_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, bool]] = []

    def trainer(recipe, state, resume, evaluate):
        calls.append((recipe["name"], resume))
        if recipe["name"] == "single" and len(calls) < 30:
            raise KeyboardInterrupt
        if recipe.get("entry", "").startswith("transformer") or recipe["name"] == "arcface":
            embedded.save_entry(
                recipe.get("entry", recipe["name"]), b"x", recipe=recipe["name"], seed=0, steps=1,
                config={}, measured={}, data_version="x")
        return {}

    monkeypatch.setattr(paper_runs, "load_trainer", lambda name, content: trainer)
    before = dict(embedded.entries())
    with pytest.raises(KeyboardInterrupt):
        paper_runs.train(tmp_path, lambda text: None)
    first = [name for name, _ in calls]
    assert first[0] == "arcface" and first[-1] == "single" and "stage2" not in first
    calls[:] = calls * 30
    seen = len(calls)
    paper_runs.train(tmp_path, lambda text: None)
    again = dict(calls[seen:])
    assert "arcface" not in again and "base" not in again  # their weights are there
    assert again["single"] is True and again["stage2"] is False
    assert dict(embedded.entries()) == before  # the shipped weights are not touched


def test_beyond_the_paper_compares_each_setting_with_the_usual(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, dict[str, str]]] = []

    def evaluate(suite, model, *, out, split, settings, **_):
        asked.append((out.name, settings))
        level = {"given": 0.5, "zeroed": 0.1, "both_branches": 0.4}.get(
            settings.get("references", "given"), 0.45)
        made_run(out, model, {"arcsim": [level + 0.01 * i for i in range(8)]},
                 PEOPLE if split == "single" else PAIRS, split=split)
        return SimpleNamespace(folders=[out])

    monkeypatch.setattr(paper_runs, "evaluate", evaluate)
    monkeypatch.setattr(
        paper_runs, "score", lambda folders, progress: SimpleNamespace(folders=folders))
    monkeypatch.chdir(tmp_path)
    assert command("--beyond", "--limit", "3", "--out", "here") == 0
    said = capsys.readouterr().out
    assert "references zeroed (control) - as by default" in said and "-0.400" in said
    assert "references at one shared position" in said and "needs a training" in said
    assert asked[0] == ("concat_id@single-single", {})  # as `reproduce` calls it
    assert ("concat_id@multi-multi-shared_index", {"references": "shared_index"}) in asked
    asked.clear()
    assert command("--beyond", "--plan", "--limit", "3", "--out", "there") == 0
    assert "24 videos in 8 runs" in capsys.readouterr().err
    assert not asked and not Path("there").exists()
    assert command("--beyond", "--from-scratch") == 2
