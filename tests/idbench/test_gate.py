"""The gate: what fails, what holds, with which exit code, and what it writes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import click
import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import made_run
from toy import World

from idbench import gate, gate_output, measured_files, measurements
from idbench.cli import cli
from idbench.commands.check import check as command
from idbench.errors import UserError

DOCS = Path(__file__).parents[2] / "docs"
PEOPLE = [(f"p{i // 4}",) for i in range(48)]
"""Twelve people with four samples each."""
_rng = np.random.default_rng(0)
ARCSIM = (0.5 + np.repeat(_rng.normal(0, 0.1, 12), 4) + _rng.normal(0, 0.05, 48)).tolist()
CLIPDIST = (0.4 + _rng.normal(0, 0.05, 48)).tolist()


class Made:
    """Measurements under one folder, made by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(
        self, name: str, arcsim: list[float | None], people: Any = PEOPLE, **more: Any
    ) -> measurements.Measurement:
        values = {"arcsim": arcsim, "clipdist": CLIPDIST[:len(people)]}
        run = made_run(self.folder / name, name, more.pop("values", values), people, **more)
        return measurements.of_run(run)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def by_name(verdict: gate.Verdict) -> dict[str, gate.Check]:
    return {check.name: check for check in verdict.checks}


def shifted(by: float, spread: float = 0.01, seed: int = 1) -> list[float | None]:
    rng = np.random.default_rng(seed)
    return [v + by + e for v, e in zip(ARCSIM, rng.normal(0, spread, 48), strict=True)]


def test_the_same_run_holds(made: Made) -> None:
    reference = made("a", ARCSIM)
    verdict = gate.check(reference, reference)
    assert verdict.code == 0 and not verdict.problems
    assert by_name(verdict)["arcsim"].change == 0


def test_a_certain_drop_over_the_tolerance_fails(made: Made) -> None:
    verdict = gate.check(made("b", shifted(-0.03)), made("a", ARCSIM))
    found = by_name(verdict)["arcsim"]
    assert verdict.code == 1 and [c.name for c in verdict.problems] == ["arcsim"]
    assert found.change == pytest.approx(-0.03, abs=0.005)
    assert found.high is not None and found.high < 0 and found.clusters == 12


def test_a_certain_drop_within_the_tolerance_holds(made: Made) -> None:
    verdict = gate.check(made("b", shifted(-0.005, 0.001)), made("a", ARCSIM))
    found = by_name(verdict)["arcsim"]
    assert found.high is not None and found.high < 0 and verdict.code == 0


def test_an_uncertain_drop_over_the_tolerance_holds(made: Made) -> None:
    """One person fell deep, the others not at all: the interval says it may be chance."""
    values = [v - 0.5 if who == ("p0",) else v for v, who in zip(ARCSIM, PEOPLE, strict=True)]
    verdict = gate.check(made("b", values), made("a", ARCSIM))
    found = by_name(verdict)["arcsim"]
    assert found.change == pytest.approx(-0.5 / 12) and verdict.code == 0
    assert "includes 0" in found.message


def test_samples_of_one_person_are_not_counted_as_independent(made: Made) -> None:
    """Three people, forty-eight samples: what differs by person is three observations."""
    people = [(f"p{i // 16}",) for i in range(48)]
    drop = [0.0, 0.06, 0.12]
    values = [v - drop[i // 16] for i, v in enumerate(ARCSIM)]
    assert gate.check(made("b", values, people), made("a", ARCSIM, people)).code == 0
    alone = [(f"q{i}",) for i in range(48)]
    assert gate.check(made("d", values, alone), made("c", ARCSIM, alone)).code == 1


def test_of_a_metric_where_lower_is_better_a_rise_fails(made: Made) -> None:
    values = {"swap_rate": [0.1 + 0.01 * (i % 3) for i in range(48)]}
    worse = {"swap_rate": [v + 0.05 for v in values["swap_rate"]]}
    a, b = made("a", [], values=values), made("b", [], values=worse)
    assert gate.check(b, a, metrics=["swap_rate"]).code == 1
    assert gate.check(b, a).code == 0  # a diagnosis that tables hide is judged only by name
    better = gate.check(a, b, metrics=["swap_rate"])
    assert better.code == 0 and by_name(better)["swap_rate"].outcome == "improved"


def test_tolerance_of_one_metric_and_choice_of_metrics(made: Made) -> None:
    a, b = made("a", ARCSIM), made("b", shifted(-0.03))
    assert gate.check(b, a, tolerances={"arcsim": 0.05}).code == 0
    assert gate.check(b, a, metrics=["clipdist"]).code == 0
    with pytest.raises(UserError, match="did you mean 'arcsim'"):
        gate.check(b, a, metrics=["arcsin"])


def test_lost_coverage_fails_though_the_mean_rose(made: Made) -> None:
    values: list[float | None] = [*ARCSIM]
    values[int(np.argmin(ARCSIM))] = None
    a, b = made("a", ARCSIM), made("b", values)
    verdict = gate.check(b, a)
    assert [c.name for c in verdict.problems] == ["arcsim coverage"] and verdict.code == 1
    assert f"s{int(np.argmin(ARCSIM))}" in verdict.problems[0].message
    assert gate.check(b, a, allow=["coverage"]).code == 0
    assert gate.check(b, a, coverage_tolerance=0.05).code == 0
    assert gate.check(a, b).code == 0  # coverage gained


def test_nothing_scored_any_more_is_lost_coverage_not_held(made: Made) -> None:
    verdict = gate.check(made("b", [None] * 48), made("a", ARCSIM))
    assert verdict.code == 1 and "arcsim" not in by_name(verdict)


def test_missing_samples_and_metrics_fail_unless_allowed(made: Made) -> None:
    a = made("a", ARCSIM)
    fewer = made("b", ARCSIM[:40], PEOPLE[:40])
    assert gate.check(fewer, a).code == 1
    assert "8 of 48" in gate.check(fewer, a).problems[0].message
    assert gate.check(fewer, a, allow=["missing"]).code == 0
    assert gate.check(a, fewer).code == 0  # more samples than the reference
    less = made("c", [], values={"clipdist": CLIPDIST})
    assert [c.name for c in gate.check(less, a).problems] == ["arcsim"]


@pytest.mark.parametrize(("part", "change"), [
    ("protocol", {"protocol": "loose-v1"}), ("weights", {"weights": {"arcface": "2"}}),
    ("suite", {"suite": {"name": "tiny", "version": "2", "sha256": "y"}}),
    ("split", {"split": "multi"}),
])
def test_what_was_measured_otherwise_cannot_be_compared(
    made: Made, part: str, change: dict[str, Any]
) -> None:
    a, b = made("a", ARCSIM), made("b", shifted(-0.03), **change)
    verdict = gate.check(b, a)
    assert verdict.code == 2 and [c.name for c in verdict.problems] == [part]
    assert f"--allow {part}" in verdict.problems[0].message
    assert gate.check(b, a, allow=[part]).code == 1  # then the drop counts


def test_an_unfinished_reference_holds_nothing(made: Made) -> None:
    planned = [f"s{i}" for i in range(40, 48)]
    part = made("a", ARCSIM[:40], PEOPLE[:40], planned=planned)
    verdict = gate.check(made("b", ARCSIM), part)
    assert verdict.code == 2
    assert verdict.problems[0].message == (
        "the reference lacks 8 of its 48 samples; finish it first")


def test_samples_that_are_not_scored_yet_are_missing(made: Made) -> None:
    whole = made("a", ARCSIM)
    path = made.folder / "a/scores.parquet"
    table = pd.read_parquet(path)
    table[table["sample"].isin([f"a-s{i}" for i in range(40)])].to_parquet(path)
    part = measured_files.read(made.folder / "a")
    assert len(part.missing) == 8
    assert gate.check(whole, part).code == 2 and gate.check(part, whole).code == 1


def test_no_shared_sample_and_one_person_cannot_be_compared(made: Made) -> None:
    a = made("a", ARCSIM)
    other = made("b", ARCSIM, suite_ids=[f"t{i}" for i in range(48)])
    assert gate.check(other, a).code == 2
    one = [("p",)] * 48
    assert gate.check(made("d", shifted(-0.03), one), made("c", ARCSIM, one)).code == 2
    assert gate.check(made("e", ARCSIM, one), made("f", ARCSIM, one)).code == 0
    with pytest.raises(UserError, match="did you mean 'weights'"):
        gate.check(a, a, allow=["weight"])


def test_the_model_is_what_is_tested_and_may_differ(made: Made) -> None:
    verdict = gate.check(made("b", ARCSIM, settings={"steps": 20}), made("a", ARCSIM))
    assert verdict.code == 0 and any("model name" in note for note in verdict.notes)


def test_false_alarms_are_rare_and_a_real_drop_is_seen(made: Made) -> None:
    """Without a tolerance, of one metric: 2.5 % by the interval's one side, and good power."""
    reference = made("a", ARCSIM)
    rng = np.random.default_rng(3)
    alarms = {0.0: 0, -0.04: 0}
    for shift in alarms:
        for _ in range(150):
            person = np.repeat(rng.normal(0, 0.02, 12), 4)
            values = reference.values.copy()
            values["arcsim"] = np.array(ARCSIM) + shift + person + rng.normal(0, 0.02, 48)
            verdict = gate.check(replace(reference, values=values), reference, tolerance=0.0,
                                 metrics=["arcsim"], resamples=2000)
            alarms[shift] += verdict.code
    assert alarms[0.0] / 150 <= 0.06 and alarms[-0.04] / 150 >= 0.9


def test_a_reference_file_is_small_and_says_what_the_run_says(made: Made, tmp_path: Path) -> None:
    values: list[float | None] = [*ARCSIM]
    values[3] = None
    run = made("a", values)
    path = tmp_path / "reference.json"
    measured_files.write_reference(path, run)
    assert path.stat().st_size < 120 * 48 + 2000
    again = measured_files.read(path)
    assert again.scoring == run.scoring and again.identity == run.identity
    assert np.allclose(again.values["arcsim"], run.values["arcsim"], atol=1e-6, equal_nan=True)
    assert list(again.values["identities"]) == PEOPLE
    assert gate.check(run, again).code == 0
    worse = made("b", [None if v is None else v - 0.03 for v in values])
    assert gate.check(worse, again).code == 1


def test_damaged_and_newer_references_are_refused_with_the_mend(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    measured_files.write_reference(path, made("a", ARCSIM))
    data = json.loads(path.read_text())
    for change, words in (
        ({"schema": 99}, "newer idbench"), ({"kind": "x"}, "field 'kind' is wrong"),
        ({"columns": ["suite_id"]}, "damaged"), ({"samples": [["s0"]]}, "damaged"),
    ):
        path.write_text(json.dumps({**data, **change}))
        with pytest.raises(UserError, match=words):
            measured_files.read(path)
    with pytest.raises(UserError, match="lacks 1 of 49 samples"):
        measured_files.write_reference(path, made("b", ARCSIM, planned=["s99"]))


def test_the_verdict_in_words_markdown_and_junit(made: Made, tmp_path: Path) -> None:
    values = shifted(-0.03)
    values[0] = None
    verdict = gate.check(made("b", values), made("a", ARCSIM))
    text = gate_output.summary(verdict)
    assert text.startswith("REGRESSED: ") and "ArcSim: worse by 0.03" in text
    assert "ArcSim coverage: 100% were scored, now 98%" in text
    page = gate_output.markdown(verdict)
    assert "### idbench: regressed" in page and "**regressed**" in page
    path = tmp_path / "junit.xml"
    gate_output.write_junit(path, verdict)
    suite = ElementTree.parse(path).getroot()[0]
    assert suite.get("tests") == str(len(verdict.checks)) == str(len(suite))
    assert suite.get("failures") == "2" == str(len(suite.findall("testcase/failure")))
    assert suite.get("errors") == "0"


def test_hostile_names_stay_text(made: Made, tmp_path: Path) -> None:
    verdict = gate.Verdict("a`|\n<script>", "b", (
        gate.Check("samples", "regressed", "<b>|`x\x00"),))
    page = gate_output.markdown(verdict)
    assert "<script>" not in page.replace("`a'| <script>`", "") and "&lt;b>" in page
    gate_output.write_junit(tmp_path / "j.xml", verdict)
    failure = ElementTree.parse(tmp_path / "j.xml").find(".//failure")
    assert failure is not None and failure.get("message") == "<b>|`x?"


def test_the_command_says_it_by_its_exit_code(made: Made, tmp_path: Path) -> None:
    made("a", ARCSIM)
    made("b", shifted(-0.03))
    made("c", ARCSIM, protocol="loose-v1")
    world = World(tmp_path, tmp_path)
    assert world.run("check", "a", "--update", "reference.json").returncode == 0
    held = world.run("check", "a", "--against", "reference.json")
    assert held.returncode == 0 and held.stdout.startswith("HELD")
    fallen = world.run("check", "b", "--against", "reference.json", "--junit", "j.xml",
                       "--markdown", "s.md", "--json")
    assert fallen.returncode == 1 and json.loads(fallen.stdout)["verdict"] == "regressed"
    assert (tmp_path / "j.xml").is_file() and "regressed" in (tmp_path / "s.md").read_text()
    assert world.run("check", "b", "--against", "a", "--tolerance", "0.05").returncode == 0
    assert world.run("check", "c", "--against", "a").returncode == 2
    for arguments in (("a",), ("a", "--against", "nothing"), ("nothing", "--against", "a"),
                      ("a", "--against", "a", "--tolerance", "-1"),
                      ("a", "--against", "a", "--tolerance", "arcsim=x"),
                      ("a", "--against", "a", "--tolerance", "nan"),
                      ("a", "--against", "a", "--coverage-tolerance", "nan")):
        refused = world.run("check", *arguments)
        assert refused.returncode == 2 and refused.stderr.startswith("Error: "), arguments


def test_the_commands_of_the_page_hold(made: Made, tmp_path: Path) -> None:
    values = {name: ARCSIM for name in ("arcsim", "cursim", "viclip", "clipdist")}
    made("runs/gate", [], values=values)
    world = World(tmp_path, tmp_path)
    lines = [line for line in (DOCS / "gate.md").read_text("utf-8").splitlines()
             if line.startswith("idbench check") and "embeddings" not in line]
    assert len(lines) >= 6  # those with embeddings need networks: test_bundles.py
    for line in lines:
        done = world.run(*shlex.split(line)[1:])
        assert done.returncode == 0, (line, done.stderr, done.stdout)


def test_the_workflow_is_yaml_and_its_commands_have_these_options() -> None:
    workflow = yaml.safe_load((DOCS / "files" / "idbench-gate.yml").read_text("utf-8"))
    steps = workflow["jobs"]["gate"]["steps"]
    ours = [s["run"].split() for s in steps if s.get("run", "").startswith("idbench ")]
    assert [words[1] for words in ours] == ["run", "check"]
    for words in ours:
        found = cli.get_command(click.Context(cli), words[1])
        assert found is not None
        known = {name for option in found.params for name in option.opts}
        assert {w for w in words if w.startswith("-")} <= known
    uploaded = next(s["with"]["path"] for s in steps if "upload" in s.get("uses", ""))
    written = [w for words in ours for w in words if w.endswith((".xml", ".md"))]
    assert written and all(name in uploaded for name in written)


@pytest.mark.slow  # installs the checkout and scores with the embedded networks
def test_the_workflow_runs_with_the_checkout_as_idbench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, repository, bin_ = DOCS.parent, tmp_path / "repository", tmp_path / "bin"
    checkout = tmp_path / "idbench"
    kept = {"pyproject.toml", "README.md", "LICENSE", "idbench", "metrics", "baselines", "models",
            "prompts", "reports", "weights"}
    generators = ("transformer_", "vae", "consisid", "ingredients", "id_animator")  # not used here
    shutil.copytree(root, checkout, ignore=lambda folder, names: (
        [n for n in names if Path(folder) == root and n not in kept or n == "__pycache__"
         or Path(folder).name == "weights" and n.startswith(generators)]))
    shutil.copytree(root / "examples" / "my_model", repository)
    bin_.mkdir()
    site = tmp_path / "site"
    (bin_ / "pip").write_text(  # without a network, and away from this environment
        f'#!/bin/sh\nshift\nexec {sys.executable} -m pip install --quiet --no-index --no-deps '
        f'--no-build-isolation --no-compile --target {site} "$@"\n')
    (bin_ / "idbench").write_text(f'#!/bin/sh\nexec {sys.executable} -m idbench.cli "$@"\n')
    for script in bin_.iterdir():
        script.chmod(0o755)
    workflow = yaml.safe_load((DOCS / "files" / "idbench-gate.yml").read_text("utf-8"))
    assert set(workflow["env"]) == {"IDBENCH", "MODEL", "SPLIT", "LIMIT"}
    environment = {
        **os.environ, "PATH": f"{bin_}:{os.environ['PATH']}", "PYTHONPATH": str(site),
        "IDBENCH": str(checkout), "MODEL": "my_model", "SPLIT": "single", "LIMIT": "1",
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md"),
    }

    def step(command: str) -> None:
        done = subprocess.run(["bash", "-e", "-c", command], cwd=repository, env=environment,
                              capture_output=True, text=True)
        assert done.returncode == 0, (command, done.stdout[-800:], done.stderr[-1500:])

    commands = [one["run"] for one in workflow["jobs"]["gate"]["steps"] if "run" in one]
    for line in commands[:2]:
        step(line)
    step("idbench check runs/gate --update references/gate.json")
    for line in commands[2:]:
        step(line)
    assert "idbench: held" in (tmp_path / "summary.md").read_text("utf-8")
    where = subprocess.run([sys.executable, "-c", "import idbench; print(idbench.__file__)"],
                           cwd=repository, env=environment, capture_output=True,
                           text=True).stdout
    assert str(site) in where, "idbench came from the address"


def test_the_page_names_everything_that_may_be_allowed() -> None:
    page = (DOCS / "gate.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in gate.ALLOWABLE)
    option = next(p for p in command.params if p.name == "allow")
    assert isinstance(option, click.Option) and option.help is not None
    assert all(name in option.help for name in gate.ALLOWABLE)


def test_a_metric_in_addition_to_those_that_tables_show(tmp_path: Path) -> None:
    """`--metric +NAME`, as the help says: also one that is only in the long forms."""
    values = {"arcsim": ARCSIM, "swap_rate": CLIPDIST}
    for name in ("one", "two"):
        made_run(tmp_path / name, name, values, PEOPLE)
    world = World(tmp_path, tmp_path)

    def checked(*more: str) -> set[str]:
        done = world.run("check", "one", "--against", "two", "--json", *more)
        assert done.returncode == 0, done.stderr
        return {c["name"] for c in json.loads(done.stdout)["checks"]} & set(values)

    assert checked() == {"arcsim"}
    assert checked("--metric", "+swap_rate") == {"arcsim", "swap_rate"}
    assert checked("--metric", "swap_rate") == {"swap_rate"}
    wrong = world.run("check", "one", "--against", "two", "--metric", "+swap_rat")
    assert wrong.returncode == 2 and "did you mean 'swap_rate'" in wrong.stderr
