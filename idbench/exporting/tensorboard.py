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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from idbench.errors import explained
from idbench.files import atomic_path, disk_errors
from idbench.pictures import open_rgb
from idbench.records import SampleFile
from idbench.reports import table_output, tables
from idbench.reports.video_values import along
from idbench.runs import Run
from idbench.score_table import long_scores, wide_scores
from idbench.video import UnreadableVideo, read_spread

SUFFIX = ".idbench"


def export(run: Run, folder: Path, step: int = 0, frames: int = 0) -> Path:
    """Write one event file to `folder`, replacing those that earlier exports left at that `step` of
    the scalars, with `frames` frames of each video as an image (0: none). Raises UserError:
    TensorBoard is not installed, or the run has no scores yet."""
    with explained(
        "This export needs tensorboard", "install it with `pip install idbench[tensorboard]`"
    ):
        import tensorboard  # noqa: F401
        from torch.utils.tensorboard import SummaryWriter

    table = tables.measured([run])
    suffix = f".step{step}{SUFFIX}"
    with disk_errors(folder), tempfile.TemporaryDirectory() as place:
        with SummaryWriter(place, filename_suffix=suffix) as writer:
            for name, estimate in table.rows[0].estimates.items():
                for key, value in (
                    ("mean", estimate.mean), ("interval_low", estimate.low),
                    ("interval_high", estimate.high), ("coverage", estimate.coverage),
                ):
                    if value is not None:
                        writer.add_scalar(f"{name}/{key}", value, step)
            _along(writer, run)
            for name, column in wide_scores(run).items():
                values = column.dropna().to_numpy()
                if len(values):
                    writer.add_histogram(f"{name}/videos", values, step)
            _texts(writer, run, table, step)
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
    frame = long_scores(run)
    for metric in frame[frame["frame"].notna()]["metric"].unique():
        places: dict[int, list[float | None]] = defaultdict(list)
        for place, value in along(run, str(metric)):
            places[round(100 * place)].append(value)
        for place, values in sorted(places.items()):
            known = [v for v in values if v is not None]
            if known:
                writer.add_scalar(f"{metric}/along the videos", sum(known) / len(known), place)
            writer.add_scalar(f"{metric}/share scored along", len(known) / len(values), place)


def _texts(writer: Any, run: Run, table: tables.Tables, step: int) -> None:
    rows = "\n".join(f"| {name} | {_cell(value)} |" for name, value in _settings(run).items())
    writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}", step)
    writer.add_text("table", table_output.render(table, "md"), step)
    frame = long_scores(run)
    of_videos = frame[frame["identity"].isna() & frame["frame"].isna()]
    reasons = of_videos["reason"].dropna().value_counts()
    missing = "\n".join(f"| {n} | {_cell(reason)} |" for reason, n in reasons.items())
    writer.add_text(
        "unscored", f"| values | reason |\n|---|---|\n{missing}" if missing else "none", step)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _settings(run: Run) -> dict[str, str]:
    """What was run and how it was scored, by dotted names such as `model.settings.steps`."""
    identity, scoring = run.file.identity, run.file.scoring
    return _flat({
        "system": run.name, "split": identity.split, "seed": identity.seed,
        "suite": identity.suite.model_dump(), "model": identity.model.model_dump(),
        "protocol": scoring.protocol, "scoring_weights": scoring.weights,
        "idbench": run.file.packages.get("idbench"),
    })


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, f"{name}.")
        elif isinstance(value, list | tuple):
            found[name] = ", ".join(map(str, value))
        elif value is not None:
            found[name] = str(value)
    return found


def strips(run: Run, frames: int) -> Iterator[tuple[SampleFile, np.ndarray]]:
    """Record and uint8 RGB picture (H, W, 3) of every sample whose video can be read: its
    references, then `frames` evenly spaced frames, side by side."""
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


def _reference(path: Path, height: int) -> np.ndarray:
    """A reference brought to the height of the frames."""
    image = open_rgb(path)
    width = max(1, round(image.width * height / image.height))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
