"""The parquet files. One row is one video with its references in the order of the sequence.

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

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from idbench.files import atomic_path
from idbench.models.concat_id.pairs.people import People, person_key
from idbench.models.concat_id.pairs.stages import OWN, Output
from idbench.models.concat_id.pairs.store import Row, Store

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


def write_output(
    path: Path, output: Output, people: People, store: Store, seed: int,
    alignment: str | None = None,
) -> None:
    """Write one output, atomically, some rows at a time."""
    schema = SCHEMA.with_metadata({"alignment": alignment} if alignment else None)
    write_rows(path, schema, rows(output, people, store, seed))


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
