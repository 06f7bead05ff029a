"""The layout that newcomers rely on: no circles of imports, no file name in two folders."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
PLACES = SETUPTOOLS["package-dir"]


def modules() -> dict[str, Path]:
    """Import name -> file, of all production code."""
    found = {}
    for package, folder in PLACES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


def imported(nodes: list[ast.stmt]) -> Iterator[str]:
    """What is imported at run time, inside functions too."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                yield node.module
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from imported(getattr(node, block, []))


def test_no_circle_of_imports() -> None:
    """Not even one that an import inside a function hides."""
    known = modules()
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    needs = {
        name: {m for m in imported(ast.parse(path.read_text()).body)
               if m in known and m not in packages and m != name}
        for name, path in known.items()
    }
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from None


def test_no_file_name_stands_in_two_folders() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for name, path in modules().items():
        if path.name != "__init__.py":
            places[path.name].append(name)
    assert {k: v for k, v in places.items() if len(v) > 1} == {}


def test_every_package_is_installed() -> None:
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert packages == set(SETUPTOOLS["packages"])


def test_help_imports_nothing_heavy() -> None:
    code = ("import sys; from idbench.cli import cli\n"
            "try: cli(['--help'])\n"
            "except SystemExit: pass\n"
            "heavy = ('torch', 'numpy', 'pydantic', 'pandas', 'rich')\n"
            "assert not [m for m in heavy if m in sys.modules], sys.modules.keys() & set(heavy)")
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
