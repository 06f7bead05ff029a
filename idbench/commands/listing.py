"""`idbench list`: models, metrics, suites and so on, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.names import one_of
from idbench.output import console, echo, echo_json, note, show_table, visible
from idbench.prompts import suite_names
from idbench.recipes import described_recipes

if TYPE_CHECKING:
    from idbench.suite import Suite

Rows = list[dict[str, Any]]


ANY = 100
"""A model that takes this many people takes any number."""


def model_rows(suite: str, **_: Any) -> Rows:
    """One row a model: what it can do in a suite, its licence and the extra that it needs."""
    from idbench.registry import MODELS
    from idbench.suite import load_suite

    loaded = load_suite(suite)
    return [_model_row(name, loaded) for name in MODELS.targets()]


def model_details(name: str, suite: str) -> dict[str, Any]:
    """The row of one model, its settings with their defaults, and an example.
    Raises UserError: unknown name, or it cannot be imported."""
    from idbench.registry import MODELS, abilities_of, settings_of
    from idbench.suite import load_suite

    row = _model_row(name, load_suite(suite))
    model = MODELS.load(name)
    can, usual = abilities_of(name), dict(getattr(model, "DEFAULTS", {}))
    split = next((s for s in row["splits"].split(", ") if s != "?"), "single")
    weights = getattr(model, "ENTRY", None)
    return {
        **row, "description": (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " "),
        "limits": can.why if can else "",
        "variants": ", ".join(getattr(model, "VARIANTS", ())),
        "released weights": f"idbench weights get {weights}" if weights else "",
        "settings": {key: usual.get(key, value) for key, value in settings_of(model).items()},
        "example": f"idbench run --model {name} --split {split}",
    }


def _model_row(name: str, suite: Suite) -> dict[str, Any]:
    from idbench.registry import MODELS, abilities_of

    target, problem, splits, people = MODELS.target(name), {}, "?", "?"
    try:
        can = abilities_of(name)
    except UserError as error:  # one broken package does not hide the other models
        can, problem = None, {"problem": str(error)}
    if can is not None:
        firsts = {split: suite.samples(split, 1) for split in suite.splits}
        splits = ", ".join(s for s, first in firsts.items() if not any(map(can.refusal, first)))
        fewest, most = can.people
        people = "any" if most >= ANY else str(most) if fewest == most else f"{fewest}-{most}"
    return {
        "model": name, "splits": splits, "people": people,
        "licence": can.licence if can else "", "extra": can.extra or "" if can else "",
        "package": f"{target.distribution} {target.version}", "where": target.address, **problem,
    }


def _metrics(**_: Any) -> Rows:
    from idbench.registry import METRICS

    rows = []
    for name, metric in METRICS.usable():
        rows.append({
            "metric": name, "title": metric.title,
            "computed": {
                "named": "when named", "listed": "by protocols",
            }.get(metric.computed, "always"),
            "better": "higher" if metric.higher_is_better else "lower",
            "range": f"{metric.range[0]:g}..{metric.range[1]:g}", "formula": metric.formula,
            "source": metric.source, "package": METRICS.target(name).distribution,
        })
    return rows


def _suites(**_: Any) -> Rows:
    from idbench.suite import load_suite

    return [
        {
            "suite": suite.name, "version": suite.version,
            "splits": ", ".join(f"{name} {count}" for name, count in suite.splits.items()),
            "licence": suite.licence, "description": suite.description,
        }
        for suite in map(load_suite, suite_names())
    ]


def _protocols(**_: Any) -> Rows:
    from idbench.metrics.protocols import PROTOCOLS

    return [
        {
            "protocol": p.name, "summary": p.summary, "metrics": ", ".join(p.metrics) or "all",
            # Scored runs store descriptions, so a former default cannot change what it says.
            "description": p.description.removeprefix("The default: "), "source": p.source,
        }
        for p in PROTOCOLS.values()
    ]


def _weights(**_: Any) -> Rows:
    from idbench.embedded import entries, stored_path

    rows = []
    for name, entry in entries().items():
        path = stored_path(name)
        size = f"{path.stat().st_size / 1e6:.1f}" if path.is_file() else "missing"
        measured = ", ".join(
            f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in entry["measured"].items() if isinstance(v, int | float | str)
        )
        rows.append({
            "weights": name, "file": entry["file"], "MB": size, "parameters": entry["parameters"],
            "recipe": entry["recipe"], "steps": entry["steps"], "sha256": entry["sha256"][:12],
            "measured": measured,
        })
    return rows


def _recipes(**_: Any) -> Rows:
    return [
        {"recipe": name, "trainer": trainer, "description": description}
        for name, trainer, description in described_recipes()
    ]


def _schemas(**_: Any) -> Rows:
    from idbench.schemas import MODELS, json_schema

    return [
        {"schema": name, "version": version, "describes": (model.__doc__ or "").splitlines()[0],
         "json_schema": json_schema(name)}
        for name, (version, model) in MODELS.items()
    ]


def _samples(suite: str, split: str | None, limit: int | None, seed: int) -> Rows:
    from idbench.suite import load_suite

    if not split:
        raise UserError("`idbench list samples` needs --split, such as --split single.")
    return [
        {
            "id": s.id, "category": s.category, "seed": s.seed,
            "references": [str(r.image) for r in s.references],
            "kinds": [r.kind for r in s.references], "prompt": s.prompt,
        }
        for s in load_suite(suite).samples(split, limit, seed)
    ]


KINDS: dict[str, Callable[..., Rows]] = {
    "models": model_rows, "metrics": _metrics, "suites": _suites, "protocols": _protocols,
    "weights": _weights, "recipes": _recipes, "samples": _samples,
    "schemas": _schemas,
}


IN_FULL = {
    "models": ("licence", "package", "where"), "suites": ("licence", "description"),
    "metrics": ("range", "formula", "source", "package"),
    "protocols": ("metrics", "description", "source"), "weights": ("file", "sha256", "measured"),
    "samples": ("references",), "recipes": ("trainer",),
}
"""Columns that are only shown with NAME or --json."""
HINTS = {
    "metrics": "`--metric +NAME` adds one to those that are always computed.",
    "weights": "The published ones are in `idbench weights list`.",
}


@click.command("list")
@click.argument(
    "kind", metavar="|".join(KINDS), shell_complete=opt.completing(lambda _: list(KINDS))
)
@click.argument("name", required=False)
@click.option("--split", shell_complete=opt.split_names, help="For `samples`: the split.")
@opt.sharing(opt.suite_option, opt.limit_option, opt.seed_option, opt.json_option)
def listing(
    kind: str, name: str | None, split: str | None, suite: str, limit: int | None, seed: int,
    as_json: bool,
) -> None:
    """List models, metrics and so on, or with NAME show one of them in full.

    `samples` lists what a system must generate for a split.
    """
    one_of("list", kind, KINDS)
    if name is not None and kind == "models":
        rows = [model_details(name, suite)]
    else:
        rows = KINDS[kind](suite=suite, split=split, limit=limit, seed=seed)
    if name is not None:
        _show_one(kind, name, rows, as_json)
        return
    if as_json:
        echo_json(rows)
        return
    if not rows:
        echo(f"There are no {kind}.")
        return
    # Nested values are only printed with --json.
    columns = [
        name for name, value in rows[0].items()
        if not isinstance(value, dict) and name not in IN_FULL.get(kind, ())
    ]
    cells = ([", ".join(row[name]) if isinstance(row[name], list) else str(row[name])
              for name in columns] for row in rows)
    show_table(cells, *columns, one_line=True)
    if kind in IN_FULL:
        note(f"`idbench list {kind} NAME` shows one in full, --json all.")
    if kind in HINTS:
        note(HINTS[kind])


def _show_one(kind: str, name: str, rows: Rows, as_json: bool) -> None:
    """Print the row of `name`, one line a column. Raises UserError: there is no such row."""
    found = {str(next(iter(row.values()))): row for row in rows}
    one_of(kind.removesuffix("s"), name, found)
    row = found[name]
    if as_json:
        echo_json(row)
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for column, value in row.items():
        if isinstance(value, dict):
            value = "\n".join(f"{key}={'' if v is None else v}" for key, v in value.items())
        if value not in ("", None, []):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            table.add_row(column, visible(text))
    console(120).print(table)
