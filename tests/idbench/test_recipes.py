"""`idbench train` and `idbench list` on recipes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy import World

from idbench.commands.options import parse_settings
from idbench.recipes import load_recipe, load_trainer

TRAINER = '''
import json
def train(recipe, state_dir, resume, evaluate):
    if not evaluate:
        (state_dir / "state").write_text("x")
    return {"steps": recipe["steps"], "resumed": resume, "evaluated": evaluate, "auc": 0.98765}
'''


@pytest.fixture
def recipe(world: World, monkeypatch: pytest.MonkeyPatch) -> Path:
    (world.folder / "my_trainer.py").write_text(TRAINER)
    package = world.folder / "my_trainer-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: my-trainer\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[idbench.trainers]\nmine = my_trainer:train\nbroken = my_trainer:gone\n"
    )
    monkeypatch.syspath_prepend(str(world.folder))
    path = world.folder / "small.yaml"
    path.write_text("trainer: my_trainer:train\nsteps: 5\n")
    return path


def test_train_runs_the_function_that_the_recipe_names(world: World, recipe: Path) -> None:
    done = world.run("train", "small.yaml", "--set", "steps=7", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "steps": 7, "resumed": False, "evaluated": False, "auc": 0.98765,
    }
    assert (world.folder / ".training/small/state").exists()
    again = world.run("train", "small.yaml", "--resume")
    assert "resumed: True" in again.stdout and "auc: 0.9877" in again.stdout


def test_evaluate_trains_nothing(world: World, recipe: Path) -> None:
    done = world.run("train", "small.yaml", "--evaluate")
    assert done.returncode == 0 and "evaluated: True" in done.stdout
    assert not (world.folder / ".training").exists()


def test_mistakes_are_one_sentence(world: World, recipe: Path) -> None:
    broken = world.folder / "broken.yaml"
    broken.write_text("trainer: my_trainer:gone\n")
    (world.folder / "foreign.yaml").write_text("trainer: os:system\n")
    (world.folder / "list.yaml").write_text("trainer: [a:b]\n")
    (world.folder / "empty.yaml").write_text("steps: 3\n")
    (world.folder / "latin.yaml").write_bytes("trainer: é\n".encode("latin-1"))
    for arguments, words in (
        (("train", "arcfase"), "did you mean 'arcface'?"),
        (("train", "gone.yaml"), "The recipe gone.yaml is missing"),
        (("train", "empty.yaml"), "names no trainer"),
        (("train", "latin.yaml"), "is not UTF-8 text"),
        (("train", "broken.yaml"), "cannot be loaded"),
        (("train", "foreign.yaml"), "Unknown trainer of the recipe 'foreign' 'os:system'"),
        (("train", "list.yaml"), "Unknown trainer of the recipe 'list'"),
        (("train", "arcface", "--set", "trainer=os:system"), "Unknown trainer"),
        (("train", "arcface", "--set", "entry=../x"), "Unknown entry of the recipe 'arcface'"),
        (("train", "arcface", "--set", "entry=arcfase"), "did you mean 'arcface'?"),
        (("train", "arcface", "--set", "steps=0"), "has steps 0; use a whole number from 1"),
        (("train", "text_encoder", "--set", "steps=-1"), "has steps -1; use a whole number"),
        (("train", "small.yaml", "--set", "stepps=3"), "did you mean 'steps'?"),
        (("train", "small.yaml", "--resume"), "no state in .training/small to resume"),
    ):
        done = world.run(*arguments)
        assert done.returncode == 2 and words in done.stderr, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("setting, words", [
    ("batch=-1", "batch of the recipe 'arcface' must be a whole number from 1, not '-1'"),
    ("batch=1.5", "a whole number from 1"), ("batch=x", "a whole number from 1"),
    ("seed=x", "a whole number from 0"), ("seed=-1", "a whole number from 0"),
    ("learning_rate=true", "a number from 0"), ("precision=null", "a text"),
    ("data=x", "a mapping"), ("data={split: training}", "lacks identities"),
    ("data={}", "non-empty"),
    ("validation={split: validation, seed: x, identities: 1, scenes: 1, frames: 1, pairs: 1}",
     "seed of validation of the recipe 'arcface' must be a whole number"),
])
def test_settings_of_another_kind_are_refused(world: World, setting: str, words: str) -> None:
    done = world.run("train", "arcface", "--set", setting)
    assert done.returncode == 2 and words in done.stderr, done.stderr


def test_installed_recipes_have_values_of_the_right_kinds() -> None:
    for name in ("aligned_data", "aligned_latents", "arcface", "text_encoder", "vae", "viclip"):
        recipe = load_recipe(name)[1]
        if "start" in recipe:
            recipe["start"] = None  # trains anew
        load_trainer(name, recipe)


def test_an_exponent_without_a_point_is_a_number() -> None:
    assert parse_settings(("a=1e-3", "b=2E5", "c=1e", "d=[1.0]")) == {
        "a": 0.001, "b": 2e5, "c": "1e", "d": [1.0]}


def test_latents_of_data_that_were_not_rendered(world: World) -> None:
    done = world.run("train", "concat_id_latents")
    assert done.returncode == 2 and "run `idbench train concat_id_data` first" in done.stderr


@pytest.mark.parametrize("kind", ["models", "metrics", "suites", "protocols", "recipes", "weights"])
def test_lists_can_be_read_by_machines_and_people(world: World, kind: str) -> None:
    rows = json.loads(world.run("list", kind, "--json").stdout)
    text = world.run("list", kind).stdout
    for row in rows:
        assert str(next(iter(row.values()))) in text


def recipes_read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The YAML files that are read from now on."""
    read, text = [], Path.read_text

    def read_text(path: Path, **how: str) -> str:
        if path.suffix == ".yaml":  # not what Python reads of installed packages
            read.append(path)
        return text(path, **how)

    monkeypatch.setattr(Path, "read_text", read_text)
    return read


def test_list_recipes_reads_each_file_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from idbench import recipes

    read = recipes_read(monkeypatch)
    described = list(recipes.described_recipes())
    assert sorted(read) == sorted(recipes.recipe_files().values())
    trainers = {name: trainer for name, trainer, _ in described}
    for name in ("arcface", "stage3"):  # with a trainer of its own, and with that of a base
        assert trainers[name] == recipes.load_recipe(name)[1]["trainer"]


def test_a_recipe_is_checked_against_all_by_reading_each_file_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from idbench import recipes

    name, content = load_recipe("stage3")
    alike = [known for _, known in map(load_recipe, recipes.recipe_files())
             if known["trainer"] == content["trainer"]]
    read = recipes_read(monkeypatch)
    listed, files = [], recipes.recipe_files
    monkeypatch.setattr(recipes, "recipe_files", lambda: (listed.append(1), files())[1])
    assert recipes.check_recipe(name, content) == alike
    assert sorted(read) == sorted(files().values()) and len(listed) == 1


def test_a_recipe_can_extend_another(tmp_path: Path) -> None:
    from idbench.errors import UserError
    from idbench.recipes import load_recipe

    mine = tmp_path / "mine.yaml"
    mine.write_text("extends: stage3\nseed: 99\n")
    name, content = load_recipe(str(mine))
    stage = load_recipe("stage3")[1]
    assert name == "mine" and "extends" not in content and "name" not in content
    assert content == {**{k: v for k, v in stage.items() if k != "name"}, "seed": 99}
    # Those of stage3, of stage2 which it extends, and of base.
    assert content["pairs"]["one"] == "tradeoff" and content["cross"] == 1.0
    assert content["network"] == load_recipe("base")[1]["network"]
    mine.write_text(f"extends: {mine}\n")
    with pytest.raises(UserError, match="extends itself"):
        load_recipe(str(mine))
    mine.write_text("extends: singel\n")
    with pytest.raises(UserError, match="did you mean 'single'"):
        load_recipe(str(mine))
