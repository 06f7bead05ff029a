"""One picture a sample: its references, then evenly spaced frames of its video, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from idbench.pictures import open_rgb
from idbench.records import SampleFile
from idbench.runs import Run
from idbench.video import UnreadableVideo, read_spread


def strips(run: Run, frames: int) -> Iterator[tuple[SampleFile, np.ndarray]]:
    """Record and uint8 RGB picture (H, W, 3) of every sample whose video can be read, with `frames`
    evenly spaced frames."""
    for record in run.records():
        if record.video is None:
            continue
        try:
            taken = read_spread(record.video, frames)
        except UnreadableVideo:
            continue
        height = taken.shape[1]
        references = [_reference(r.image, height) for r in record.sample.references]
        yield record, np.concatenate([*references, *taken], axis=1)


def _reference(path: Any, height: int) -> np.ndarray:
    """A reference brought to the height of the frames."""
    image = open_rgb(path)
    width = max(1, round(image.width * height / image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
