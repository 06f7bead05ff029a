"""`idbench suites`: import a suite of your own, or check one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np

from idbench.commands import options as opt
from idbench.errors import UserError
from idbench.files import check_new_folder, check_output, real
from idbench.importing import layouts
from idbench.importing.assemble import import_suite
from idbench.importing.draw import Options
from idbench.importing.faces import Face, FaceReader, find_alike, open_picture, write_embeddings
from idbench.importing.layouts import read_source
from idbench.importing.sources import PICTURES, Source, safe_name
from idbench.names import one_of
from idbench.output import echo, echo_json, note
from idbench.progress import steps
from idbench.suite import load_suite
from idbench.types import Reference

_pack = click.option(
    "--pack", type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder of an insightface pack (detection and recognition). Default: MTCNN and the "
    "embedded ArcFace, which is trained on avatars.",
)


@click.group()
def suites() -> None:
    """Import a suite from your own photographs and prompts, or check one."""


_people = click.option(
    "--people", type=opt.COUNT,
    help="Draw so many people, by --seed. Default: all; for consisid-bench the paper's 97.",
)
_seed = click.option(
    "--seed", type=opt.SEED, default=0,
    help="Seed of the random draw of people, prompts and pairs.",
)
_several = click.option(
    "--several", type=click.Choice(["drop", "largest"]), default="drop",
    help="If a reference has several faces, drop the person or use the largest face.",
)


@suites.command("import", short_help="Make a suite from a folder of references and prompts.")
@click.argument("folder", type=opt.PATH)
@click.option("--out", type=opt.PATH, help="Folder of the new suite.")
@click.option("--name", help="Name of the suite; the seed is appended. Default: FOLDER's name.")
@click.option("--layout", default="auto",
              help="own, consisid (ConsisID-Benchmark) or opens2v (OpenS2V-Eval).")
@_seed
@_people
@click.option(
    "--pairs", type=click.IntRange(min=0), default=14,
    help="Pairs (and triples) to draw for prompts of two (and three) people, without a pairs.csv.",
)
@_several
@click.option(
    "--training-embeddings", "training", type=opt.PATH,
    help="Embeddings of a training set (see `idbench suites embed`); people too close are dropped.",
)
@click.option("--maximum-cosine", type=click.FloatRange(-1, 1), default=0.45,
              help="Drop people whose cosine to the training set is higher; 0.45 is the paper's.")
@click.option("--version", default="1.0", help="The suite's version.")
@click.option("--licence", default="not stated", show_default=False,
              help="Licence of the images and prompts.")
@opt.sharing(_pack, opt.json_option)
def import_(
    folder: Path, out: Path | None, name: str | None, layout: str, pack: Path | None,
    as_json: bool, **how: Any,
) -> None:
    """Make a versioned suite with checksums from a folder of references and prompts.

    \b
    FOLDER/NAME/*.jpg  or references.csv (name, image)
    FOLDER/prompts.csv (prompt, category, people)  or prompts.txt
    FOLDER/pairs.csv   (left, right), optional
    or a download of ConsisID-Benchmark or OpenS2V-Eval.

    Only use photographs of people who agreed to it; see docs/responsible-use.md. `idbench suites
    get` downloads the last two.
    """
    options = Options(safe_name(name or real(folder).name), **how)
    _import(read_source(folder, layout), options, out, pack, as_json)


@suites.command(short_help="Download a published benchmark's pictures and prompts as a suite.")
@click.argument("name", metavar="consisid-bench|opens2v-eval")
@click.option("--out", type=opt.PATH, help="Folder of the new suite.")
@opt.sharing(_seed, _people, _several, _pack, opt.json_option)
def get(
    name: str, out: Path | None, seed: int, people: int | None, several: str, pack: Path | None,
    as_json: bool,
) -> None:
    """Download the pictures and prompts of a published benchmark and import them.

    The videos of the data sets are left out. consisid-bench: the paper's 97 references, each with a
    prompt of every category, drawn by --seed, since the paper's own draw is not published.
    opens2v-eval: its own pairs of pictures and prompts.
    """
    one_of("benchmark", name, layouts.BENCHMARKS)
    chosen = layouts.BENCHMARKS[name]
    out = out or Path("suites") / f"{name}-seed{seed}"
    check_new_folder(out)  # before the download
    note(f"{name} ({chosen.repository}): licence {chosen.licence}. {layouts.REAL_PEOPLE}")
    source = read_source(layouts.download(chosen, name), chosen.layout)
    options = Options(
        name, licence=chosen.licence, seed=seed, several=several,
        people=people or chosen.people,
    )
    _import(source, options, out, pack, as_json)


def _import(
    source: Source, options: Options, out: Path | None, pack: Path | None, as_json: bool
) -> None:
    """Make the suite and say what became of it."""
    target = out or Path("suites") / f"{options.name}-seed{options.seed}"
    with steps("faces", len(source.people), as_json) as step:
        made = import_suite(source, target, options, FaceReader(pack), step)
    if as_json:
        echo_json(made)
        return
    for who, why in made["dropped"].items():
        echo(f"dropped {who}: {why}")
    for text in made["notes"]:
        echo(text)
    echo(f"Suite {made['suite']}: {made['identities']} identities, samples: "
         f"{_counts(made['splits'])}; {made['folder']}")


def _counts(splits: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in splits.items())


@suites.command(short_help="Check a suite: checksums, rows, images, one face each.")
@click.argument("suite", shell_complete=opt.suite_names)
@click.option("--no-faces", is_flag=True, help="Skip face detection.")
@opt.sharing(_pack, opt.json_option)
def check(suite: str, no_faces: bool, pack: Path | None, as_json: bool) -> int:
    """Check a suite by name or folder. Exit codes: 0 intact, 1 faults, 2 cannot be read."""
    found = _checked(suite, not no_faces, pack)
    faults, warnings = found["faults"], found["warnings"]
    if as_json:
        echo_json(found)
    else:
        for warning in warnings[:5]:
            echo(f"warning: {warning}")
        if len(warnings) > 5:
            echo(f"warning: {len(warnings) - 5} more pairs of names like these")
        for fault in faults:
            echo(f"fault: {fault}")
        state = f"{len(faults)} faults" if faults else "intact"
        echo(
            f"Suite {found['suite']} {found['version']}: {state}; samples: "
            f"{_counts(found['splits'])}; {found['references']} images; "
            f"sha256 {found['sha256'][:12]}"
        )
    return 1 if faults else 0


def _checked(name_or_path: str, look: bool, pack: Path | None) -> dict[str, Any]:
    """Read all samples and pictures of a suite; with `look`, look for one face on each portrait.
    Raises UserError: a checksum, a row or a file of the suite is wrong."""
    folder = Path(name_or_path)
    if folder.is_dir() and not (folder / "suite.yaml").is_file():
        raise UserError(
            f"{folder} is not a suite: it has no suite.yaml. Make one of it with `idbench suites "
            f"import {folder}`, and check that."
        )
    suite = load_suite(name_or_path)
    samples = {split: suite.samples(split) for split in suite.splits}
    pictures: dict[Path, Reference] = {}
    faults: list[str] = []
    for split, of_split in samples.items():
        for sample in of_split:
            pictures.update((r.image, r) for r in sample.references)
            if not sample.prompt.strip():
                faults.append(f"{split}: the prompt {sample.prompt_id} is empty")
            if len(set(sample.identities)) < len(sample.identities):
                faults.append(f"{split}: {sample.prompt_id} names one person twice")
            if not sample.identities:
                faults.append(f"{split}: {sample.prompt_id} has no face reference")
    reader = FaceReader(pack) if look else None
    people: dict[str, Face] = {}
    for path, reference in sorted(pictures.items()):
        try:
            picture = open_picture(path)
        except UserError as error:
            faults.append(str(error).split(";")[0])
            continue
        if reader is None or reference.kind != "face":
            continue
        face = reader.read(picture)
        people.setdefault(reference.name, face)
        if face.count != 1:
            found = f"{face.count} faces were found" if face.count else "no face was found"
            faults.append(f"{found} in {path.relative_to(suite.folder).as_posix()}")
    alike = find_alike(people)
    faults += [str(two) for two in alike if two.copy]
    return {
        "suite": suite.name, "version": suite.version, "sha256": suite.sha256,
        "splits": {split: len(rows) for split, rows in samples.items()},
        "references": len(pictures), "faults": list(dict.fromkeys(faults)),
        "warnings": [str(two) for two in alike if not two.copy],
    }


@suites.command(short_help="Embed the faces of a training set.")
@click.argument("folder", type=opt.PATH)
@click.option("-o", "--output", required=True, type=opt.PATH, help="The .npz file to write.")
@_pack
def embed(folder: Path, output: Path, pack: Path | None) -> None:
    """Embed the largest face of each image under FOLDER, for --training-embeddings."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; pass the folder with the images.")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES)
    output = output if output.suffix == ".npz" else output.with_name(output.name + ".npz")
    check_output(output, "embedded pictures")
    reader = FaceReader(pack)
    names, vectors = [], []
    with steps("faces", len(files)) as step:
        for file in files:
            face = reader.read(open_picture(file))
            if face.vector is not None:
                names.append(file.relative_to(folder).as_posix())
                vectors.append(face.vector)
            step(file.name)
    if not vectors:
        raise UserError(f"No face was found in {len(files)} images of {folder}; check the path.")
    write_embeddings(output, names, np.stack(vectors), reader)
    echo(f"{len(vectors)} faces from {len(files)} images: {output}")
