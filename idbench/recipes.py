"""Training recipes: short YAML files, each naming the function that trains by it.

    extends: base                                    # a recipe whose settings are the defaults
    trainer: idbench.models.concat_id.vae:train      # (recipe, state_dir, resume, evaluate)
    description: ...
    ...                                              # what that function reads

A recipe can only name the trainer of an installed recipe, or one that a package registers under
the entry-point group `idbench.trainers`. A trainer whose recipe has a class of its own checks the
values there; for all others the installed recipes of the same trainer are the examples of what
kinds of values it reads.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from itertools import takewhile
from pathlib import Path
from typing import Any

from idbench import yaml_text
from idbench.errors import UserError, explained
from idbench.names import one_of, unknown

PACKAGES = ("idbench.models.concat_id", "idbench.baselines", "idbench.metrics", "idbench.prompts")
"""Packages with a folder `recipes`."""
FROM_ZERO = ("seed", "warmup", "decoder_steps", "attributes_alone", "first")
"""Whole numbers that may be 0; all others count from 1."""
OPTIONAL = ("start",)
"""Texts that may be null."""
WHOLE = ("network", "data", "validation", "clips")
"""Mappings that need every field of the examples but `DEFAULTED`."""
DEFAULTED = ("first", "frames", "pairs", "height", "width", "looks", "group", "version")
"""Fields with a default: see `Settings` of `metrics.training.rendered_data`."""

Trainer = Callable[[dict[str, Any], Path, bool, bool], Mapping[str, Any]]


def recipe_files() -> dict[str, Path]:
    """The installed recipes by name (the file's name without suffix)."""
    found: dict[str, Path] = {}
    for package in PACKAGES:
        folder = Path(str(importlib.import_module(package).__file__)).parent / "recipes"
        for path in sorted(folder.glob("*.yaml")):
            if path.stem in found:
                raise UserError(
                    f"Two recipes are named {path.stem!r}: {found[path.stem]} and {path}; rename "
                    "one."
                )
            found[path.stem] = path
    return dict(sorted(found.items()))


def load_recipe(name_or_path: str) -> tuple[str, dict[str, Any]]:
    """Name and content of an installed recipe, or of a YAML file of your own. Raises UserError:
    unknown, not YAML, no `trainer`, or recipes that extend each other."""
    return _load(name_or_path, recipe_files(), _read)


def _load(
    name_or_path: str, installed: Mapping[str, Path], read: Callable[[Path], dict[str, Any]],
    children: tuple[str, ...] = (),
) -> tuple[str, dict[str, Any]]:
    """`load_recipe`. `children`: recipes that extend it; `read`: gives the content of a file."""
    if name_or_path in children:
        raise UserError(f"The recipe {name_or_path!r} extends itself; remove one line `extends`.")
    if name_or_path in installed:
        path = installed[name_or_path]
    elif name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
    else:
        raise unknown("recipe", name_or_path, installed)
    content = dict(read(path))
    if "extends" in content:
        parent = str(content.pop("extends"))
        _, base = _load(parent, installed, read, (*children, name_or_path))
        base.pop("name", None)
        content = {**base, **content}
    if ":" not in str(content.get("trainer", "")):
        raise UserError(
            f"The recipe {path} names no trainer; add a line such as "
            "`trainer: idbench.models.concat_id.vae:train`."
        )
    return path.stem, content


def described_recipes() -> Iterator[tuple[str, str, str]]:
    """Name, trainer and description of each installed recipe. The description is the file's
    `description`, or the first sentence of the comment that it begins with; not that of a recipe
    it extends."""
    texts = {name: path.read_text(encoding="utf-8") for name, path in recipe_files().items()}
    read = {name: yaml_text.parse(text) for name, text in texts.items()}
    for name, text in texts.items():
        content = read[name]
        named = str(content.get("description", "")) or _first_sentence(text)
        while "trainer" not in content:
            content = read[content["extends"]]
        yield name, content["trainer"], " ".join(named.split()).removesuffix(".")


def _first_sentence(text: str) -> str:
    """Of the comment that a file begins with."""
    top = takewhile(lambda line: line.startswith("#"), text.splitlines())
    return re.split(r"(?<=\.)\s", " ".join(line.lstrip("# ") for line in top))[0]


def _read(path: Path) -> dict[str, Any]:
    recipe = yaml_text.read(path, f"The recipe {path}")
    if not isinstance(recipe, dict):
        raise UserError(f"The recipe {path} has no settings such as `steps: 100`; correct it.")
    return recipe


def check_recipe(name: str, recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Check what decides which code runs and which file is written; returns the installed recipes
    of its trainer. Raises UserError: the trainer is not registered, `entry` names no embedded
    weights, or `steps` is not a positive whole number."""
    files, once = recipe_files(), cache(_read)  # many recipes extend the same one
    installed = [_load(known, files, once)[1] for known in files]
    others = entry_points(group="idbench.trainers")
    trainers = {*(r["trainer"] for r in installed), *(point.value for point in others)}
    one_of(f"trainer of the recipe {name!r}", str(recipe.get("trainer")), trainers)
    entries = {str(r["entry"]) for r in installed if "entry" in r}
    if "entry" in recipe:
        one_of(f"entry of the recipe {name!r}", str(recipe["entry"]), entries)
    steps = recipe.get("steps", 1)
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise UserError(f"The recipe {name!r} has steps {steps!r}; use a whole number from 1.")
    return [known for known in installed if known["trainer"] == recipe["trainer"]]


def load_trainer(name: str, recipe: Mapping[str, Any]) -> Trainer:
    """The function that a recipe names. Raises UserError: see `check_recipe` and `check_values`; or
    it cannot be imported."""
    examples = check_recipe(name, recipe)
    what = f"The trainer {recipe['trainer']} of the recipe {name!r} cannot be loaded"
    with explained(what, "reinstall its package"):
        found: Trainer = pkgutil.resolve_name(recipe["trainer"])
    if not hasattr(found, "settings"):  # else it checks them itself
        check_values(f"the recipe {name!r}", recipe, examples)
    return found


def check_values(
    name: str, recipe: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]
) -> None:
    """Check each value of the recipe `name` against those that `examples` have for it. Raises
    UserError: another kind of value, a number that is negative or not finite, or a mapping without
    a field that it needs."""
    for key, value in recipe.items():
        known = [example[key] for example in examples if key in example]
        if not known or (value is None and key in OPTIONAL):
            continue
        wanted = _wanted(key, value, known)
        if wanted:
            raise UserError(f"{key} of {name} must be {wanted}, not {str(value)[:80]!r}.")
        if isinstance(value, Mapping) and key in WHOLE:
            missing = set.intersection(*map(set, known)) - {*value, *DEFAULTED}
            if missing:
                raise UserError(f"{key} of {name} lacks {', '.join(sorted(missing))}; add it.")
            check_values(f"{key} of {name}", value, known)


def _wanted(key: str, value: Any, known: Sequence[Any]) -> str | None:
    """What the value should be instead; None: it is right."""
    kinds = {type(example) for example in known}
    if kinds <= {int, float}:
        least = 1 if kinds == {int} and key not in FROM_ZERO else 0
        right = isinstance(value, int | float) and not isinstance(value, bool) and (
            math.isfinite(value) and least <= value < 2**63)
        if kinds == {int}:
            return None if right and value == int(value) else f"a whole number from {least}"
        return None if right else "a number from 0"
    if not isinstance(value, tuple(kinds)):
        return {str: "a text", bool: "true or false", dict: "a mapping", list: "a list"}[
            type(known[0])]
    return None if value or isinstance(value, bool) else "non-empty"
