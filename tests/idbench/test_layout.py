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


def imported(nodes: list[ast.stmt], functions: bool = True) -> Iterator[str]:
    """What is imported at run time, inside functions too unless told otherwise."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.FunctionDef) and not functions:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
                yield node.module
        for block in ("body", "orelse", "finalbody", "handlers"):
            yield from imported(getattr(node, block, []), functions)


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


def test_an_import_inside_a_function_defers_something() -> None:
    """What the module's other imports load anyway is imported at its top."""
    trees = {name: ast.parse(path.read_text()) for name, path in modules().items()}
    needs = {name: set(imported(tree.body, functions=False)) for name, tree in trees.items()}

    def loaded(name: str) -> set[str]:
        seen: set[str] = set()
        todo = [name]
        while todo:
            parts = todo.pop().split(".")
            for one in {".".join(parts[:i]) for i in range(1, len(parts) + 1)} - seen:
                seen.add(one)
                todo += needs.get(one, ())
        return seen

    found = []
    for name, tree in trees.items():
        before = loaded(name)
        for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
            for node in (n for n in ast.walk(function) if isinstance(n, ast.ImportFrom)):
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    if (inner if inner in trees else node.module) in before - {name}:
                        found.append(f"{name}:{node.lineno} {inner}")
    assert found == []


def test_the_way_from_a_suite_to_a_table_stays_short() -> None:
    assert len((ROOT / "idbench" / "evaluate.py").read_text().splitlines()) < 150


def test_text_is_printed_by_idbench_output() -> None:
    """It makes control characters of other people's names visible; click and print do not."""
    printing = {"click.echo", "click.secho", "print"}
    for name, path in modules().items():
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text()))
                 if isinstance(node, ast.Call)}
        main = "__main__" in path.read_text()  # a script of its own, not a command
        assert main or name == "idbench.output" or not calls & printing, name


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
