"""The end of `run` and `score`: score what has no scores, store times and counts, say it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import click

from idbench import output, provenance, scoring
from idbench.errors import UserError
from idbench.measurements import metric_weight_differences
from idbench.registry import BEYOND, METRICS
from idbench.runs import Run
from idbench.timings import Timings


@dataclass(frozen=True)
class Scoring:
    """What is scored: the protocol, the names of the metrics, and with whose weights.

    Attributes:
        weights: as given on the command line, NETWORK=SOURCE.
        sources: network -> where its weights come from.
    """

    protocol: Any
    metrics: tuple[str, ...]
    weights: tuple[str, ...] = ()
    sources: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, protocol: str, metrics: Sequence[str], weights: Sequence[str] = ()
    ) -> Scoring:
        """By the names on the command line.

        No metrics means all that the protocol defines, but those of `BEYOND`; `+NAME` is one
        besides the others.

        Raises:
            UserError: an unknown protocol or metric (says the nearest), one that the protocol
                does not define, or weights that are not there.
        """
        from idbench.metrics.networks.sources import parse
        from idbench.metrics.protocols import defined, get_protocol

        sources = parse(weights)
        found = get_protocol(protocol)
        besides = [name[1:] for name in metrics if name.startswith("+")]
        only = [name for name in metrics if not name.startswith("+")]
        for name in [*only, *besides]:
            METRICS.target(name)
            if not found.defines(name):
                raise UserError(
                    f"The protocol {found.name} does not define {name}; it defines "
                    f"{', '.join(defined(found, METRICS.targets()))}."
                )
        usual = [name for name in METRICS.targets() if name not in BEYOND]
        chosen = dict.fromkeys([*(only or usual), *besides])
        return cls(found, defined(found, chosen), tuple(weights), sources)

    @property
    def key(self) -> dict[str, Any]:
        """Everything that moves a score apart from the video."""
        protocol = json.loads(json.dumps(self.protocol.as_dict()))
        return scoring.scoring_key(protocol, self.metrics, self.sources or None)

    def check(self, run: Run) -> None:
        """Refuse to mix protocols or weights in one folder.

        Raises:
            UserError: the run is scored under another protocol, or with other weights.
        """
        before, key = run.meta.get("scoring") or {}, self.key
        stored = before.get("protocol")
        if stored and stored != key["protocol"]:
            raise UserError(
                f"{run.folder} is scored under the protocol {stored['name']}, asked for is "
                f"{self.protocol.name}; score it again with `idbench score {run.folder} "
                f"--protocol {self.protocol.name}`, or name another folder with --out."
            )
        known = before.get("weights") or {}
        other = [n for n, w in key["weights"].items() if known.get(n, w) != w]
        other += [place for place, *_ in metric_weight_differences(before, key)]
        if before.get("detector", key["detector"]) != key["detector"]:
            other.append("detector")
        if other:
            given = "".join(f" --weights {shlex.quote(text)}" for text in self.weights)
            raise UserError(
                f"{run.folder} is scored with other weights ({', '.join(other)}); score all of it "
                f"again with `idbench score {run.folder}{given}`, or name another folder with "
                "--out."
            )


@contextmanager
def finish(
    run: Run, timings: Timings, asked: Scoring | None, ids: Sequence[str], as_json: bool,
) -> Iterator[None]:
    """After the block: score as `asked`, collect, print. On an error: keep times and state."""
    try:
        yield
        if asked:
            key = asked.key
            todo = scoring.pending(run, ids, key)
            scoring.score(run, todo, asked.protocol, key, timings, as_json, asked.sources or None)
            scoring.collect(run)
    except BaseException:
        # A full disk must not hide behind the failure to write this.
        with suppress(UserError, OSError):
            run.save(status="interrupted", timings=timings.as_dict())
        raise
    records = [data for data in map(run.sample_file, run.sample_ids) if data is not None]
    failed = [data for data in records if data["status"] == "failed"]
    counts = {
        "planned": len(run.sample_ids), "generated": len(records) - len(failed),
        "failed": len(failed),
    }
    changes: dict[str, Any] = {
        "status": "finished" if len(records) == len(run.sample_ids) else "interrupted",
        "timings": timings.as_dict(), "counts": counts,
        "hardware": {**run.meta["hardware"], **provenance.hardware()},
    }
    peak = provenance.peak_memory_gb()
    if peak and peak > run.meta.get("peak_memory_gb", 0):
        changes["peak_memory_gb"] = peak
    run.save(**changes)
    _say(run, failed, as_json, asked is not None)
    if failed and len(failed) == len(records):
        raise UserError(
            f"All {len(failed)} samples failed, the first because {failed[0]['reason']}; mend that "
            f"and run it again{' with --retry-failed' if run.generates else ''}."
        )


def _say(run: Run, failed: Sequence[Any], as_json: bool, scored: bool) -> None:
    from idbench.reports import tables

    if as_json:
        table = json.loads(tables.render(tables.measured([run]), "json")) if scored else None
        click.echo(json.dumps({
            "run": str(run.folder), "counts": run.meta["counts"], "timings": run.meta["timings"],
            "peak_memory_gb": run.meta.get("peak_memory_gb"), "table": table,
        }, indent=2))
        return
    if scored:
        click.echo(tables.render(tables.measured([run]), "md"))
    if failed:
        hint = f" --retry-failed tries them again; see {run.folder}/errors.log."
        click.echo(
            f"{len(failed)} of {len(run.sample_ids)} samples failed, the first because "
            f"{failed[0]['reason']}.{hint if run.generates else ''}"
        )
    if output.level() == output.QUIET:
        return
    times = run.meta["timings"]
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in times.items())
    peak = run.meta.get("peak_memory_gb")
    memory = f"; at most {peak} GB of memory" if peak else ""
    click.echo(f"Seconds: {parts}; in all {sum(times.values()):.1f}{memory}.")
    click.echo(f"Run folder: {run.folder}")
