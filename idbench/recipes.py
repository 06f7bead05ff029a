"""Training recipes: short YAML files, each naming the function that trains by it.

    trainer: idbench.models.concat_id.train:train      # (recipe, state_dir, resume, evaluate)
    description: ...
    ...                                                # what that function reads
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from idbench.errors import UserError
from idbench.names import unknown

PACKAGES = ("idbench.models.concat_id", "idbench.metrics", "idbench.prompts")
"""Packages with a folder `recipes`."""

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
    """Name and content of an installed recipe, or of a YAML file of your own.

    Raises:
        UserError: unknown recipe (says the nearest), no YAML, or no `trainer`.
    """
    installed = recipe_files()
    if name_or_path in installed:
        path = installed[name_or_path]
    elif name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path)
        if not path.is_file():
            raise UserError(f"The recipe {path} is missing; check the path.")
    else:
        raise unknown("recipe", name_or_path, installed)
    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(f"The recipe {path} is not text in UTF-8; save it as such.") from error
    except yaml.YAMLError as error:
        where = " ".join(str(error).split())
        raise UserError(f"The recipe {path} is no valid YAML ({where}); correct it.") from error
    if not isinstance(recipe, dict) or ":" not in str(recipe.get("trainer", "")):
        raise UserError(
            f"The recipe {path} names no trainer; add a line such as "
            "`trainer: idbench.models.concat_id.train:train`."
        )
    return path.stem, recipe


def load_trainer(name: str, recipe: Mapping[str, Any]) -> Trainer:
    """The function that the recipe names.

    Raises:
        UserError: it cannot be imported.
    """
    module, _, attribute = str(recipe["trainer"]).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"The trainer {recipe['trainer']} of the recipe {name!r} cannot be loaded ({error}); "
            "correct the recipe's line `trainer`."
        ) from error
