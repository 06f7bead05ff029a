"""`idbench diff`: how two runs differ, and which samples changed most."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from idbench import measured_files
from idbench.commands import options as opt
from idbench.differences import differences
from idbench.errors import UserError
from idbench.names import choose, one_of
from idbench.output import echo, echo_json, show_table
from idbench.reports import columns

if TYPE_CHECKING:
    from idbench.measurements import Measurement


@click.command()
@click.argument("first", type=opt.PATH)
@click.argument("second", type=opt.PATH)
@opt.compared_option
@click.option("--top", type=opt.COUNT, default=5, help="Samples to show per metric.")
@opt.json_option
def diff(first: Path, second: Path, metrics: tuple[str, ...], top: int, as_json: bool) -> None:
    """Show the settings in which two runs differ, and the samples that changed most.

    FIRST and SECOND are run folders or reference files; their protocols may differ. This command
    does not judge; `idbench check` does.
    """
    before, after = measured_files.read(first), measured_files.read(second)
    found = compare(before, after, metrics, top)
    if as_json:
        echo_json(found)
    else:
        _print(found)


def compare(
    before: Measurement, after: Measurement, metrics: Sequence[str] = (), top: int = 5
) -> dict[str, Any]:
    """JSON value: settings that differ, samples in only one run, and each metric's changes.

    Args:
        metrics: which metrics; empty: the first identity metric that both have, or else the first.
            +NAME adds one to that.
        top: number of samples per metric, largest change first.

    Raises:
        UserError: a metric that is not in both.
    """
    both = [name for name in before.metrics if name in after.metrics]
    chosen = choose(metrics, columns.about(both, "identity")[:1] or both[:1])
    for name in chosen:
        one_of("metric of both runs", name, both)
    if not both:
        raise UserError(
            f"{before.source} and {after.source} have no metric in common; rescore one with "
            "`idbench score RUN`."
        )
    shared = [s for s in before.values.index if s in after.values.index]
    return {
        "first": before.source, "second": after.source,
        "settings": _settings(before, after),
        "samples": {
            "shared": len(shared),
            "only_first": [str(s) for s in before.values.index if s not in after.values.index],
            "only_second": [str(s) for s in after.values.index if s not in before.values.index],
        },
        "metrics": {name: _moved(before, after, shared, name, top) for name in chosen},
    }


def _settings(before: Measurement, after: Measurement) -> list[dict[str, Any]]:
    def part(of: Measurement) -> dict[str, Any]:
        asked = of.identity
        return {
            "system": of.system, "model": asked.model.model_dump(),
            "suite": asked.suite.model_dump(), "split": asked.split, "seed": asked.seed,
            "idbench": of.idbench, **of.scoring.model_dump(),
        }

    return [
        {"setting": where, "first": a, "second": b}
        for where, a, b in differences(part(before), part(after))
    ]


def _moved(
    before: Measurement, after: Measurement, shared: list[Any], name: str, top: int
) -> dict[str, Any]:
    first, second = before.values.loc[shared], after.values.loc[shared]
    change = (second[name] - first[name]).dropna()
    order = change.abs().sort_values(ascending=False, kind="stable").index[:top]
    lost = [str(s) for s in shared if first[name].notna()[s] and second[name].isna()[s]]
    gained = [str(s) for s in shared if first[name].isna()[s] and second[name].notna()[s]]
    return {
        "mean_change": float(change.mean()) if len(change) else None, "paired": len(change),
        "unscored_in_second": lost, "unscored_in_first": gained,
        "most": [
            {"sample": str(s), "identities": list(first["identities"][s]),
             "category": first["category"][s], "prompt_id": first["prompt_id"][s],
             "first": float(first[name][s]), "second": float(second[name][s]),
             "change": float(change[s])}
            for s in order
        ],
    }


def _print(found: dict[str, Any]) -> None:
    def table(rows: list[list[str]], *columns: str) -> None:
        show_table(rows, *columns)
        echo()

    echo(f"first: {found['first']}\nsecond: {found['second']}\n")
    if found["settings"]:
        table([[str(s[k]) for k in ("setting", "first", "second")] for s in found["settings"]],
              "setting", "first", "second")
    else:
        echo("Settings, protocol and weights are the same.\n")
    samples = found["samples"]
    echo(
        f"{samples['shared']} samples in both, {len(samples['only_first'])} only in the first, "
        f"{len(samples['only_second'])} only in the second.\n")
    for name, moved in found["metrics"].items():
        mean = "" if moved["mean_change"] is None else f"; mean change {moved['mean_change']:+.3f}"
        echo(f"{columns.plain_title(name)}: {moved['paired']} samples scored in both{mean}")
        for key, place in (("unscored_in_second", "second"), ("unscored_in_first", "first")):
            if moved[key]:
                echo(f"  unscored only in the {place}: {', '.join(moved[key][:5])}"
                              f"{' ...' if len(moved[key]) > 5 else ''}")
        table([[m["sample"], "+".join(m["identities"]), m["category"], m["prompt_id"],
                f"{m['first']:.3f}", f"{m['second']:.3f}", f"{m['change']:+.3f}"]
               for m in moved["most"]],
              "sample", "identities", "category", "prompt", "first", "second", "change")
