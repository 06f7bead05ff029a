"""The models as `idbench list models` shows them: what each can do, its licence, its settings."""

from __future__ import annotations

import inspect
from typing import Any

from idbench.errors import UserError
from idbench.registry import MODELS, Target, abilities_of, settings_of
from idbench.suite import Suite, load_suite
from idbench.types import Abilities

ANY = 100
"""A model that takes this many people takes any number."""


def rows(suite: str) -> list[dict[str, Any]]:
    """One row a model: what it can do in a suite, its licence and the extra that it needs."""
    loaded = load_suite(suite)
    return [_row(name, target, loaded) for name, target in MODELS.targets().items()]


def details(name: str, suite: str) -> dict[str, Any]:
    """The row of one model, its settings with their defaults, and an example.
    Raises UserError: unknown name, or it cannot be imported."""
    row = _row(name, MODELS.target(name), load_suite(suite))
    model = MODELS.load(name)
    can, usual = abilities_of(name), dict(getattr(model, "DEFAULTS", {}))
    split = next((s for s in row["splits"].split(", ") if s != "?"), "single")
    weights = getattr(model, "ENTRY", None)
    return {
        **row, "description": (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " "),
        "limits": can.why if can else "",
        "variants": ", ".join(getattr(model, "VARIANTS", ())),
        "released weights": f"idbench weights get {weights}" if weights else "",
        "settings": {
            setting: usual.get(setting, default)
            for setting, default in settings_of(model).items()
        },
        "example": f"idbench run --model {name} --split {split}",
    }


def _row(name: str, target: Target, suite: Suite) -> dict[str, Any]:
    try:
        can, problem = abilities_of(name), ""
    except UserError as error:  # one broken package does not hide the other models
        can, problem = None, str(error)
    return {
        "model": name, "splits": _splits(can, suite), "people": _people(can),
        "licence": can.licence if can else "", "extra": can.extra or "" if can else "",
        "package": f"{target.distribution} {target.version}", "where": target.address,
        **({"problem": problem} if problem else {}),
    }


def _splits(can: Abilities | None, suite: Suite) -> str:
    """The splits of `suite` whose samples the model can make, by the first sample of each."""
    if can is None:
        return "?"
    first = {name: suite.samples(name, 1) for name in suite.splits}
    return ", ".join(n for n, samples in first.items() if not any(map(can.refusal, samples)))


def _people(can: Abilities | None) -> str:
    if can is None:
        return "?"
    fewest, most = can.people
    if most >= ANY:
        return "any"
    return str(most) if fewest == most else f"{fewest}-{most}"
