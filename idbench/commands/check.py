"""`idbench check`: has a run become worse than its reference?"""

from __future__ import annotations

import json
from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.errors import UserError


@click.command(short_help="Fail when a run is worse than a reference: the gate for CI.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--against", metavar="REF", type=click.Path(path_type=Path),
    help="A run folder, or a reference file that --update wrote.",
)
@click.option(
    "--update", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Write RUN's values to this reference file, to be committed; checks nothing.",
)
@click.option(
    "--tolerance", multiple=True, metavar="[METRIC=]NUMBER",
    help="Largest drop of a mean that always holds (0.01 where none is given). May be repeated.",
)
@click.option(
    "--coverage-tolerance", type=click.FloatRange(0, 1), default=0.0, show_default=True,
    help="Share of the samples that may become unscored.",
)
@opt.metric_option
@click.option(
    "--allow", multiple=True, metavar="NAME",
    help="Let this differ: suite, split, protocol, weights, detector, missing or coverage. May "
         "be repeated.",
)
@click.option(
    "--resamples", type=click.IntRange(min=2000), default=4000, show_default=True,
    help="Bootstrap resamples of the intervals.",
)
@click.option(
    "--junit", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Also write JUnit XML.",
)
@click.option(
    "--markdown", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False),
    help="Also write Markdown, for the summary of a CI job.",
)
@opt.json_option
def check(
    run: Path, against: Path | None, update: Path | None, tolerance: tuple[str, ...],
    coverage_tolerance: float, metrics: tuple[str, ...], allow: tuple[str, ...], resamples: int,
    junit: Path | None, markdown: Path | None, as_json: bool,
) -> int:
    """Hold RUN against a reference, on the samples that both have.

    A metric regressed when its mean fell by more than the tolerance and the 95 % interval of the
    paired difference (bootstrap over identities) excludes 0. Lost samples, metrics or coverage
    fail too; another suite, protocol, detector or other scoring weights cannot be compared.

    Exit code 0: held; 1: regressed; 2: cannot be compared, or a mistake that the message mends.
    """
    from idbench import gate, gate_output, gate_reference, measurements
    from idbench.files import write_text

    if (against is None) == (update is None):
        raise UserError(
            "Give --against REF to check the run, or --update FILE to make it the reference."
        )
    measured = measurements.read(run)
    if update is not None:
        gate_reference.write(update, measured)
        size = update.stat().st_size / 1e3
        if as_json:
            click.echo(json.dumps({"reference": str(update), "samples": len(measured.values)}))
        else:
            click.echo(f"Reference: {update}, {len(measured.values)} samples, {size:.0f} kB")
        return gate.HELD
    assert against is not None
    general, special = gate.parse_tolerances(tolerance)
    verdict = gate.check(
        measured, measurements.read(against), tolerance=general, tolerances=special,
        coverage_tolerance=coverage_tolerance, metrics=metrics, allow=allow, resamples=resamples,
    )
    if junit:
        gate_output.write_junit(junit, verdict)
    if markdown:
        write_text(markdown, gate_output.markdown(verdict))
    if as_json:
        click.echo(json.dumps(verdict.as_dict(), indent=2))
    else:
        click.echo(gate_output.summary(verdict))
    return verdict.code
