"""What a build writes: the parquet files, and the page with counts and sample pairs.

One row of a parquet file is one video with its references in the order of the sequence.

    video, caption, height, width, fps, frames
    references: list of
        kind        face, garment or background
        video       that it comes from
        person      place of the person there, from the left
        crossed     whether that is another video than the target
        cosine      ArcFace cosine of the two people; null unless crossed
        chosen      index of the candidate for a training that draws only once
        flip        whether to mirror it (garments at random, faces never)
        candidates  list of image, frame, box, landmarks, share: the faces kept
    score, aesthetic, flow, motion   of Stage III, null elsewhere

The files' metadata states the `alignment` of the faces, for the training that reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from markupsafe import Markup

from idbench.files import atomic_path, write_text
from idbench.models.concat_id.pairs.partners import BIN
from idbench.models.concat_id.pairs.people import People, person_key
from idbench.models.concat_id.pairs.stages import OWN, Output
from idbench.models.concat_id.pairs.store import Row, Store
from idbench.pages import data_uri, template
from idbench.pictures import UnreadablePicture, encoded, open_rgb
from idbench.reports import figures

_CANDIDATE = pa.struct([
    ("image", pa.string()), ("frame", pa.int32()), ("box", pa.list_(pa.float32())),
    ("landmarks", pa.list_(pa.float32())), ("share", pa.float32()),
])
_REFERENCE = pa.struct([
    ("kind", pa.string()), ("video", pa.string()), ("person", pa.int32()),
    ("crossed", pa.bool_()), ("cosine", pa.float64()), ("chosen", pa.int32()),
    ("flip", pa.bool_()), ("candidates", pa.list_(_CANDIDATE)),
])
SCHEMA = pa.schema([
    ("video", pa.string()), ("caption", pa.string()), ("height", pa.int32()),
    ("width", pa.int32()), ("fps", pa.float64()), ("frames", pa.int32()),
    ("references", pa.list_(_REFERENCE)), ("score", pa.float64()), ("aesthetic", pa.float64()),
    ("flow", pa.float64()), ("motion", pa.float64()),
])
_GROUP = 1000
"""Rows held in memory before they are written."""
SHOWN = 8
"""Pairs shown of each output."""
RANGES = {
    "cross": ("Stage II", figures.SERIES[0]), "tradeoff": ("Stage III", figures.SERIES[1]),
    "multi": ("several people, subjects", figures.SERIES[2]),
}
"""Ranges of cosines: name in the figure, and colour."""
TEMPLATE = Path(__file__).parent / "templates" / "pairs.html"


def write_rows(path: Path, schema: pa.Schema, made: Iterable[dict[str, Any]]) -> None:
    """Write rows to a parquet file, atomically, some at a time."""
    waiting = iter(made)
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        while group := list(islice(waiting, _GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema))


def rows(output: Output, people: People, store: Store, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of `SCHEMA`, as dictionaries without what is null."""
    for i, (targets, partners) in enumerate(zip(output.targets, output.partners, strict=True)):
        target = store.get(people.video[targets[0]])
        record = target.record
        assert record is not None
        references = []
        for place, (own, partner) in enumerate(zip(targets, partners, strict=True)):
            crossed = partner != OWN
            source = store.get(people.video[partner]) if crossed else target
            who = int(people.person[partner if crossed else own])
            cosine = float(output.cosines[i, place]) if crossed else None
            references.append(_face(output, target, source, place, who, cosine, seed))
        references += [_subject(target, kind, seed) for kind in output.subjects]
        row = {
            "video": target.name, "caption": target.caption, "height": record.height,
            "width": record.width, "fps": record.fps, "frames": record.frames,
            "references": references,
        }
        if output.score is not None:
            row |= {
                "score": float(output.score[i]), "aesthetic": target.aesthetic,
                "flow": record.flow, "motion": record.motion,
            }
        yield row


def _face(
    output: Output, target: Row, source: Row, place: int, person: int, cosine: float | None,
    seed: int,
) -> dict[str, Any]:
    assert source.record is not None
    faces = source.record.people[person].faces
    rng = np.random.default_rng([seed, person_key(f"{output.name}/{target.name}", place)])
    return {
        "kind": "face", "video": source.name, "person": person, "crossed": cosine is not None,
        "cosine": cosine, "chosen": int(rng.integers(len(faces))), "flip": False,
        "candidates": [
            {
                "image": f.image, "frame": f.frame, "box": list(f.box),
                "landmarks": [v for point in f.landmarks for v in point], "share": f.share,
            } for f in faces
        ],
    }


def _subject(target: Row, kind: str, seed: int) -> dict[str, Any]:
    assert target.record is not None
    rng = np.random.default_rng([seed, person_key(f"{kind}/{target.name}", 0)])
    return {
        "kind": kind, "video": target.name, "person": 0, "crossed": False, "cosine": None,
        "chosen": 0, "flip": bool(kind == "garment" and rng.random() < 0.5),
        "candidates": [{"image": getattr(target.record, kind)}],
    }


def write_page(
    out: Path, summary: Mapping[str, Any], outputs: Sequence[Output], people: People, store: Store
) -> None:
    """Write `out`/pairs.html, atomically: one file without scripts, which opens from disk."""
    settings = {**summary["settings"], **((summary["calibration"] or {}).get("used", {}))}
    seed = settings["seed"]
    samples = {
        made.name: [
            _shown(row, store, out) for row in rows(sample(made, seed), people, store, seed)
        ] for made in outputs
    }
    text = template(TEMPLATE).render(
        summary=summary, samples=samples,
        figure=Markup(histogram(summary["similarity"], settings)),
        videos=[(k, v) for k, v in summary["videos"]["dropped"].items() if v],
    )
    write_text(out / "pairs.html", text)


def sample(output: Output, seed: int) -> Output:
    """At most `SHOWN` rows of an output, drawn by the seed; for Stage III the best ranked."""
    count = len(output.targets)
    if output.score is not None:
        chosen = np.arange(min(SHOWN, count))
    else:
        rng = np.random.default_rng([seed, 3])
        chosen = np.sort(rng.choice(count, min(SHOWN, count), replace=False))
    return output.rows(chosen)


def histogram(similarity: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Inline SVG: cosines of a sample of all pairs and of the pairs found, with the ranges."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    with figures.style():
        figure = Figure(figsize=(8.4, 3.0))
        panels = figure.subplots(1, 2)
        figure.subplots_adjust(left=0.08, right=0.97, bottom=0.26, top=0.9, wspace=0.16)
        for axes, name, title in (
            (panels[0], "sample_of_all_pairs", "all pairs (a sample)"),
            (panels[1], "found", f"pairs from {similarity['lowest_cosine_searched']:.2f} on"),
        ):
            bars = similarity[name]
            axes.bar([float(b) + BIN / 2 for b in bars], list(bars.values()), width=BIN,
                     color=figures.MUTED, zorder=2)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("ArcFace cosine")
            if bars:
                axes.set_yscale("log")
                axes.set_ylim(0.7, 2 * max(bars.values()))
                # The usual labels of a logarithm are formulas, which stay unset here.
                axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
                axes.yaxis.set_minor_formatter(NullFormatter())
            for range_name, (label, colour) in RANGES.items():
                low, high = settings[range_name]
                axes.axvspan(low, high, color=colour, alpha=0.18, label=label, lw=0, zorder=1)
        panels[0].set_ylabel("pairs of people")
        panels[0].set_xlim(-1, 1)
        panels[1].set_xlim(similarity["lowest_cosine_searched"], 1)
        figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, ncols=len(RANGES),
                      loc="lower center", bbox_to_anchor=(0.5, -0.02))
    return figures.to_svg(figure, "How many pairs of people have which ArcFace cosine")


def _shown(row: Mapping[str, Any], store: Store, out: Path) -> dict[str, Any]:
    """A pair with its images: the target's own faces, and the references."""
    number = store.number_of(row["video"])
    record = store.get(number).record if number else None
    own = [p.faces[len(p.faces) // 2].image for p in record.people] if record else []
    references = [
        {
            "kind": r["kind"], "video": r["video"], "cosine": r["cosine"],
            "image": _data(out / r["candidates"][r["chosen"]]["image"]),
        } for r in row["references"]
    ]
    return {
        "video": row["video"], "caption": row["caption"], "score": row.get("score"),
        "own": [_data(out / image) for image in own], "references": references,
    }


def _data(path: Path) -> str | None:
    """The image, small, as a data URI; None when it was removed."""
    try:
        small = open_rgb(path)
    except UnreadablePicture:
        return None
    small.thumbnail((96, 96))
    return data_uri("image/jpeg", encoded(small, "JPEG", quality=85))
