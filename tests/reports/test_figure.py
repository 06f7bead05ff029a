"""`idbench figure`: files for papers, and what they show."""

from __future__ import annotations

import resource
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from made_runs import made_run
from matplotlib.figure import Figure
from PIL import Image
from report_runs import FRAMES, make_run

from idbench.commands.figure import figure
from idbench.errors import UserError
from idbench.files import DiskError
from idbench.reports import figures, tables, video_values
from idbench.runs import Run
from idbench.statistics import Estimate


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("figures")
    return [make_run(root / "a", variant="multi", seed=1, fail=[2], missing=[3]),
            make_run(root / "b", variant="base", level=0.1, seed=2)]


def _call(*arguments: object) -> str:
    result = CliRunner().invoke(figure, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("kind", ["tradeoff", "strip", "curves"])
def test_without_an_ending_both_pdf_and_png_are_written(
    kind: str, folders: list[Path], tmp_path: Path
) -> None:
    said = _call(kind, *folders, "-o", tmp_path / "mine", "--dpi", 60)
    assert (tmp_path / "mine.pdf").read_bytes().startswith(b"%PDF-")
    with Image.open(tmp_path / "mine.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 200 and pixels.std() > 5  # something is drawn
    assert tuple(pixels[0, -1]) == (255, 255, 255)  # on white, for print
    assert "mine.pdf" in said and "mine.png" in said
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("ending", ["svg", "webp"])
def test_other_endings(ending: str, folders: list[Path], tmp_path: Path) -> None:
    _call("strip", folders[0], "-o", tmp_path / f"one.{ending}", "--dpi", 60)
    data = (tmp_path / f"one.{ending}").read_bytes()
    assert b"<svg" in data if ending == "svg" else data[8:12] == b"WEBP"


def test_a_disk_that_takes_no_byte_is_one_sentence(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    drawn = Figure()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(DiskError, match="cannot be written"):
            figures.save(drawn, tmp_path / "x.pdf")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_equal_runs_give_equal_files(folders: list[Path], tmp_path: Path) -> None:
    for name in ("one.pdf", "two.pdf"):
        _call("tradeoff", *folders, "-o", tmp_path / name)
    assert (tmp_path / "one.pdf").read_bytes() == (tmp_path / "two.pdf").read_bytes()


def test_the_tradeoff_shows_the_means_and_intervals_of_the_table(folders: list[Path]) -> None:
    runs = [Run.open(f) for f in folders]
    found = video_values.series(runs, tables.measured(runs).rows, "arcsim", "clipdist")
    drawn = figures.tradeoff(found, "arcsim", "clipdist", {"arcsim": "A", "clipdist": "C"})
    bars = drawn.axes[0].containers
    assert [bar.get_label() for bar in bars] == ["toy@multi", "toy@base"]
    for bar, row in zip(bars, tables.measured(runs).rows, strict=True):
        line, _, (across, _) = bar.lines
        mean = row.estimates["arcsim"]
        assert line.get_xdata()[0] == pytest.approx(mean.mean)
        assert across.get_segments()[0][:, 0] == pytest.approx([mean.low, mean.high])
    # Small marks: videos with both values; of the first run one failed, one had no face.
    assert [len(s.points) for s in found] == [4, 6]


def test_a_run_without_a_metric_of_the_figure_has_no_marks(tmp_path: Path) -> None:
    both = {"arcsim": [0.1, 0.2, 0.3], "clipdist": [0.3, None, 0.5]}
    runs = [made_run(tmp_path / name, name, {m: both[m] for m in metrics}, [("a",), ("b",), ("c",)])
            for name, metrics in (("full", both), ("half", ["arcsim"]))]
    found = video_values.series(runs, tables.measured(runs).rows, "arcsim", "clipdist")
    assert [one.points for one in found] == [[(0.1, 0.3), (0.3, 0.5)], []]
    assert [one.keys for one in found] == [["s0", "s2"], []]


def test_curves_show_the_share_of_frames_scored(folders: list[Path]) -> None:
    run = Run.open(folders[0])
    points = video_values.along(run, "arcsim")
    assert len(points) == 5 * 2 * FRAMES and {0.0, 1.0} <= {p for p, _ in points}
    drawn = figures.over_time({"ArcSim": [("toy", points)]}, bins=1)
    upper, lower = drawn.axes
    known = [v for _, v in points if v is not None]
    assert upper.lines[0].get_ydata()[0] == pytest.approx(np.mean(known))
    assert lower.lines[0].get_ydata()[0] == pytest.approx(len(known) / len(points)) != 1


def test_a_run_whose_faces_vanish_breaks_its_curve() -> None:
    points = [(0.0, 0.5), (0.5, None), (1.0, 0.4)]
    upper, lower = figures.over_time({"m": [("a", points), ("b", [])]}, bins=3).axes
    assert np.isnan(upper.lines[0].get_ydata()).tolist() == [False, True, False]
    assert list(lower.lines[0].get_ydata()) == [1, 0, 1]


@pytest.mark.parametrize(("arguments", "says"), [
    (("tradeoff", "-x", "arcsin"), "did you mean 'arcsim'"),
    (("curves", "--metric", "viclip"), "Known: arcsim, cursim"),
    (("strip", "-o", "a.jpeg2"), None),
    (("tradeoff", "-o", "a.gif"), "ends in .gif"),
])
def test_mistakes_are_said_plainly(
    arguments: tuple[str, ...], says: str | None, folders: list[Path], tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if says is None:  # a name with a dot is no ending of a figure
        _call(arguments[0], folders[0], *arguments[1:], "--dpi", 50)
        assert (tmp_path / "a.jpeg2.png").is_file()
        return
    with pytest.raises(UserError, match=says):
        _call(arguments[0], folders[0], *arguments[1:])


def test_runs_of_two_protocols_share_no_figure(tmp_path: Path) -> None:
    runs = [Run.open(make_run(tmp_path / n)) for n in ("a", "b")]
    runs[1].save(scoring=runs[1].file.scoring.model_copy(
        update={"protocol": {"name": "other"}}))
    for kind in ("tradeoff", "curves"):
        with pytest.raises(UserError, match="cannot share a table"):
            _call(kind, tmp_path / "a", tmp_path / "b", "-o", tmp_path / "f.png")


@pytest.mark.parametrize("systems", [1, 2, 6])
def test_the_marks_of_a_category_stay_beside_its_name(systems: int) -> None:
    one = Estimate(0.5, 0.4, 0.6, 8, 8, 8)
    categories = {name: [{"arcsim": one}] * systems for name in ("expression", "scene", "light")}
    drawn = figures.by_category(categories, ["arcsim"], {"arcsim": "ArcSim"})
    places = sorted(float(line.get_ydata()[0]) for line in drawn.axes[0].lines)
    assert [round(place) for place in places] == [0] * systems + [1] * systems + [2] * systems
