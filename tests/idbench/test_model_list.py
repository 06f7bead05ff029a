"""`idbench list models`: what each can do, and one of them in full."""

from __future__ import annotations

import json

import pytest

from idbench.cli import main
from idbench.commands.listing import model_details, model_rows
from idbench.errors import UserError
from idbench.registry import MODELS, Target, abilities_of
from idbench.suite import load_suite


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["list", "models", *arguments])
    out, error = capsys.readouterr()
    return int(end.value.code or 0), out, error


def test_splits_are_those_that_a_run_would_not_refuse() -> None:
    suite = load_suite("avatars")
    for row in model_rows("avatars"):
        can = abilities_of(row["model"])
        assert can is not None, row["model"]
        taken = {s for s in suite.splits if not any(map(can.refusal, suite.samples(s)))}
        assert set(row["splits"].split(", ")) == taken and taken, row["model"]
        assert row["licence"] or row["model"] == "folder"
    by_name = {row["model"]: row for row in model_rows("avatars")}
    assert by_name["consisid"]["splits"] == "single" and by_name["consisid"]["people"] == "1"
    assert by_name["concat_id"]["people"] == "0-3" and by_name["folder"]["people"] == "any"


def test_one_model_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = shown(capsys, "consisid", "--json")
    found = json.loads(out)
    assert code == 0 and found["settings"]["steps"] == 50
    assert found["example"].startswith("idbench run --model consisid --split single")
    assert found["released weights"] == "idbench weights get consisid"
    code, out, _ = shown(capsys, "folder")
    assert code == 0 and "videos=" in out and "idbench.baselines.folder:Folder" in out
    code, _, error = shown(capsys, "consisd")
    assert code == 2 and "did you mean 'consisid'?" in error


def test_a_broken_package_hides_no_other_model(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Target("no.such.module:Model", "broken", "1.0")
    known = MODELS.targets()
    monkeypatch.setattr(MODELS, "targets", lambda: {**known, "broken": broken})
    by_name = {row["model"]: row for row in model_rows("avatars")}
    assert "reinstall broken" in by_name["broken"]["problem"]
    assert by_name["broken"]["splits"] == "?" and by_name.keys() > known.keys()
    with pytest.raises(UserError, match="reinstall broken"):
        model_details("broken", "avatars")
