"""The package as installed: one import name, nothing forgotten, light to start."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAPPED = ("metrics", "baselines", "models", "prompts", "reports", "weights")


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    found = {"idbench"}
    for top in ("idbench", *MAPPED):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(parts if top == "idbench" else ("idbench", *parts)))
    assert found == set(project()["tool"]["setuptools"]["packages"])
    # A folder of modules without __init__.py would be left out of a wheel in silence.
    for top in ("idbench", *MAPPED):
        for module in (ROOT / top).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def test_every_data_file_is_package_data() -> None:
    settings = project()["tool"]["setuptools"]
    folders = settings["package-dir"]
    covered: set[Path] = set()
    for package, patterns in settings["package-data"].items():
        for pattern in patterns:
            covered |= set((ROOT / folders[package]).glob(pattern))
    listed = subprocess.run(
        ["git", "ls-files", *("idbench", *MAPPED)], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    for name in listed.stdout.splitlines():
        if not name.endswith(".py"):
            assert ROOT / name in covered, f"{name} would not be installed"


def test_constraints_pin_every_dependency() -> None:
    pinned = {
        line.split("==")[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    extras = project()["project"]["optional-dependencies"]
    wanted = project()["project"]["dependencies"] + extras["test"] + extras["dev"]
    for line in wanted:
        name = line.split(">")[0].split("[")[0].strip().lower().replace("_", "-")
        assert name in pinned or name == "idbench", f"{name} has no pinned version"


HEAVY = ("torch", "diffusers", "transformers", "pandas", "scipy", "matplotlib", "av", "numba")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["suites", "--help"], ["list", "models"]])
def test_light_commands_import_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom idbench.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"
