"""The pytest plugin, used by a test suite of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from made_runs import made_run

pytest_plugins = ["pytester"]
PEOPLE = [(f"p{i // 2}",) for i in range(16)]
GOOD = [0.5 + 0.01 * (i % 5) for i in range(16)]
TESTS = '''
def test_identity_is_kept(idbench_run):
    run = idbench_run("runs/{run}")
    assert run.mean("arcsim") > 0.45 and run.coverage("arcsim") == 1
    run.assert_holds("runs/reference")
'''


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs, made before pytester notes which modules are imported."""
    folder = tmp_path_factory.mktemp("made")
    for name, values in {"reference": GOOD, "good": [v + 0.002 for v in GOOD],
                         "bad": [v - 0.03 for v in GOOD]}.items():
        made_run(folder / name, name, {"arcsim": values}, PEOPLE)
    made_run(folder / "nothing", "nothing", {"arcsim": [None] * 16}, PEOPLE)
    return folder


@pytest.fixture
def suite(
    made: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """A project with runs, and the plugin as its entry point loads it."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    shutil.copytree(made, pytester.path / "runs")
    return pytester


def run(suite: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    return suite.runpytest_subprocess("-p", "idbench.pytest_plugin", *arguments)


def test_three_lines_pass_and_fail_as_the_run_does(suite: pytest.Pytester) -> None:
    suite.makepyfile(test_good=TESTS.format(run="good"), test_bad=TESTS.format(run="bad"),
                     test_nothing=TESTS.format(run="nothing"))
    result = run(suite)
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines([
        "*AssertionError: REGRESSED: *", "*ArcSim: worse by 0.030*",
        "*no sample of *nothing has a value of arcsim*",
    ])


def test_the_run_may_be_named_on_the_command_line(suite: pytest.Pytester) -> None:
    suite.makepyfile('''
        def test_mean(idbench_run):
            assert abs(idbench_run().mean("arcsim") - 0.49) < 0.01
    ''')
    run(suite, "--idbench-run", "runs/bad").assert_outcomes(passed=1)
    run(suite, "--idbench-run", "runs/nothing").assert_outcomes(failed=1)
    result = run(suite)
    result.assert_outcomes(errors=0, failed=1)
    result.stdout.fnmatch_lines(["*Pass a run*"])


def test_the_package_names_the_plugin_and_it_is_light() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"idbench": "idbench.pytest_plugin"}
    code = ("import idbench.pytest_plugin, sys; "
            "print([m for m in ('torch', 'pandas', 'numpy', 'scipy') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
