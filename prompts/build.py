"""Builds the suite `avatars` from its hand-written source, `suites/avatars/source.yaml`.

    python -m idbench.prompts.build [--folder DIR] [--texts-only]

Identities get references, prompts get ids, and each split pairs them in a fixed rotation: every
prompt is used with several people, and every person gets every category. The same source gives
the same files; texts are equal byte for byte.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from idbench import yaml_text
from idbench.prompts import SUITES
from idbench.prompts.avatars.judge import detect_faces
from idbench.prompts.avatars.render import render_background, render_garment, render_portrait
from idbench.prompts.avatars.scene import EVALUATION_IDENTITIES, Garment, check_truth
from idbench.prompts.language import MAXIMUM_TOKENS, tokens, vocabulary
from idbench.suite import reference_row, write_checksums, write_rows

SUITE = SUITES / "avatars"
SPLITS = ("single", "multi", "multi3", "tryon", "background")
PORTRAIT_SIZE = 192
BACKGROUND_SIZE = (128, 192)

Row = dict[str, Any]


def identity_name(seed: int) -> str:
    """Name of an evaluation identity: `a007` is seed 7. Raises ValueError: the seed is not reserved
    for evaluation."""
    if seed not in EVALUATION_IDENTITIES:
        raise ValueError(f"identity seed {seed} is not kept for evaluation")
    return f"a{seed:03d}"


def prompt_rows(source: Mapping[str, Any]) -> list[Row]:
    """Every prompt with its id (`multi-garment-03`), category, text and truth. Raises ValueError: a
    prompt is too long, has an unknown word, occurs twice, or has a truth outside the vocabulary of
    scenes."""
    rows: list[Row] = []
    known = set(vocabulary())
    prompts = (
        (f"{split}-{category.replace(' ', '-')}-{number:02d}", category, *prompt)
        for split in SPLITS for category, prompts in source["prompts"][split].items()
        for number, prompt in enumerate(prompts, start=1)
    )
    for name, category, text, truth in prompts:
        words = tokens(text)
        if len(words) > MAXIMUM_TOKENS:
            raise ValueError(f"{len(words)} tokens, more than {MAXIMUM_TOKENS}: {text!r}")
        if not known.issuperset(words):
            raise ValueError(f"unknown words {sorted(set(words) - known)}: {text!r}")
        check_truth(truth)
        rows.append({"prompt_id": name, "category": category, "prompt": text, "truth": truth})
    texts = [row["prompt"] for row in rows]
    if len(set(texts)) != len(texts):
        raise ValueError("a prompt occurs twice")
    return rows


def split_rows(source: Mapping[str, Any]) -> dict[str, list[Row]]:
    """The rows of each split: prompt id, references left to right, truth with identities."""
    of_split = {split: [r for r in prompt_rows(source) if r["prompt_id"].startswith(f"{split}-")]
                for split in SPLITS}
    singles = [[seed] for seed in source["identities"]]
    rows: dict[str, list[Row]] = {}
    for split, groups, kind in (
        ("single", singles, ""), ("multi", source["pairs"], ""), ("multi3", source["triples"], ""),
        ("tryon", [[s] for s in source["tryon_identities"]], "garment"),
        ("background", [[s] for s in source["background_identities"]], "background"),
    ):
        objects = list(source[f"{kind}s"].items()) if kind else [("", None)]
        rows[split] = [_row(prompt, group, kind, *objects[number % len(objects)])
                       for group, prompt, number in _rotate(groups, of_split[split])]
    return rows


def _rotate(
    groups: Sequence[Sequence[int]], prompts: Sequence[Row]
) -> Iterator[tuple[Sequence[int], Row, int]]:
    """Each group with one prompt of each category, and a number that changes with both."""
    categories = list(dict.fromkeys(row["category"] for row in prompts))
    for index, group in enumerate(groups):
        for offset, category in enumerate(categories):
            of_category = [row for row in prompts if row["category"] == category]
            # The offset prevents two people from sharing all their prompts.
            turn = index + offset * (1 + index // len(of_category))
            yield group, of_category[turn % len(of_category)], index + 3 * offset


def _row(prompt: Row, group: Sequence[int], kind: str, name: str, shown: Any) -> Row:
    """One row: `kind` and `name` of its object (or ""), and what the object shows."""
    if len(set(group)) != len(group):
        raise ValueError(f"a person occurs twice in {group}")
    names = [identity_name(seed) for seed in group]
    references = [reference_row("face", n) for n in names]
    stated = prompt["truth"].get("people") or [{}] * len(names)
    people = [{"identity": n, **said} for n, said in zip(names, stated, strict=True)]
    truth: Row = {**prompt["truth"], "people": people}
    if kind:
        references.append(reference_row(kind, name))
    if kind == "garment":
        people[0]["garment"] = dict(shown)
    elif kind == "background":
        truth["background"], truth["background_seed"] = shown
    return {"prompt_id": prompt["prompt_id"], "references": references, "truth": truth}


def write_texts(source: Mapping[str, Any], folder: Path) -> None:
    """Writes prompts.jsonl and splits/*.jsonl. Raises ValueError: a split has another number of
    samples than suite.yaml says."""
    expected = yaml_text.parse((folder / "suite.yaml").read_text(encoding="utf-8"))["splits"]
    splits = split_rows(source)
    found = {split: len(rows) for split, rows in splits.items()}
    if found != expected:
        raise ValueError(f"suite.yaml says {expected}, the source gives {found}")
    write_rows(folder, prompt_rows(source), splits)


def write_references(source: Mapping[str, Any], folder: Path) -> None:
    """Renders references/*.png and writes identities.json with the face MTCNN finds in each.
    Raises ValueError: MTCNN finds no face, or several, on a portrait."""
    target = folder / "references"
    target.mkdir(exist_ok=True)
    for old in target.glob("*.png"):
        old.unlink()
    identities: Row = {}
    for seed in source["identities"]:
        pixels = render_portrait(seed, size=PORTRAIT_SIZE).frames[0]
        name = identity_name(seed)
        boxes, probabilities = detect_faces(pixels)
        if len(boxes) != 1:
            raise ValueError(f"MTCNN finds {len(boxes)} faces on the portrait of {name}; "
                             "use another identity in source.yaml")
        identities[name] = {
            "seed": seed, "detected_by": "facenet-pytorch MTCNN",
            "probability": round(float(probabilities[0]), 4),
            "box": [round(float(x), 1) for x in boxes[0]],
        }
        Image.fromarray(pixels).save(target / f"{name}.png", optimize=True)
    for name, garment in source["garments"].items():
        image = Image.fromarray(render_garment(Garment(**garment), size=PORTRAIT_SIZE))
        image.save(target / f"garment_{name}.png", optimize=True)
    for name, (background, seed) in source["backgrounds"].items():
        image = Image.fromarray(render_background(background, seed, *BACKGROUND_SIZE))
        image.save(target / f"background_{name}.png", optimize=True)
    text = ",\n ".join(f"{json.dumps(n)}: {json.dumps(row)}" for n, row in identities.items())
    (folder / "identities.json").write_text("{" + text + "}\n", encoding="utf-8")


def build(folder: Path = SUITE, texts_only: bool = False) -> None:
    """Rebuilds the suite in `folder` from its source.yaml and suite.yaml."""
    source = yaml_text.parse((folder / "source.yaml").read_text(encoding="utf-8"))
    write_texts(source, folder)
    if not texts_only:
        write_references(source, folder)
    write_checksums(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="idbench.prompts.build",
        description="Builds the suite avatars from its source.yaml.")
    parser.add_argument("--folder", type=Path, default=SUITE)
    parser.add_argument("--texts-only", action="store_true",
                        help="leave references and identities.json as they are")
    arguments = parser.parse_args()
    build(arguments.folder, arguments.texts_only)
    print(f"built {arguments.folder}")


if __name__ == "__main__":
    main()
