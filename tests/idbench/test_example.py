"""`examples/my_model`, installed by pip and used as docs/add-your-model.md says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from toy import World

ROOT = Path(__file__).parents[2]


def test_the_example_package_installs_and_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, site = world.folder / "my_model", world.folder / "site"
    shutil.copytree(ROOT / "examples" / "my_model", source)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps",
         "--no-build-isolation", "--target", str(site), str(source)],
        check=True, capture_output=True)
    monkeypatch.syspath_prepend(str(site))
    listed = world.run("list", "models")
    assert "my_model" in listed.stdout, listed.stderr
    done = world.run(
        "run", "--model", "my_model", "--split", "single", "--suite", str(world.suite), "--limit",
        "2", "--metric", "sharpness", "--set", "frames=8", "--out", "out")
    assert done.returncode == 0, done.stderr
    assert "Sharpness" in done.stdout
    scores = pd.read_parquet(world.folder / "out" / "scores.parquet")
    assert len(scores) == 2 and (scores["value"] > 0).all()
    again = world.run(
        "run", "--model", "my_model", "--split", "single", "--suite", str(world.suite), "--limit",
        "2", "--metric", "sharpness", "--set", "frames=4", "--out", "other")
    assert again.returncode == 0, again.stderr
    assert {p.name for p in (world.folder / "out/samples").iterdir()}.isdisjoint(
        p.name for p in (world.folder / "other/samples").iterdir()), "settings are part of the id"
    for model, setting in (("my_model@x", "frames=8"), ("my_model", "frames=0")):
        wrong = world.run("run", "--model", model, "--split", "single", "--set", setting)
        assert wrong.returncode == 2 and wrong.stderr.startswith("Error: "), wrong.stderr
