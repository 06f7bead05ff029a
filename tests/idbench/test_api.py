"""`idbench.load` and the schemas of every file: of this version and of every earlier one."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_runs import made_run
from toy import World

import idbench
from idbench import measured_files, schemas
from idbench.errors import UserError
from idbench.files import read_json
from idbench.records import FacesFile, RunFile, SampleFile, ScoresFile
from idbench.runs import Run
from idbench.stored import validate

ROOT = Path(__file__).parents[2]
OLD = sorted((ROOT / "tests/data/old_runs").iterdir())
PEOPLE = [("a",), ("a", "b"), ("c",)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    made_run(tmp_path / "runs/one", "one", {"arcsim": [0.1, None, 0.3]}, PEOPLE)
    made_run(tmp_path / "runs/two", "two", {"arcsim": [0.2, 0.3, 0.4], "extra": [1, 2, 3]}, PEOPLE)
    return tmp_path / "runs"


def test_frames_are_tidy(runs: Path) -> None:
    found = idbench.load(runs)
    assert found.runs["system"].tolist() == ["one", "two"]
    assert found.samples.shape[0] == found.videos.shape[0] == 6
    assert found.videos.groupby("system")["arcsim"].mean().to_dict() == pytest.approx(
        {"one": 0.2, "two": 0.3})
    assert found.videos["identities"].tolist()[:3] == ["a", "a+b", "c"]
    # A metric that only one run has is missing, not 0, in the other.
    assert found.videos.loc[found.videos["system"] == "one", "extra"].isna().all()
    assert len(found.scores) == 3 * 2 + 3 * 4
    whole = found.scores[found.scores["identity"].isna() & found.scores["frame"].isna()]
    assert len(whole) == 3 + 6
    assert (found.scores["value"].isna() == found.scores["reason"].notna()).all()


def test_folders_patterns_and_several_paths(runs: Path) -> None:
    for paths in ([runs], [f"{runs}/*"], [runs / "one", runs / "two"], [runs / "one", runs]):
        assert sorted(idbench.load(*paths).runs["system"]) == ["one", "two"]
    assert idbench.load(runs / "two").runs["system"].tolist() == ["two"]


def test_what_is_no_run_is_refused_with_the_mend(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no run"):
        idbench.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="There is no run in"):
        idbench.load(f"{tmp_path}/nothing*")
    with pytest.raises(UserError, match="There is no run in nothing"):
        idbench.load()
    (runs / "one/scores.parquet").write_bytes(b"cut")
    with pytest.raises(UserError, match="is damaged .*idbench score"):
        idbench.load(runs / "one")
    (runs / "one/scores.parquet").unlink()
    with pytest.raises(UserError, match="has no scores yet"):
        idbench.load(runs / "one")


@pytest.mark.parametrize("folder", OLD, ids=lambda path: path.name)
def test_runs_of_every_earlier_version_load_and_hold(folder: Path) -> None:
    found = idbench.load(folder)
    assert len(found.samples) == found.runs["planned"].sum() > 0
    assert found.videos["viclip"].notna().all() and found.videos["arcsim"].isna().all()
    measured = measured_files.read(folder)
    reference = measured_files.read(ROOT / "tests/data/old_references" / f"{folder.name}.json")
    assert measured.metrics == reference.metrics
    pd.testing.assert_frame_equal(
        measured.values[measured.metrics], reference.values[measured.metrics], atol=1e-6,
        check_column_type=False, check_index_type=False)


@pytest.mark.parametrize("folder", OLD, ids=lambda path: path.name)
def test_files_are_as_their_schemas_say(folder: Path, runs: Path, tmp_path: Path) -> None:
    made = tmp_path / "reference.json"
    measured_files.write_reference(made, measured_files.read(runs / "two"))
    for run in (folder, runs / "two"):
        files = [RunFile.read(run / "run.json")]
        for name, model in (("sample", SampleFile), ("scores", ScoresFile), ("faces", FacesFile)):
            files += [model.read(path) for path in run.glob(f"samples/*/{name}.json")]
        assert not any(file.model_extra for file in files), "a key that no schema describes"
        table = pd.read_parquet(run / "scores.parquet").astype(object)
        for row in table.where(table.notna(), None).to_dict("records"):
            schemas.ScoreRow.model_validate(row)
    for path in (made, *(ROOT / "tests/data/old_references").iterdir()):
        schemas.ReferenceFile.model_validate(read_json(path), strict=True)
    found = idbench.load(runs)
    assert set(schemas.LongRow.model_fields) == set(found.scores.columns)
    assert list(schemas.VideoRow.model_fields) == list(found.videos.columns)[:-2]
    data = read_json(run / "run.json")
    for broken in ({**data, "status": "done"}, {**data, "identity": {}}, {**data, "schema": 0}):
        with pytest.raises(UserError):
            validate(RunFile, json.dumps(broken).encode(), "run.json")


def test_exported_schemas_are_those_of_the_models(tmp_path: Path) -> None:
    written = schemas.export(tmp_path)
    docs = ROOT / "docs/schemas"
    assert sorted(p.name for p in written) == sorted(p.name for p in docs.iterdir())
    for path in written:
        assert path.read_text() == (docs / path.name).read_text(), (
            "run: python -m idbench.schemas docs/schemas")
    assert Run.open(OLD[-1]).file.schema_ <= schemas.MODELS["run"][0]


def test_list_schemas(tmp_path: Path) -> None:
    world = World(tmp_path, tmp_path)
    rows = json.loads(world.run("list", "schemas", "--json").stdout)
    assert {row["schema"] for row in rows} == set(schemas.MODELS)
    assert all(row["json_schema"]["type"] == "object" for row in rows)
    text = world.run("list", "schemas").stdout
    assert "RUN/run.json" in text and "json_schema" not in text


def test_import_is_light() -> None:
    code = ("import idbench, sys; idbench.__version__; "
            "print(len([m for m in sys.modules if m.startswith(('idbench', 'pandas'))]))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = idbench.nothing


def test_the_python_page_runs_as_a_notebook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown: list[Any] = []
    text = (ROOT / "docs/python.md").read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        for node in ast.parse(block).body:  # a notebook shows the value of an expression
            if isinstance(node, ast.Expr):
                shown.append(eval(ast.unparse(node), names))  # noqa: S307
            else:
                exec(ast.unparse(node), names)  # noqa: S102
    results, scores = names["results"], names["scores"]
    assert "avatars_truth" in repr(results) and "<table" in results._repr_html_()
    assert shown[0] is results and len(results.videos) == 2 and len(names["both"].videos) == 3
    assert scores.videos.arcsim[0] == pytest.approx(results.videos.arcsim[0], abs=0.05)
    assert all(Path(path).is_file() for path in results.videos.video)
    assert all(Path(path).is_file() for paths in results.videos.references for path in paths)
    assert names["frames"].shape[1:] == (64, 96, 3)
    assert "avatars_truth" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.parametrize("first", ["import idbench.evaluate", "from idbench.evaluate import score"])
def test_the_functions_are_offered_whatever_was_imported_before(first: str) -> None:
    code = (f"{first}\nimport idbench\nassert callable(idbench.evaluate), idbench.evaluate\n"
            "assert {'evaluate', 'score', 'load', 'Results'} <= set(dir(idbench))")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_python_and_commands_of_the_results_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, level in (("mine", 0.5), ("base", 0.3)):
        values = [level + 0.01 * i for i in range(8)]
        made_run(tmp_path / "runs" / name, name, {"arcsim": values, "viclip": values},
                 [(f"p{i}",) for i in range(8)])
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/results.md").read_text("utf-8")
    fences = re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)
    names: dict[str, object] = {}
    for language, block in fences:
        if language == "python":
            exec(block, names)  # noqa: S102
    assert len(names["results"].videos) == 16  # type: ignore[attr-defined]
    world = World(tmp_path, tmp_path)
    lines = [line for language, block in fences if language == "bash"
             for line in block.splitlines()]
    assert len(lines) >= 10
    for line in lines:
        arguments = shlex.split(line, comments=True)[1:]
        if arguments[0] == "reproduce" and "--plan" not in arguments:
            continue  # half an hour; tests/idbench/test_reproduce.py runs it on few samples
        done = world.run(*arguments)
        assert done.returncode == 0, (line, done.stderr)
