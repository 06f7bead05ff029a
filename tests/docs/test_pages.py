"""The documentation: links and pictures exist, the code shown is real."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
FENCE = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)


def test_every_page_is_in_the_navigation_once() -> None:
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = [file for entry in settings["nav"] for file in entry.values()]
    assert sorted(named) == [page.name for page in PAGES]


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them."""
    from markdown.extensions.toc import slugify

    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slugify(title, "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_links_and_pictures_exist(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_is_a_dead_end(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    linked = {t.partition("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text)}
    assert any(t.endswith(".md") for t in linked)


def test_every_picture_is_shown() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in (ROOT / "docs" / "pictures").iterdir():
        assert f"pictures/{picture.name}" in text, picture.name


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
