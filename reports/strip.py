"""A figure of runs: for each sample its references and evenly spaced frames of each video.

Laid out in inches, as Figures 4 and 5 of the Concat-ID paper: each sample is a block with its
prompt above, its references on the left, and a row of frames for each system.
"""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from idbench.errors import UserError
from idbench.pictures import UnreadablePicture, open_rgb
from idbench.records import SampleFile
from idbench.reports import figures
from idbench.reports.video_values import shared_records
from idbench.runs import Run
from idbench.video import UnreadableVideo, read_spread

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 7.2
"""Inches: the text width of a two-column paper."""
GAP, LINE, LABEL, BETWEEN = 0.04, 0.145, 0.2, 0.16
"""Inches: between pictures, a line of a prompt, the column of names, between samples."""
LARGEST_REFERENCE = 0.95
CHARACTERS = 16
"""Characters of a prompt in an inch; a Chinese or Japanese one takes the room of two."""
_FILLER = "\ue000"


def strip(
    runs: Sequence[Run], labels: Sequence[str], *, samples: int = 3, frames: int = 5,
    only: Sequence[str] = (), prompts: bool = True,
) -> Figure:
    """The figure: for each sample its references and, a row for each run, `frames` frames.

    Args:
        labels: name of each run, shown if there are several.
        samples: number of samples, spread evenly over those of which every run has a record.
        only: prompt ids or beginnings of suite ids; shows these samples instead.

    Raises UserError: no sample with a video that all runs share, or none fits a name in `only`.
    """
    blocks = _choose(_shared(runs), samples, only)
    asked = [records[0].sample for records in blocks]
    pictures = [_pictures(records, frames) for records in blocks]
    shape = next(row.shape for of in pictures for row in of if isinstance(row, np.ndarray))
    several = len(runs) > 1
    columns = max(len(sample.references) for sample in asked) if not several else 1
    label = LABEL if several else 0.0

    # The frames fill the width that the references leave; the references fit the frames' height.
    reference, cell = LARGEST_REFERENCE, 0.0
    for _ in range(8):
        left = WIDTH - columns * (reference + GAP) - label
        cell = (left - (frames - 1) * GAP) / frames
        height = cell * shape[1] / shape[2]
        stacked = max(-(-len(sample.references) // columns) for sample in asked)
        tall = (len(runs) * (height + GAP) - stacked * GAP) / stacked
        reference = min(LARGEST_REFERENCE, tall)
    said = [_lines(sample.prompt) if prompts else [] for sample in asked]
    block_height = len(runs) * (height + GAP) - GAP
    size = min(8.0, 105 * height / max(len(name) for name in labels))  # long names are smaller
    total = sum(block_height + LINE * len(lines) for lines in said) + BETWEEN * (len(blocks) - 1)

    with figures.style():
        figure = figures.blank((WIDTH, total))
        top = total
        for sample, rows, lines in zip(asked, pictures, said, strict=True):
            for line in lines:
                top -= LINE
                _text(figure, 0, top + 0.04, line, fontsize=8, va="bottom")
            for i, item in enumerate(sample.references):
                x = (i % columns) * (reference + GAP)
                y = top - reference - (i // columns) * (reference + GAP)
                _reference(_axes(figure, x, y, reference, reference), item.image)
            for index, (name, row) in enumerate(zip(labels, rows, strict=True)):
                y = top - height - index * (height + GAP)
                x = columns * (reference + GAP)
                if several:
                    _text(figure, x + label / 2 - 0.02, y + height / 2, name, fontsize=size,
                          rotation=90, ha="center", va="center")
                _row(figure, x + label, y, cell, height, row, frames)
            top -= block_height + BETWEEN
        return figure


def _lines(prompt: str) -> list[str]:
    """The prompt in lines of the figure's width."""
    from rich.cells import cell_len

    wide = "".join(c + _FILLER * (cell_len(c) - 1) for c in prompt)
    return [line.replace(_FILLER, "") for line in wrap(wide, int(WIDTH * CHARACTERS))]


def _shared(runs: Sequence[Run]) -> list[list[SampleFile]]:
    """The records of each sample of which every run has one and at least one a video, in the
    suite's order."""
    found = [of for of in shared_records(runs).values() if any(r.video for r in of)]
    if found:
        return found
    if not any(r.video for run in runs for r in run.records()):
        raise UserError(f"{runs[0].folder} contains no finished video; run `idbench run` first.")
    raise UserError(
        f"{runs[0].folder} and {runs[-1].folder} share no sample with a video; name runs of one "
        "suite and split."
    )


def _choose(
    blocks: list[list[SampleFile]], count: int, only: Sequence[str]
) -> list[list[SampleFile]]:
    if not only:
        # From the middle of equal parts, so that a single sample is typical, not the first.
        count = min(count, len(blocks))
        return [blocks[int((i + 0.5) * len(blocks) / count)] for i in range(count)]
    chosen = []
    for name in only:
        fitting = [of for of in blocks if of[0].suite_id.startswith(name)
                   or of[0].prompt_id == name]
        if not fitting:
            known = ", ".join(of[0].suite_id for of in blocks[:4])
            raise UserError(
                f"No shared sample with a video begins with {name!r}; there are {known}"
                f"{', ...' if len(blocks) > 4 else ''}."
            )
        chosen += fitting[:1]
    return chosen


def _pictures(records: Sequence[SampleFile], frames: int) -> list[np.ndarray | str]:
    """For each run its frames (frames, H, W, 3), or why there are none."""
    rows: list[np.ndarray | str] = []
    for record in records:
        try:
            rows.append(read_spread(record.video, frames) if record.video
                        else record.reason or "no video")
        except UnreadableVideo as error:
            rows.append(str(error))
    if all(isinstance(row, str) for row in rows):
        raise UserError(f"No video of the sample {records[0].suite_id} can be read: {rows[0]}")
    return rows


def _row(
    figure: Figure, x: float, y: float, width: float, height: float, row: np.ndarray | str,
    frames: int,
) -> None:
    if isinstance(row, str):
        axes = _axes(figure, x, y, frames * (width + GAP) - GAP, height)
        axes.text(0.5, 0.5, f"no video: {row}"[:90], ha="center", va="center", fontsize=7,
                  transform=axes.transAxes, style="italic")
        return
    for i, pixels in enumerate(row):
        axes = _axes(figure, x + i * (width + GAP), y, width, height)
        axes.imshow(pixels, interpolation="bicubic", aspect="auto"
                    if pixels.shape == row[0].shape else "equal")


def _reference(axes: Axes, path: Path) -> None:
    try:
        axes.imshow(open_rgb(path), interpolation="bicubic")
        axes.set_anchor("NW")
    except UnreadablePicture:
        axes.text(0.5, 0.5, "unreadable", ha="center", va="center", fontsize=7,
                  transform=axes.transAxes)


def _axes(figure: Figure, x: float, y: float, width: float, height: float) -> Axes:
    total = figure.get_figheight()
    axes = figure.add_axes((x / WIDTH, y / total, width / WIDTH, height / total))
    axes.axis("off")
    return axes


def _text(figure: Figure, x: float, y: float, text: str, **look: Any) -> None:
    figure.text(x / WIDTH, y / figure.get_figheight(), text, **look)
