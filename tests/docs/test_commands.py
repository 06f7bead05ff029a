"""Every command shown in README.md and docs/*.md is run, or read by click where it cannot be.

A page's commands are run in their order, in one folder that holds runs, videos and pictures as the
pages name them. `ONLY_READ` is the whole list of those that are not run, each with its reason; they
go through the same parser as the command line, and the names they use are looked up.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from report_runs import make_run
from shown_commands import FENCE, PAGES, ROOT, SHELLS, Shown, commands, prepare

from idbench.cli import COMMANDS, cli, main
from idbench.registry import MODELS, split_variant
from idbench.suite import load_suite

ONLY_READ = {
    r"reproduce(?!.*--plan)": "generates for half an hour; tests/idbench/test_reproduce.py runs it",
    r"run --model": "generates for minutes; below, the first one is run with one sample",
    r"(table|report) runs/consisid-bench": "needs the run of ConsisID-Bench, which needs a network",
    r"score (clip|--manifest|their_videos|runs/)": "loads every network; below, two are run",
    r"merge": "needs the runs of shards; tests/idbench/test_survival.py joins some",
    r"train (?!.*--plan)": "trains for hours, or on a GPU",
    r"validate-metrics": "two minutes; tests/metrics/test_validation.py runs it small",
    r"pairs build": "needs videos of people; tests/models/concat_id runs it on made ones",
    r"convert": "needs released checkpoints; tests/models/concat_id runs it on small ones",
    r"suites get": "needs a network; tests/idbench/test_suites_get.py runs it on a local server",
    r"suites check suites/consisid": "needs pictures that idbench does not have",
    r"weights get": "needs a network; tests/idbench/test_from_fresh.py runs it on a local server",
    r"weights path": "needs published weights; tests/idbench/test_published_weights.py runs it",
    r".*--weights (published|\w+=insightface:)": "needs weights that idbench does not have",
    r"suites .*--pack": "needs weights that idbench does not have",
    r"study serve": "waits for voters; tests/reports/test_study_browser.py votes",
    r"check .*(--embeddings|embeddings\.zip)": "needs a run of real networks; "
                                               "tests/idbench/test_bundles.py runs it",
}


def only_read(shown: Shown) -> bool:
    line = " ".join(shown.arguments)
    return any(re.match(pattern, line) for pattern in ONLY_READ)


EVERY = [shown for page in PAGES for shown in commands(page)]
READ = [shown for shown in EVERY if shown.arguments and only_read(shown)]
RUN = [page for page in PAGES
       if any(s.arguments and not only_read(s) for s in commands(page))]


def name_of(shown: Shown) -> str:
    return f"{shown.page}: {shown.line[:70]}"


def parsed(arguments: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    """The command of a line with its parameters, checked as the command line checks them."""
    assert arguments[0] in COMMANDS, arguments[0]
    command = cli.get_command(click.Context(cli), arguments[0])
    assert command is not None
    rest = list(arguments[1:])
    if isinstance(command, click.Group):
        command = command.commands[rest.pop(0)]
    return command, command.make_context(arguments[0], rest)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages name; a page works in a copy of its own."""
    made = tmp_path_factory.mktemp("made")
    names = ["a000", "a001", "a002", "a003", "a004", "a005", "a006", "a007"]
    runs = [
        make_run(made / name, name="concat_id", variant=variant, count=8, people=1, seed=seed,
                 level=level, identity_names=names)
        for name, variant, seed, level in (
            ("mine", None, 1, 0.6), ("base", "base", 2, 0.1), ("gate", None, 1, 0.6),
            ("single", "single", 3, 0.6), ("zeroed", "single", 4, 0.1))
    ]
    clip = next(runs[0].glob("samples/*/video.mp4"))
    folder = tmp_path_factory.mktemp("world")
    prepare(folder, runs, clip, load_suite("avatars").folder)
    return folder


@contextlib.contextmanager
def inside(world: Path, folder: Path) -> Iterator[Path]:
    shutil.copytree(world, folder, dirs_exist_ok=True)
    with contextlib.chdir(folder):
        yield folder


def call(shown: Shown, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a line in this process; it has to end with 0."""
    with pytest.raises(SystemExit) as ended:
        main(shown.arguments)
    said = capsys.readouterr()
    assert not ended.value.code, f"{shown.line}\n{said.out[-500:]}{said.err[-1500:]}"
    if shown.output:
        Path(shown.output).write_text(said.out, encoding="utf-8")


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_commands_of_a_page_work_in_their_order(
    page: Path, world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("IDBENCH_CACHE", str(tmp_path / "cache"))
    with inside(world, tmp_path / "w"):
        for shown in commands(page):
            if not shown.arguments or only_read(shown):
                continue
            if shown.arguments[:2] == ("study", "score"):
                vote(Path("study"))
            if shown.arguments[0] == "export":  # two lines with one target are two examples
                shutil.rmtree("exports", ignore_errors=True)
            call(shown, capsys)


def vote(study: Path) -> None:
    """A voter who always prefers the left video."""
    from idbench.reports.study_files import Study, Votes

    opened = Study.open(study)
    votes = Votes.of(opened, "anna")
    for trial in opened.trials("anna"):
        for question in opened.questions:
            votes.put({"pair": trial.pair, "question": question, "choice": "left"})


@pytest.mark.parametrize("shown", READ, ids=name_of)
def test_commands_that_are_not_run_parse_and_name_what_there_is(
    shown: Shown, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    command, context = parsed(shown.arguments)
    given = context.params
    if command.name == "run":
        from idbench.scoring import Scoring

        if given["model"] == "my_model":  # tests/idbench/test_example.py installs and runs it
            return
        MODELS.target(split_variant(given["model"])[0])
        suite = given["suite"] if not given["suite"].startswith("suites/") else "avatars"
        assert load_suite(suite).samples(given["split"], given["limit"], given["seeds"][0])
        Scoring.of(given["protocol"], given["metrics"])
    if command.name == "train":
        from idbench.commands.options import parse_settings
        from idbench.models.concat_id.training import cache, loop
        from idbench.models.concat_id.training.recipe import read, read_stage
        from idbench.recipes import load_recipe, load_trainer

        name, content = load_recipe(given["recipe"])
        trainer, chosen = load_trainer(name, content), parse_settings(given["settings"])
        assert set(chosen) <= set(getattr(trainer, "settings", content))
        full = {**content, **chosen, "name": name}  # their values as well
        if trainer is cache.prepare:
            read(cache.CacheRecipe, full)
        elif trainer is loop.train:
            read_stage(full)
    if command.name == "score":
        from idbench.metrics.protocols import get_protocol

        get_protocol(given["protocol"])
    if context.info_name == "weights" and command.name == "get":
        from idbench.published_weights import chosen as entries

        assert entries(given["names"])


def test_other_programs_shown_are_there() -> None:
    rules = re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {name for rule in rules for name in rule.split()}
    for shown in EVERY:
        if shown.words[0] == "make":
            assert set(shown.words[1:]) <= targets, shown.line
        elif shown.words[:2] == ("python", "-m"):
            assert importlib.util.find_spec(shown.words[2]), shown.line
            files = [word for word in shown.words[3:] if word.endswith(".py")]
            assert all((ROOT / file).is_file() for file in files), shown.line
        elif shown.words[0] == "python":
            assert (ROOT / shown.words[1]).is_file(), shown.line
        elif shown.words[:2] == ("accelerate", "launch"):
            assert importlib.util.find_spec("accelerate") and shown.arguments[0] == "train"
        elif shown.words[0] == "export" or "$(" in shown.line:
            assert re.match(r"(export )?\w+=", shown.line), shown.line  # a variable of the shell
        elif shown.words[0] == "source":
            assert shown.line == "source .venv/bin/activate"  # what `make setup` makes
        elif shown.words[0] == "ray":
            assert shown.words[1] in ("start", "stop", "status", "symmetric-run"), shown.line
        elif shown.words[:2] == ("pip", "install"):
            project = (ROOT / "pyproject.toml").read_text()
            for word in shown.words[2:]:
                if word != "-e":
                    name = re.sub(r".*\[(.+)\]", r"\1", word)
                    assert (ROOT / word).exists() or re.search(rf'\b{name}\b', project), shown.line
        elif shown.words[0].startswith("launch="):
            assert (ROOT / "models/concat_id/launch").is_dir()
        else:
            assert shown.arguments, f"{shown.page}: what runs {shown.line!r}?"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_command_is_shown_where_it_is_not_tested(page: Path) -> None:
    """Only blocks that say they are shell are read here."""
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"^([ \t]+```|~~~)", text, re.MULTILINE), "a block that is not read"
    for language, block in FENCE.findall(text):
        if language not in SHELLS:
            shown = re.search(r"^\s*\$?\s*(idbench|pip|make|python) ", block, re.MULTILINE)
            assert not shown, block


def test_no_reason_to_only_read_is_left_over() -> None:
    lines = [" ".join(shown.arguments) for shown in EVERY if shown.arguments]
    for pattern in ONLY_READ:
        assert any(re.match(pattern, line) for line in lines), pattern


@pytest.mark.slow  # generates and scores with the embedded networks
def test_the_first_run_shown_and_the_first_scores_work(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = commands(ROOT / "README.md")
    first = next(s for s in shown if s.arguments[:1] == ("run",))
    small = Shown(first.page, first.line, (
        *first.words[:first.words.index("--limit")], "--limit", "1", "--set", "steps=1", "--out",
        "runs/first"), None)
    scores = [s for s in shown if s.arguments[:1] == ("score",)][:2]
    assert len(scores) == 2
    with inside(world, tmp_path / "w"):
        for line in (small, *scores):
            call(line, capsys)
        assert (tmp_path / "w" / "runs/first/scores.parquet").is_file()
        assert (tmp_path / "w" / "runs/score-my_system/scores.parquet").is_file()


# The site.

def test_the_site_builds_in_strict_mode(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    settings = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path / "site"))
    settings.plugins.on_startup(command="build", dirty=False)
    build(settings)
    for page in (ROOT / "docs").glob("*.md"):
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert (tmp_path / "site" / name).is_file()


def test_every_page_that_was_asked_for_is_in_the_navigation() -> None:
    named = [title for entry in yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
             for title in entry]
    for title in ("The first ten minutes", "Suites", "Metrics", "Protocols", "Models", "Training",
                  "Results", "Regression gate", "Plugins", "Responsible use",
                  "Glossary", "Command line", "Exports"):
        assert title in named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_names_the_command_that_made_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"!\[[^]]*\]\([^)]*pictures/", text):
        section = text[found.start():].split("\n## ", 1)[0]
        assert re.search(r"`(idbench |python -m\s)", section), text[found.start():][:80]
