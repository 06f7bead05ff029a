"""`idbench diff`: the settings that differ, and the samples that moved most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from made_runs import made_run
from toy import World

PEOPLE = [("a",), ("b",), ("c",), ("d",)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made_run(tmp_path / "one", "toy", {"arcsim": [0.1, 0.2, 0.3, 0.4], "viclip": [0.1] * 4},
             PEOPLE)
    made_run(tmp_path / "two", "toy", {"arcsim": [0.15, 0.0, None, 0.4], "order": [1.0] * 4},
             PEOPLE, settings={"steps": 20}, protocol="loose-v1",
             suite_ids=["s0", "s1", "s2", "s9"])
    return World(tmp_path, tmp_path)


def test_largest_change_first_and_what_differs_is_named(world: World) -> None:
    done = world.run("diff", "one", "two", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert {(s["setting"], s["first"], s["second"]) for s in found["settings"]} >= {
        ("model settings steps", 8, 20), ("protocol name", "strict-v3", "loose-v1")}
    assert found["samples"] == {"shared": 3, "only_first": ["s3"], "only_second": ["s9"]}
    moved = found["metrics"]["arcsim"]
    assert [(m["sample"], round(m["change"], 6)) for m in moved["most"]] == [
        ("s1", -0.2), ("s0", 0.05)]
    assert moved["mean_change"] == pytest.approx(-0.075) and moved["paired"] == 2
    assert moved["unscored_in_second"] == ["s2"] and moved["unscored_in_first"] == []


def test_in_words(world: World) -> None:
    text = world.run("diff", "one", "two", "--top", "1").stdout
    assert "model settings steps" in text and "-0.200" in text and "+0.050" not in text
    assert "3 samples in both, 1 only in the first, 1 only in the second" in text
    assert "unscored only in the second: s2" in text
    same = world.run("diff", "one", "one").stdout
    assert "Settings, protocol and weights are the same" in same


def test_a_run_against_a_reference_file_and_wrong_names(world: World) -> None:
    assert world.run("check", "one", "--update", "reference.json").returncode == 0
    assert "are the same" in world.run("diff", "one", "reference.json").stdout
    wrong = world.run("diff", "one", "two", "--metric", "arcsin")
    assert wrong.returncode == 2 and "did you mean 'arcsim'" in wrong.stderr
    assert world.run("diff", "one", "two", "--metric", "viclip").returncode == 2
    assert world.run("diff", "one", "nothing").returncode == 2


def test_a_metric_in_addition_to_the_default_one(world: World) -> None:
    done = world.run("diff", "one", "one", "--metric", "+viclip", "--json")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)["metrics"]) == ["arcsim", "viclip"]
    wrong = world.run("diff", "one", "two", "--metric", "+viclip")
    assert wrong.returncode == 2 and "metric of both runs" in wrong.stderr
