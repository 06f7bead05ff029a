"""The HTML report: complete, self-contained, and safe with hostile names."""

from __future__ import annotations

import html.parser
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_run
from report_runs import WEIGHT, make_run

from idbench.errors import UserError
from idbench.records import FacesFile
from idbench.reports import figures, media, report_data, tables
from idbench.reports.report_data import PersonView, TakeView, Value
from idbench.reports.report_page import build_report, curve_path, interval, number, reasons_of
from idbench.runs import Run
from idbench.statistics import Estimate

HOSTILE = (
    '</script><script>document.title="pwned"</script><img src=x onerror="alert(1)"> $x_{$ {{7*7}}'
)


class _Page(html.parser.HTMLParser):
    """Elements and visible text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._raw = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, text: str) -> None:
        if not self._raw:
            self.text += text

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags
                if t == tag and all(a.get(k.rstrip("_")) == v for k, v in wanted.items())]


def _page(folders: list[Path], output: Path, **options: object) -> _Page:
    return _Page(build_report(folders, output, **options).read_text(encoding="utf-8"))  # type: ignore


@dataclass(frozen=True)
class Usual:
    """The run of `run_folder`, which these tests do not change, and its report."""

    folder: Path
    text: str
    page: _Page


@pytest.fixture(scope="module")
def usual(usual_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Usual:
    output = tmp_path_factory.mktemp("report") / "report.html"
    text = build_report([usual_run], output).read_text(encoding="utf-8")
    return Usual(usual_run, text, _Page(text))


def test_every_sample_is_there_with_its_references_video_and_prompt(usual: Usual) -> None:
    page = usual.page
    assert len(page.all("article", class_="card")) == 6
    videos = page.all("video")
    assert len(videos) == 5  # one was not generated
    assert all((v["src"] or "").startswith("data:video/mp4;base64,") for v in videos)
    faces = [i for i in page.all("img") if (i["alt"] or "").startswith("face reference")]
    assert len(faces) == 12
    assert "Sample 4: two people talk in a park." in page.text
    assert "No video: out of memory" in page.text


def test_nothing_is_fetched_from_anywhere(usual: Usual) -> None:
    page = usual.page
    for tag, attributes in page.tags:
        for name in ("src", "href", "poster", "xlink:href", "action"):
            value = attributes.get(name) or ""
            linked = tag == "a" and value.endswith("/video.mp4") and "://" not in value
            assert not value or linked or value.startswith(("data:", "#")), (tag, name, value[:80])
    assert not page.all("link") and len(page.all("script")) == 1


def test_means_and_coverage_are_those_of_the_table(usual: Usual) -> None:
    page = usual.page
    row = tables.measured([Run.open(usual.folder)]).rows[0]
    for name in ("arcsim", "cursim", "viclip", "clipdist"):
        found = row.estimates[name]
        assert number(found.mean) in page.text and interval(found) in page.text
    assert row.estimates["arcsim"].scored == 4
    assert "4 of 6 scored" in page.text and "5 of 6 scored" in page.text


def test_what_is_unscored_is_listed_once_with_its_reason(usual: Usual, tmp_path: Path) -> None:
    report = report_data.read([Run.open(usual.folder)], tmp_path / "report.html")
    reasons = report.unscored
    assert set(reasons) == {"out of memory", "the person was found in no frame"}
    assert {(metric, who) for _, _, metric, who in reasons["out of memory"]} == {
        (m, None) for m in ("arcsim", "cursim", "viclip", "clipdist")}
    lost = reasons["the person was found in no frame"]
    assert [metric for _, _, metric, _ in lost] == ["arcsim", "cursim"]
    assert len({who for *_, who in lost}) == 1
    page = usual.page
    links = {a["href"] for a in page.all("a") if (a["href"] or "").startswith("#s-")}
    assert links == {f"#{a['id']}" for a in page.all("article", class_="card")}


def test_protocol_hashes_command_and_environment_are_told(usual: Usual) -> None:
    text = usual.page.text
    assert text.count(WEIGHT) == 2  # of the model and of the metrics
    assert "idbench run --model toy" in text
    for words in ("strict-v3", "detection, detector", "mtcnn", "numpy",
                  "Where the time went: 46.7 s",
                  "The recognisers are trained on synthetic people."):
        assert words in text, words


def test_published_rows_stand_apart_as_another_data_set(usual: Usual) -> None:
    before, apart = usual.text.split('<section id="published"')
    assert "Another data set." in apart and "ID-Animator" in apart and "0.289" in apart
    assert "ID-Animator" not in before


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "toy", name=HOSTILE, prompts=[HOSTILE],
                      categories=[HOSTILE, "b"], identity_names=[HOSTILE, "<b>two"])
    page = _page([folder], tmp_path / "report.html")
    assert len(page.all("script")) == 1 and not page.all("b", id="two")
    assert not [a for _, a in page.tags if "onerror" in a]
    assert HOSTILE in page.text
    assert "49" not in re.findall(r"\$x_\{\$ (\S+)", page.text)


def test_only_the_own_script_may_run(usual: Usual) -> None:
    import base64
    import hashlib

    text = usual.text
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script.group(1).encode()).digest()).decode()
    policy = usual.page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy is not None and f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "innerHTML" not in script.group(1) and "eval" not in script.group(1)


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    first = make_run(tmp_path / "runs" / "a", variant="multi", seed=1)
    second = make_run(tmp_path / "runs" / "b", variant="base", level=0.1, seed=2)
    page = _page([first, second], tmp_path / "report.html")
    assert len(page.all("article", class_="card")) == 6 and len(page.all("video")) == 12
    assert "toy@multi − toy@base" in page.text
    assert [b["value"] for b in page.all("input", type="checkbox")] == ["0", "1"]


def test_two_runs_of_one_model_are_told_apart_by_folder(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / "runs" / n, seed=i) for i, n in enumerate("ab")]
    report = report_data.read([Run.open(f) for f in folders], tmp_path / "report.html")
    assert report.labels == ("toy (a)", "toy (b)")


def test_a_run_has_one_label_in_the_whole_report(tmp_path: Path) -> None:
    """Also where a system has a run of each split: the table names it as the figures do."""
    runs = [made_run(tmp_path / split, "toy", {"arcsim": [0.1, 0.2]}, [("a",), ("b",)],
                     split=split) for split in ("single", "multi")]
    rows = tables.measured(runs).rows
    assert [row.system for row in rows] == ["toy (single)", "toy (multi)"]
    assert report_data.read(runs, tmp_path / "report.html").labels == tuple(r.system for r in rows)


def test_large_videos_are_linked(run_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(report_data, "EMBED_LIMIT", 100)
    output = tmp_path / "pages of mine" / "report.html"
    for video in _page([run_folder], output).all("video"):
        source = (video["src"] or "").replace("%20", " ")
        assert not source.startswith("data:") and (output.parent / source).is_file()
    embedded = _page([run_folder], output, embed=True).all("video")
    assert all((v["src"] or "").startswith("data:") for v in embedded)


def test_a_metric_of_another_package_has_its_column(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "toy", extra_metric="sharpness")
    page = _page([folder], tmp_path / "report.html")
    assert "sharpness worst" in [o.get("value") for o in page.all("option")]


@pytest.mark.parametrize("people", [1, 3])
def test_other_numbers_of_people(people: int, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "toy", people=people, count=3)
    page = _page([folder], tmp_path / "report.html")
    tracks = [a for a in page.all("div") if a.get("class") == "track"]
    assert len(tracks) == 3 * people


def test_seeds_of_one_sample_are_told_apart(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "runs" / "toy", count=3, people=1, prompts=["A park."],
                      identity_names=["ann", "ann", "bo"], categories=["scene"])
    cards = report_data.read([Run.open(folder)], tmp_path / "report.html").cards
    assert [card.repeat for card in cards] == ["1 of 2", "2 of 2", ""]


def test_a_damaged_video_or_reference_does_not_stop_the_report(
    run_folder: Path, tmp_path: Path
) -> None:
    run = Run.open(run_folder)
    videos = [r.video for r in run.records() if r.video]
    size = videos[0].stat().st_size
    videos[0].write_bytes(b"\0" * size)
    next((run_folder / "references").glob("*.png")).write_bytes(b"no picture")
    page = _page([run_folder], tmp_path / "report.html")
    assert len(page.all("video")) == 4
    assert "cannot be read" in page.text and "unreadable" in page.text


def test_a_run_without_scores_says_how_to_make_them(run_folder: Path, tmp_path: Path) -> None:
    (run_folder / "scores.parquet").unlink()
    with pytest.raises(UserError, match="no scores yet"):
        build_report([run_folder], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_strip_shows_each_frame_and_leaves_a_gap_where_nobody_was_found() -> None:
    frames = {t: np.full((40, 60, 3), 200, np.uint8) for t in range(3)}
    faces = [{"frame": t, "boxes": [[-9.0, -9.0, 12.0, 12.0]], "assignment": {"a": 0} if t else {}}
             for t in range(3)]
    uri, tiles, missing = media.crop_strip(frames, faces, "a")
    assert tiles == (0, 1, 2) and uri is not None and uri.startswith("data:image/webp;base64,")
    assert missing == (0,)
    assert media.crop_strip(frames, [], "a") == (None, (), ())


def test_a_face_is_cut_out_as_from_the_whole_frame() -> None:
    from PIL import Image

    frame = np.random.default_rng(0).integers(0, 255, (90, 160, 3)).astype(np.uint8)
    square = (40.25, 20.5, 90.25, 70.5)
    half = 25 / (0.62 * 2)  # the margin around a box
    box = (65.25 - half, 45.5 - half, 65.25 + half, 45.5 + half)
    expected = Image.fromarray(frame).resize(
        (media.CROP_SIZE, media.CROP_SIZE), Image.Resampling.BICUBIC, box=square)
    found = media._crop(frame, box).astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= 1
    # Over the edge, the frame goes on as its last pixels do.
    plain = np.full((9, 9, 3), 77, np.uint8)
    for outside in ((-30, -30, -20, -20), (4, 4, 40, 40), (0, 0, 0, 0)):
        assert (media._crop(plain, outside) == 77).all()


def test_a_curve_breaks_where_frames_are_unscored() -> None:
    line, points = curve_path([0.0, None, 1.0, 0.5], 0.0, 1.0)
    assert line == "M12.50 100.00M62.50 0.00L87.50 50.00"
    assert points.count("M") == 3


def test_reasons_told_by_a_person_are_not_told_again() -> None:
    person = PersonView("a", {"arcsim": Value(None, "no face")}, None, (), (), {})
    values = {"arcsim": Value(None, "a: no face"), "viclip": Value(None, "no prompt")}
    take = TakeView(0, "v", None, 1, 1, 1, 8.0, values, (person,), None)
    assert reasons_of(take) == ["no prompt"]


def test_figures_follow_the_page_and_keep_names_as_text() -> None:
    found = Estimate(0.4, 0.3, 0.5, 9, 9, 9)
    svg, again = (
        figures.to_svg(figures.tradeoff(
            [figures.Series("a <b> $x_{$", {"x": found, "y": found})], "x", "y",
            {"x": "X", "y": "Y"}), "two <metrics>") for _ in range(2))
    assert "var(--s0)" in svg and figures.SERIES[0] not in svg
    assert "a &lt;b&gt; $x_{$" in svg and 'aria-label="two &lt;metrics&gt;"' in svg
    assert svg == again


def test_names_of_runs_stand_above_the_axes_and_hide_no_mark() -> None:
    found = Estimate(0.4, 0.3, 0.5, 9, 9, 9)
    made = figures.tradeoff(
        [figures.Series(f"run {n}", {"x": found, "y": found}) for n in range(3)], "x", "y",
        {"x": "X", "y": "Y"})
    made.draw_without_rendering()
    (axes,) = made.axes
    legend = axes.get_legend().get_window_extent()
    assert legend.y0 >= axes.get_window_extent().y1 and legend.x1 <= made.bbox.x1


@pytest.mark.parametrize(("value", "text"), [(0.1234, "0.123"), (-0.5, "−0.500"),
                                            (-0.0004, "0.000"), (None, "–")])
def test_numbers_are_set_as_in_print(value: float | None, text: str) -> None:
    assert number(value) == text


def test_the_best_is_bold_and_p_values_stand_under_differences(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / n, variant=n, count=12, level=level, seed=i)
               for i, (n, level) in enumerate((("good", 0.8), ("poor", 0.1)))]
    text = build_report(folders, tmp_path / "report.html").read_text(encoding="utf-8")
    measured = tables.measured([Run.open(f) for f in folders])
    good, poor = (row.estimates["arcsim"].mean for row in measured.rows)
    assert f'<b class="best">{number(good)}</b>' in text
    assert f'<b class="best">{number(poor)}</b>' not in text
    assert f"<small>p {number(measured.differences[0].p_values['arcsim'])}</small>" in text


def test_faces_matched_to_nobody_are_shown(
    usual: Usual, run_folder: Path, tmp_path: Path
) -> None:
    before = usual.page
    assert "Other faces" not in before.text
    run = Run.open(run_folder)
    path = run.path(run.records()[0].sample.id, "faces.json")
    faces = FacesFile.read(path)
    for entry in faces.frames[:2]:
        entry.boxes.append([2.0, 2.0, 20.0, 20.0])
    faces.write(path)
    page = _page([run_folder], tmp_path / "report.html")
    assert f"Other faces: matched to no one in 2 of {len(faces.frames)} frames" in page.text
    # It is a row of one video, and no identity.
    assert len(page.all("tr")) == len(before.all("tr"))


def test_videos_are_linked_or_embedded_by_choice(run_folder: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from idbench.commands.report import report

    for choice, inside in (("auto", True), ("embed", True), ("link", False)):
        output = tmp_path / f"{choice}.html"
        arguments = [str(run_folder), "-o", str(output), "--videos", choice]
        assert CliRunner().invoke(report, arguments).exit_code == 0
        sources = [v["src"] or "" for v in _Page(output.read_text("utf-8")).all("video")]
        assert sources and all(s.startswith("data:") == inside for s in sources)
