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


def linked_pages(page: Path) -> set[Path]:
    """The other pages that a page links to."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = (t.partition("#")[0] for t in re.findall(r"\]\(([^)]+)\)", text))
    return {(page.parent / t).resolve() for t in targets if t.endswith(".md")} - {page.resolve()}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_no_page_is_a_dead_end(page: Path) -> None:
    assert linked_pages(page) & set(PAGES)


@pytest.mark.parametrize("start", [ROOT / "README.md", ROOT / "docs" / "index.md"],
                         ids=lambda p: p.name)
def test_every_page_is_reached_by_links(start: Path) -> None:
    reached, left = set(), {start}
    while left:
        page = left.pop()
        reached.add(page)
        left |= linked_pages(page) - reached
    assert set(PAGES) <= reached


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda p: p.name)
def test_no_two_headings_of_a_page_have_one_anchor(page: Path) -> None:
    """Sites number the later ones, each in its own way, so a link would lead elsewhere."""
    from markdown.extensions.toc import slugify

    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = [slugify(title, "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    assert sorted(found) == sorted(set(found))


def test_the_models_page_names_weights_and_variants_that_exist() -> None:
    from idbench.commands.listing import model_details
    from idbench.published_weights import catalogue
    from idbench.registry import split_variant

    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    section = text.split("## Released weights")[1].split("\n## ")[0]
    rows = [row.split("|")[2:4] for row in section.splitlines() if row.startswith("| ")][1:]
    assert len(rows) == 5
    for weights, models in rows:
        assert set(re.findall(r"`([^`]+)`", weights)) <= set(catalogue())
        for model in re.findall(r"`([a-z]\w*(?:@[\w.]+)?)`", models):
            name, variant = split_variant(model)
            assert variant is None or variant in model_details(name, "avatars")["variants"], model


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


def test_the_commands_without_json_are_those_that_the_page_names() -> None:
    import click

    from idbench.cli import COMMANDS, cli

    def below(name: str, command: click.Command | None) -> dict[str, click.Command]:
        if isinstance(command, click.Group):
            return {key: one for word, child in command.commands.items()
                    for key, one in below(f"{name} {word}", child).items()}
        return {name: command} if command else {}

    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    said = set(re.findall(r"`([a-z][^`]*)`", text.split("- `--json` works")[1].split("\n- ")[0]))
    context = click.Context(cli)
    without = {
        name for word in COMMANDS for name, command in below(
            word, cli.get_command(context, word)).items()
        if not any("--json" in option.opts for option in command.params)
    }
    assert {name.replace("figure tradeoff", "figure") for name in without
            if name not in ("figure strip", "figure curves")} == said
