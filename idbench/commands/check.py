"""`idbench check`: did a run get worse than its reference?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from idbench import bundles, gate, gate_output, measured_files
from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.files import check_output, write_text
from idbench.names import choose
from idbench.output import echo, echo_json
from idbench.runs import Run

if TYPE_CHECKING:
    from idbench.measurements import Measurement


@click.command()
@click.argument("run", type=opt.PATH)
@click.option("--against", metavar="REF", type=opt.PATH,
              help="A run folder, or a reference file written by --update.")
@click.option("--update", metavar="FILE", type=opt.FILE,
              help="Write RUN's values to this reference file, ready to commit; checks nothing.")
@click.option(
    "--embeddings", is_flag=True,
    help="With --update, also write the cached embeddings (.zip). Passed as RUN, they are rescored "
         "by the installed metrics, without videos or networks.",
)
@click.option("--tolerance", multiple=True, metavar="[METRIC=]NUMBER",
              help="Largest drop of a mean that always passes (default: 0.01). Repeatable.")
@click.option("--coverage-tolerance", type=click.FloatRange(0, 1), default=0.0,
              help="Share of samples that may become unscored.")
@opt.compared_option
@click.option(
    "--allow", multiple=True, metavar="NAME",
    help="Allow a difference in suite, split, protocol, weights, detector, missing or coverage. "
         "Repeatable.",
)
@click.option("--resamples", type=click.IntRange(2000, 1_000_000), default=4000,
              help="Bootstrap resamples for the intervals.")
@click.option("--junit", metavar="FILE", type=opt.FILE, help="Also write JUnit XML.")
@click.option("--markdown", metavar="FILE", type=opt.FILE,
              help="Also write Markdown, such as for a CI job summary.")
@opt.json_option
def check(
    run: Path, against: Path | None, update: Path | None, embeddings: bool,
    tolerance: tuple[str, ...], coverage_tolerance: float, metrics: tuple[str, ...],
    allow: tuple[str, ...], resamples: int, junit: Path | None, markdown: Path | None,
    as_json: bool,
) -> int:
    """Compare RUN with a reference on the samples they share.

    A metric regressed if its mean fell by more than the tolerance and the 95% interval of the
    paired difference (bootstrap over identities) excludes 0. Lost samples, metrics or coverage
    fail too. Runs with another suite, protocol, detector or scoring weights cannot be compared.

    Exit codes: 0 passed, 1 regressed, 2 cannot be compared or usage error.
    """
    if embeddings and update is None:
        raise UserError("--embeddings needs --update FILE.")
    if (against is None) == (update is None):
        raise UserError(
            "Pass --against REF to check the run, or --update FILE to make it the reference."
        )
    for path, kind in ((update, "reference"), (junit, "JUnit file"),
                       (markdown, "Markdown summary")):
        if path is not None:
            check_output(path, kind)
    measured = measured_files.read(run)
    if update is not None:
        _update(run, update, measured, embeddings, as_json)
        return gate.HELD
    assert against is not None
    reference = measured_files.read(against)
    judged = gate.judged(reference)
    if run.suffix == ".zip":  # a bundle has embeddings, so no metric that needs pixels
        judged = [name for name in judged if name in measured.metrics]
    general, special = gate.parse_tolerances(tolerance)
    verdict = gate.check(
        measured, reference, tolerance=general, tolerances=special,
        coverage_tolerance=coverage_tolerance, metrics=choose(metrics, judged), allow=allow,
        resamples=resamples,
    )
    if junit:
        gate_output.write_junit(junit, verdict)
    if markdown:
        write_text(markdown, gate_output.markdown(verdict))
    if as_json:
        echo_json(verdict.as_dict())
    else:
        echo(gate_output.summary(verdict))
    return verdict.code


def _update(
    run: Path, target: Path, measured: Measurement, embeddings: bool, as_json: bool
) -> None:
    """Write the reference file and, next to it, the cached embeddings."""
    bundle = target.with_suffix(".embeddings.zip")
    if embeddings:
        check_output(bundle, "embeddings")
    measured_files.write_reference(target, measured)
    written = [target]
    if embeddings:
        written.append(bundle)
        bundles.write(bundle, Run.open(run))
    if as_json:
        echo_json({"samples": len(measured.values),
                   "files": {str(path): path.stat().st_size for path in written}})
        return
    for path in written:
        size = path.stat().st_size / 1e3
        echo(f"Reference: {path}, {len(measured.values)} samples, {size:.0f} kB")
