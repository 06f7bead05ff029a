"""A picture of a run: each row a sample's references and evenly spaced frames of its video.

python -m idbench.reports.strip RUN -o strip.png --samples 4
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from idbench.errors import UserError
from idbench.video import read_video


def strip(run: Path, samples: int = 4, frames: int = 5) -> Figure:
    """The figure. Samples are spread evenly over the finished ones of the run folder.

    Raises:
        UserError: the folder holds no finished video.
    """
    records = [json.loads(path.read_text()) for path in sorted(run.glob("samples/*/sample.json"))]
    records = sorted((r for r in records if r.get("video")), key=lambda r: r["prompt_id"])
    if not records:
        raise UserError(f"{run} holds no finished video; run `idbench run` first.")
    chosen = [
        records[i] for i in np.linspace(0, len(records) - 1, min(samples, len(records))).astype(int)
    ]
    count = max(len(r["references"]) for r in chosen)
    columns = count + frames
    figure = Figure(figsize=(1.5 * columns, 1.32 * len(chosen)), dpi=110, layout="compressed")
    figure.get_layout_engine().set(h_pad=0.11)  # type: ignore[call-arg, union-attr]
    axes = figure.subplots(
        len(chosen), columns, squeeze=False, width_ratios=[1] * count + [1.5] * frames
    )
    for axis in axes.flat:
        axis.axis("off")
    for row, record in zip(axes, chosen, strict=True):
        for axis, reference in zip(row, record["references"], strict=False):
            axis.imshow(Image.open(run / reference["image"]).convert("RGB"))
        video = read_video(run / "samples" / record["id"] / record["video"])
        picked = np.linspace(0, len(video.frames) - 1, frames).astype(int)
        for axis, index in zip(row[count:], picked, strict=True):
            axis.imshow(video.frames[index], interpolation="bicubic")
        said = row[count].text(
            0,
            1.04,
            fill(record["prompt"], 120),
            fontsize=8,
            va="bottom",
            transform=row[count].transAxes,
        )
        said.set_in_layout(False)  # else its width would stretch the first frame's column
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("strip.png"))
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    strip(arguments.run, arguments.samples).savefig(arguments.output)
    print(arguments.output)


if __name__ == "__main__":
    main()
