"""The documentation: links and pictures exist, commands and code shown are real."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from idbench.cli import COMMANDS, cli

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def _commands() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "bash":
                found += [(page.name, line) for line in text.replace("\\\n", "").splitlines()
                          if line.startswith("idbench ")]
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [file for entry in settings["nav"] for file in entry.values()]
    assert sorted(named) == [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_pictures_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target.partition("#")[0]).is_file(), target


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert f"pictures/{picture.name}" in text, picture.name


@pytest.mark.parametrize(("page", "line"), _commands())
def test_commands_shown_have_these_options(page: str, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    assert words[0] in COMMANDS, line
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    if isinstance(command, click.Group):
        command = command.commands[words.pop(1)]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    assert {w for w in words[1:] if w.startswith("-")} <= known | {"--help"}, line


def test_python_of_the_training_page_runs() -> None:
    blocks = [t for lang, t in FENCE.findall((ROOT / "docs" / "training.md").read_text("utf-8"))
              if lang == "python"]
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)  # noqa: S102
    assert names["said"].mentioned  # type: ignore[attr-defined]


def test_counts_of_the_suites_page_are_the_suites() -> None:
    from idbench.suite import load_suite

    text = (ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    for split, count in load_suite("avatars").splits.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{split}`"))
        assert row.split("|")[3].strip() == str(count)
