"""A run as an event file of TensorBoard: means with coverage, curves, text, and frames.

    idbench export runs/a --to tensorboard --out boards/a --step 1000
    tensorboard --logdir boards

Tags: METRIC/mean, METRIC/interval_low, METRIC/interval_high and METRIC/coverage at the given step;
METRIC/along the videos (step: percent of the video); METRIC/videos (a histogram); the texts
`settings`, `table` and `unscored`; with frames, an image `samples/ID` a sample.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd

from idbench.exporting.side_by_side import strips
from idbench.exporting.summary import library, reasons, scalars, settings
from idbench.files import atomic_path, disk_errors
from idbench.reports import series, table_output, tables
from idbench.runs import Run
from idbench.score_table import wide_scores

SUFFIX = ".idbench"


def export(run: Run, folder: Path, step: int = 0, frames: int = 0) -> Path:
    """Write one event file to `folder`, replacing those that earlier exports left at that `step` of
    the scalars, with `frames` frames of each video as an image (0: none). Raises UserError:
    TensorBoard is not installed, or the run has no scores yet."""
    library("tensorboard", "tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    numbers = scalars(run)
    folder = Path(folder)
    suffix = f".step{step}{SUFFIX}"
    with disk_errors(folder), tempfile.TemporaryDirectory() as place:
        with SummaryWriter(place, filename_suffix=suffix) as writer:
            for tag, value in numbers.items():
                writer.add_scalar(tag, value, step)
            _along(writer, run)
            _histograms(writer, run, step)
            _texts(writer, run, step)
            if frames:
                for record, picture in strips(run, frames):
                    tag = f"samples/{record.suite_id}"
                    writer.add_image(tag, picture, step, dataformats="HWC")
                    writer.add_text(tag, record.sample.prompt, step)
        written = next(Path(place).iterdir())
        target = folder / written.name
        earlier = set(folder.glob(f"events.*{suffix}")) - {target}
        with atomic_path(target) as temporary:
            shutil.copyfile(written, temporary)
        for path in earlier:
            path.unlink()
        return target


def _along(writer: Any, run: Run) -> None:
    """Means over all people and videos at each place of the video, and the share scored there."""
    frame = pd.read_parquet(run.folder / "scores.parquet", columns=["metric", "frame"])
    for metric in frame[frame["frame"].notna()]["metric"].unique():
        places: dict[int, list[float | None]] = defaultdict(list)
        for place, value in series.along(run, str(metric)):
            places[round(100 * place)].append(value)
        for place, values in sorted(places.items()):
            known = [v for v in values if v is not None]
            if known:
                writer.add_scalar(f"{metric}/along the videos", sum(known) / len(known), place)
            writer.add_scalar(f"{metric}/share scored along", len(known) / len(values), place)


def _histograms(writer: Any, run: Run, step: int) -> None:
    for name, column in wide_scores(run).items():
        values = column.dropna().to_numpy()
        if len(values):
            writer.add_histogram(f"{name}/videos", values, step)


def _texts(writer: Any, run: Run, step: int) -> None:
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in settings(run).items())
    writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", step)
    writer.add_text("table", table_output.render(tables.measured([run]), "md"), step)
    missing = "\n".join(f"| {n} | {_cell(reason)} |" for reason, n in reasons(run).items())
    writer.add_text(
        "unscored", f"| values | reason |\n|---|---|\n{missing}" if missing else "none", step)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
